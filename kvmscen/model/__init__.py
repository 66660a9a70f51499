"""The host that needs no KVM: Unicorn runs the guest, and rules of KVM and of the architecture
predict the exits.
"""

from __future__ import annotations

from kvmscen.model.capabilities import CAPABILITIES, CPU
from kvmscen.sent.facts import Facts

ARCHES = tuple(CAPABILITIES)


def facts(arch: str, kernel: str | None = None) -> Facts:
    """What the model of one of ARCHES is as a host; `kernel` is the version that it predicts, None
    where it names none.
    """
    return Facts(arch, kernel, CAPABILITIES[arch], cpu=CPU[arch], kind="model", predicted=True)
