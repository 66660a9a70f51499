"""What KVM answers to an arm64 guest's hvc: PSCI and the SMC calling convention
(arch/arm64/kvm/psci.c, hypercalls.c).

Values are those of Linux 5.18 and later; what depends on the machine or its kernel's mitigations
has no answer here.
"""

from __future__ import annotations

from typing import NamedTuple

NOT_SUPPORTED, INVALID, ALREADY_ON, INTERNAL_FAILURE = -1, -2, -4, -6
SMCCC_1_1 = 0x10001
SYSTEM_SHUTDOWN, SYSTEM_RESET = 1, 2

_VERSION, _SUSPEND, _OFF, _ON, _AFFINITY, _MIGRATE_TYPE = (
    0x84000000,
    0x84000001,
    0x84000002,
    0x84000003,
    0x84000004,
    0x84000006,
)
_SYSTEM_OFF, _SYSTEM_RESET, _FEATURES = 0x84000008, 0x84000009, 0x8400000A
_SMC64 = 0x40000000
_WIDE = {n | _SMC64 for n in (_SUSPEND, _ON, _AFFINITY)}
_KNOWN = {
    _VERSION,
    _SUSPEND,
    _OFF,
    _ON,
    _AFFINITY,
    _MIGRATE_TYPE,
    _SYSTEM_OFF,
    _SYSTEM_RESET,
    _FEATURES,
} | _WIDE
# SMCCC features, stolen time, KVM's own calls, random numbers, SYSTEM_RESET2 and SYSTEM_SUSPEND.
_HOST = (
    (0x80000001, 0x80007FFF),
    (0xC0000000, 0xC000FFFF),
    (0xC5000020, 0xC5000022),
    (0x86000000, 0x8600FFFF),
    (0xC6000000, 0xC600FFFF),
    (0x84000050, 0x8400005F),
    (0xC4000050, 0xC400005F),
    (0x8400000E, 0x84000015),
    (0xC400000E, 0xC4000015),
)


class Answer(NamedTuple):
    """`value` goes to x0; `event` is the type of a system_event; `blocks`: the vCPU sleeps; `off`:
    for good.
    """

    value: int
    event: int | None = None
    blocks: bool = False
    off: bool = False


def answer(function: int, args: tuple[int, int], psci: bool) -> Answer | None:
    """The answer to function identifier w0 with x1 and x2, on the only vCPU; None where it cannot
    be known.
    """
    if function == 0x80000000:
        return Answer(SMCCC_1_1)
    if any(low <= function <= high for low, high in _HOST):
        return None
    if not psci:
        # PSCI 0.1 knows 0x95c1ba5e (suspend) to 0x95c1ba61 (migrate).
        return None if 0x95C1BA5E <= function <= 0x95C1BA61 else Answer(NOT_SUPPORTED)
    if function not in _KNOWN:
        return Answer(NOT_SUPPORTED)
    if function == _VERSION or (function == _FEATURES and args[0] & 0xFFFFFFFF not in _KNOWN):
        # KVM's PSCI has grown from 1.0 over 1.1 to 1.3.
        return None
    return _psci(function, args)


def _psci(function: int, args: tuple[int, int]) -> Answer:
    if function in (_SUSPEND, _SUSPEND | _SMC64):
        return Answer(0, blocks=True)
    if function == _OFF:
        return Answer(0, blocks=True, off=True)
    if function in (_ON, _ON | _SMC64):
        return Answer(INVALID if args[0] else ALREADY_ON)
    if function in (_AFFINITY, _AFFINITY | _SMC64):
        # Above level 0 the affinities below the level do not count.
        level = args[1]
        return Answer(
            INVALID if level > 3 or args[0] & (0xFF00FFFFFF << 8 * level) & 0xFF00FFFFFF else 0
        )
    if function == _MIGRATE_TYPE:
        return Answer(2)
    if function == _FEATURES:
        return Answer(0 if args[0] & 0xFFFFFFFF in _KNOWN | {0x80000000} else NOT_SUPPORTED)
    event = SYSTEM_SHUTDOWN if function == _SYSTEM_OFF else SYSTEM_RESET
    return Answer(INTERNAL_FAILURE, event, blocks=True, off=True)
