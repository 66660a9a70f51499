"""Names to numbers: expressions, matchers, memory checks and host actions of one case, with every
problem collected.
"""

from __future__ import annotations

import difflib
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from kvmscen.errors import Problem
from kvmscen.job.expectation import MemoryExpected
from kvmscen.load.scalars import mistaken
from kvmscen.scenario import Action as ActionWritten
from kvmscen.scenario import Enable, Expr, Match, MemoryCheck, Place, Step
from kvmscen.scenario import Memslot as MemslotWritten
from kvmscen.sent.arch import ARCHES
from kvmscen.sent.codec import encode
from kvmscen.sent.header import exits
from kvmscen.sent.header.actions import BY_NAME, VALUE, Member, reg_bits
from kvmscen.sent.header.caps import CAPABILITIES, ON_VCPU
from kvmscen.sent.header.uapi import MEM_FLAGS
from kvmscen.sent.machine import Action, Capability, Memslot


@cache
def widths(arch: str) -> Mapping[str, int]:
    """The bits of each register."""
    return {name: row.bits for name, row in ARCHES[arch].REGISTERS.items()}


class Resolver:
    """The symbols of one case. What cannot be resolved becomes a problem and the number 0."""

    def __init__(self, file: str, symbols: Mapping[str, int]) -> None:
        self.file = file
        self.symbols = symbols
        self.problems: list[Problem] = []

    def problem(self, place: Place, message: str) -> None:
        """Collect one problem at a place of the file."""
        self.problems.append(Problem(self.file, place.line, place.column, message))

    def number(self, expr: Expr, bits: int = 64) -> int:
        """The value of an expression as an unsigned number of `bits`; negative ones are two's
        complement.
        """
        value = expr.offset
        if expr.symbol is not None:
            if expr.symbol not in self.symbols:
                close = difflib.get_close_matches(expr.symbol, self.symbols, 1)
                hint = mistaken(expr.symbol) or (
                    f"did you mean {close[0]}?" if close else "write one of its labels, or a number"
                )
                self.problem(
                    expr.place, f"symbol {expr.symbol} is not defined in the program: {hint}"
                )
                return 0
            value += self.symbols[expr.symbol]
        if not -(1 << (bits - 1)) <= value < 1 << bits:
            most = (
                f"{(1 << bits) - 1:#x} is the most"
                if value > 0
                else f"-{1 << (bits - 1):#x} is the least"
            )
            self.problem(
                expr.place, f"{expr} is {value:#x}, which does not fit in {bits} bits: {most}"
            )
            return 0
        return value & ((1 << bits) - 1)

    def matcher(self, value: Any, bits: int = 64) -> Any:
        """A matcher as plain JSON data; the header's names and flags are numbers already."""
        if isinstance(value, Expr):
            return self.number(value, bits)
        if isinstance(value, Match):
            numbers = {key: self.matcher(number, bits) for key, number in value.numbers.items()}
            if (
                value.kind == "series"
                and (step := value.numbers["step"]).offset < 0
                and step.symbol is None
            ):
                numbers["step"] = step.offset
            if value.kind == "series" and bits != 64:
                numbers["bits"] = bits
            return numbers
        if isinstance(value, tuple | list):
            return [self.matcher(member, bits) for member in value]
        if isinstance(value, Mapping):
            # One part of an emulated access; its data may be as wide as a dc zva.
            return {
                key: self.matcher(member, 512 if key == "data" else bits)
                for key, member in value.items()
            }
        return value

    def fields(
        self, name: str, fields: Mapping[str, Any], arch: str, place: Place
    ) -> dict[str, Any]:
        """The members of an exit, each at its own width; `data` at that of `len` or `size` where
        that is written.
        """
        bits = _member_bits(name, arch)
        length = fields.get("len", fields.get("size"))
        if isinstance(length, Expr) and length.symbol is None and length.offset in (1, 2, 4, 8):
            bits = {**bits, "data": 8 * length.offset}
        elif (
            isinstance(data := fields.get("data"), Expr)
            and data.symbol is None
            and data.offset < 0
            and name in ("mmio", "io")
        ):
            key = "len" if name == "mmio" else "size"
            self.problem(
                data.place, f"a negative data has no width without {key}: write {key} beside it"
            )
        out = {key: self.matcher(value, bits.get(key, 64)) for key, value in fields.items()}
        if name == "io" and isinstance(data := out.get("data"), list) and len(data) == 1:
            # One element is a number, as KVM's exit has it.
            out["data"] = data[0]
        return out

    def memory(self, checks: tuple[MemoryCheck, ...]) -> tuple[MemoryExpected, ...]:
        """Memory checks with numbers for names; hex and text become the hex of their bytes."""
        out: list[MemoryExpected] = []
        for check in checks:
            at = self.number(check.at)
            if isinstance(check.values, bytes):
                out.append(MemoryExpected(at, "hex", check.values.hex()))
            else:
                values = [self.matcher(value, int(check.unit[1:])) for value in check.values]
                out.append(MemoryExpected(at, check.unit, values))
        return tuple(out)

    def bytes_of(self, check: MemoryCheck) -> bytes:
        """The bytes that a write_memory puts."""
        ((_, unit, values),) = self.memory((check,))
        if unit == "hex":
            return bytes.fromhex(values)
        size = int(unit[1:]) // 8
        if not all(isinstance(value, int) for value in values):
            self.problem(check.place, "a matcher cannot be written to memory: write numbers")
            return b""
        return b"".join(value.to_bytes(size, "little") for value in values)

    def memslot(self, slot: MemslotWritten) -> Memslot:
        """A slot with its flags as a number."""
        flags = 0
        for name in slot.flags:
            flags |= MEM_FLAGS[name]
        return Memslot(slot.slot, self.number(slot.gpa), slot.size, flags, slot.errno)

    def capability(self, enable: Enable) -> Capability:
        """A capability with its number and the descriptor that it is enabled on."""
        return Capability(
            enable.cap, CAPABILITIES[enable.cap], enable.args, enable.cap in ON_VCPU, enable.errno
        )

    def actions(self, actions: tuple[ActionWritten, ...], arch: str) -> tuple[Action, ...]:
        """Host actions in the form that the executor takes."""
        out: list[Action] = []
        for action in actions:
            for args in self._args(action, arch):
                out.append(Action(action.name, args, action.vcpu, action.errno))
        return tuple(out)

    def _args(self, action: ActionWritten, arch: str) -> list[dict[str, Any]]:
        """The args of the Machine's actions that one action comes to."""
        if action.name in FORMS:
            return FORMS[action.name](self, action.args, arch)
        args: dict[str, Any] = {}
        for member in BY_NAME[action.name].of(arch) or ():
            if member.name in action.args:
                args[member.name] = self._member(member, action.args)
        return [args]

    def _member(self, member: Member, args: Mapping[str, Any]) -> Any:
        value = args[member.name]
        if member.flags:
            return sum((member.names or {}).get(name, 0) for name in set(value))
        if member.length > 1:
            return [self.number(item, member.bits) for item in value]
        if member.fmt == VALUE:
            return self.number(value, reg_bits(self.number(args["id"])) if "id" in args else 64)
        return self.number(value, member.bits)


def _write_memory(resolver: Resolver, args: Mapping[str, Any], arch: str) -> list[dict[str, Any]]:
    checks: tuple[MemoryCheck, ...] = args["memory"]
    return [
        {"gpa": resolver.number(check.at), "data": resolver.bytes_of(check).hex()}
        for check in checks
    ]


# Actions that are not "fill a struct and call an ioctl": what the executor is given for each.
FORMS: dict[str, Callable[[Resolver, Mapping[str, Any], str], list[dict[str, Any]]]] = {
    "set_regs": lambda r, args, arch: [
        {name: r.number(value, widths(arch).get(name, 64)) for name, value in args.items()}
    ],
    "write_memory": _write_memory,
    "set_memslot": lambda r, args, arch: [encode(r.memslot(args["memslot"]))],
    "delete_memslot": lambda r, args, arch: [{"slot": args["slot"]}],
    "enable": lambda r, args, arch: [encode(r.capability(args["enable"]))],
    "emulate": lambda r, args, arch: [{}],
}


def actions_of(steps: Iterable[Step]) -> Iterator[ActionWritten]:
    """Every host action in the `then` of steps."""
    for step in steps:
        yield from step.then or ()
        yield from actions_of(step.steps)


@cache
def _member_bits(name: str, arch: str) -> Mapping[str, int]:
    """The bits of each member of an exit."""
    return {
        f.name: 64 if f.fmt == "8s" else 8 * struct.calcsize("=" + f.fmt)
        for f in exits.fields_of(name, arch)
    }


def memory_size(expected: MemoryExpected) -> int:
    """Bytes that a memory check reads."""
    _, unit, values = expected
    return len(values) // 2 if unit == "hex" else len(values) * int(unit[1:]) // 8
