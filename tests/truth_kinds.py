"""What tests/truth.py makes random programs of: a Kind for each mode of the machine that the model
is held against KVM in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

DATA, DEVICE, WORDS = 0x2000, 0x10000, 8
WIDTHS = (1, 2, 4, 8)
Lines = list[str]


@dataclass(frozen=True)
class Kind:
    """One kind of program.

    `one` gives one instruction, or a few that belong together; `branch` puts some behind a jump or
    into a loop; `end` tells of registers and memory by writing them to the device. `top` is what a
    scenario says beside the cases, `enable` whether half of the programs have
    KVM_CAP_ARM_NISV_TO_USER. `least` is the share of programs that both hosts must run: the model
    refuses some by name.
    """

    name: str
    arch: str
    one: Callable[[Random], Lines]
    branch: Callable[[Random, str, Lines], Lines]
    end: Callable[[], Lines]
    regs: Callable[[Random], Mapping[str, int]]
    top: Mapping[str, Any] = field(default_factory=dict)
    sections: Mapping[str, int] = field(default_factory=dict)
    slots: tuple[str, ...] = ("{slot: 0, gpa: 0, size: 0x4000}",)
    text: str = ""
    enable: bool = False
    least: float = 0.95


def value(random: Random) -> int:
    """A register's: small, near an edge, or anything."""
    near = random.choice((0, 1 << 7, 1 << 15, 1 << 31, 1 << 32, 1 << 63)) + random.randint(-2, 2)
    return (
        random.choice((random.randrange(64), near, random.getrandbits(32), random.getrandbits(64)))
        & (1 << 64) - 1
    )
