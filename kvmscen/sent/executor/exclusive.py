"""arm64: from an emulated load-exclusive to its store-exclusive, step by step, and that is carried
out too.
"""

from __future__ import annotations

from kvmscen.sent.executor.session import Session
from kvmscen.sent.header import exits
from kvmscen.sent.kvm.fds import Vcpu
from kvmscen.sent.undecoded import emulation

_DEBUG = exits.BY_NAME["debug"].number
# A loop of exclusives is shorter; the Arm ARM lets them fail where more lies between (B2.9.5).
_STEPS = 64


def run_on(session: Session, vcpu: Vcpu) -> int | None:
    """Run up to the store-exclusive and carry it out: None then, else what KVM_RUN returned with
    instead of a step.

    Where the scenario steps the guest itself, each step is an exit of its own.
    """
    recorder = session.recorder
    if vcpu.stepping:
        return _one_step(session, vcpu)
    recorder.exclusive.discard(vcpu.number)
    for _ in range(_STEPS):
        if emulation.store_exclusive(recorder, session.bus(vcpu)):
            break
        vcpu.single_step(True)
        number = vcpu.run()
        if number or vcpu.exit_reason != _DEBUG:
            vcpu.single_step(False)
            return number
    vcpu.single_step(False)
    return None


def _one_step(session: Session, vcpu: Vcpu) -> int | None:
    """One step of a guest that the scenario steps itself: what KVM_RUN returned with.

    None where the store-exclusive was there, and is carried out: what comes behind it is entered as
    always.
    """
    if emulation.store_exclusive(session.recorder, session.bus(vcpu)):
        session.recorder.exclusive.discard(vcpu.number)
        return None
    number = vcpu.run()
    if number or vcpu.exit_reason != _DEBUG:
        session.recorder.exclusive.discard(vcpu.number)
    return number
