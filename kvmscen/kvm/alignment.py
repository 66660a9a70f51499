"""An arm64 access that left the guest though a CPU of silicon would have faulted on it before: the run gets a note."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmscen.arch import arm64_walk
from kvmscen.arch.arm64_alignment import misaligned
from kvmscen.kvm.emulation import Bus, instruction
from kvmscen.kvm.recorder import Recorder

# The failing KVM_RUN of an access that KVM cannot decode.
UNDECODED = "ENOSYS"


def look(recorder: Recorder, bus: Bus, name: str, members: Mapping[str, Any]) -> None:
    """Tell the recorder where the access at pc, the cause of this exit or of ENOSYS, is not aligned as silicon asks."""
    # One register by a valid syndrome: its size is that of the exit.
    if name not in ("mmio", "arm_nisv", UNDECODED) or (name == "mmio" and not members["phys_addr"] % members["len"]):
        return
    try:
        wrong = misaligned(instruction(bus), bus.register, lambda address: arm64_walk.device(address, bus.register, bus.load))
    except arm64_walk.NoTranslation:
        return
    if wrong is not None:
        recorder.misaligned(bus.register("pc"), wrong)
