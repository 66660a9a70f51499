"""An arm64 access that left the guest though a CPU of silicon would have faulted on it before: the
run gets a note.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmscen.sent.script.recorder import Recorder
from kvmscen.sent.undecoded import walk
from kvmscen.sent.undecoded.alignment import misaligned
from kvmscen.sent.undecoded.emulation import Bus, instruction

# The failing KVM_RUN of an access that KVM cannot decode.
UNDECODED = "ENOSYS"


def look(recorder: Recorder, bus: Bus, name: str, members: Mapping[str, Any]) -> None:
    """Tell the recorder where the access at pc, the cause of this exit or of ENOSYS, is not aligned
    as silicon asks.
    """
    # One register by a valid syndrome: its size is that of the exit.
    if name not in ("mmio", "arm_nisv", UNDECODED) or (
        name == "mmio" and not members["phys_addr"] % members["len"]
    ):
        return
    try:
        wrong = misaligned(
            instruction(bus),
            bus.register,
            lambda address: walk.device(address, bus.register, bus.load),
        )
    except walk.NoTranslation:
        return
    if wrong is not None:
        recorder.misaligned(bus.register("pc"), wrong)
