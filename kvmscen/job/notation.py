"""Steps and events in the scenario's own notation, so that what was expected and what was seen can
be read side by side.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from kvmscen.job.expectation import Expected, MemoryExpected
from kvmscen.job.legend import Legend
from kvmscen.sent.header import exits, kvm_run
from kvmscen.sent.machine import seconds
from kvmscen.sent.observation import Event
from kvmscen.sent.script.interpreter import series

_ADDRESSES = ("phys_addr", "fault_ipa", "gpa", "fault_addr")
_DECIMAL = ("len", "size", "count", "ndata", "suberror", "cpu", "slot")
# How far from its symbol an address is still named by it, and how far behind its section.
_NEAR = 0x1000
_BEHIND = 64
# What a scenario can write as a symbol; these words are something else in YAML.
_SYMBOL = re.compile(
    r"(?!(?:~|null|true|false|\.inf|\.nan)$)[a-z_.$][\w.$]*", re.IGNORECASE | re.ASCII
)


class Notation:
    """Writes for one case: `legend` names its addresses, `arch` its fields."""

    def __init__(self, legend: Legend, arch: str) -> None:
        self.legend = legend
        self.arch = arch
        best = legend.best
        usable = (
            (name, at)
            for name, at in legend.symbols.items()
            if not name.startswith("__") and _SYMBOL.fullmatch(name)
        )
        # Of several at one address what a compiler has made up for itself comes last.
        named = sorted((at, name not in best, name.startswith("."), name) for name, at in usable)
        self._at = [at for at, _, _, _ in named]
        self._names = [name for _, _, _, name in named]

    def address(self, value: int) -> str:
        """`counter + 8`, or a hex number where no symbol is near."""
        index = bisect_right(self._at, value) - 1
        # Of several symbols at one address the first written name is as good as any: take the first
        # by alphabet.
        while index > 0 and self._at[index - 1] == self._at[index]:
            index -= 1
        if (
            index < 0
            or value - self._at[index] >= _NEAR
            or not self._together(self._at[index], value)
        ):
            return _hex(value)
        offset = value - self._at[index]
        return self._names[index] + (f" + {offset}" if offset else "")

    def _together(self, symbol: int, value: int) -> bool:
        """Whether an address lies in the section of a symbol, or just behind it; where no sections
        are known it may.
        """
        spans = [
            (section.gpa, section.gpa + section.size)
            for section in self.legend.sections
            if section.size
        ]
        # At its end too: a label may stand behind all that is in a section.
        within = [end for at, end in spans if at <= symbol < end] or [
            end for at, end in spans if symbol == end
        ]
        if not within or value == symbol or value < within[0]:
            return True
        return value < within[0] + _BEHIND and not any(at <= value < end for at, end in spans)

    def value(self, exit_name: str, key: str, value: Any) -> str:
        """One number, matcher or list, as it may be written for a member of an exit."""
        if isinstance(value, bool) or (key == "is_write" and value in (0, 1)):
            return "true" if value else "false"
        if isinstance(value, int):
            return self._number(exit_name, key, value)
        if key == "memory_fault" and isinstance(value, Mapping):
            return self._members(key, value)
        if key == "accesses" and isinstance(value, Mapping):
            return self._members("mmio", value)
        if isinstance(value, Mapping):
            inner = ", ".join(
                f"{k}: {self.value(exit_name, key, v)}" for k, v in value.items() if k != "bits"
            )
            return "{" + inner + "}"
        if isinstance(value, list | tuple):
            return "[" + ", ".join(self.value(exit_name, key, v) for v in value) + "]"
        return str(value)

    def _number(self, exit_name: str, key: str, value: int) -> str:
        names = _names(exit_name, key)
        if value in names:
            return names[value]
        if key in _ADDRESSES:
            return self.address(value)
        return str(value) if key in _DECIMAL else _hex(value)

    def expected(self, step: Expected, nth: int | None = None) -> str:
        """A step, what stands beside its exit key behind it; of a series the value in round `nth`,
        where that is given.
        """
        regs, memory, fields = step.regs, step.memory, step.fields
        if nth is not None:
            regs, fields = _in_round(regs, nth), _in_round(fields, nth)
            memory = tuple(check._replace(values=_in_round(check.values, nth)) for check in memory)
        if step.kind == "group":
            return f"repeat: {_repeat(step.repeat)}, steps: ..."
        if step.kind == "timeout":
            return f"timeout: {seconds(step.timeout)}" + self._beside(regs, memory)
        return self._exit(step.kind, fields) + self._beside(regs, memory)

    def event(self, event: Event, like: Expected | None = None) -> str:
        """An event; with the members, registers and memory that the step `like` has where it is
        given.
        """
        if event.kind == "timeout":
            text = f"timeout: {seconds(event.fields['timeout'])}"
        elif event.kind == "succeeded":
            return f"{event.name} succeeded"
        elif event.kind == "error":
            members = {key: value for key, value in event.fields.items() if key != "reason"}
            text = self._exit("error", {**members, "errno": event.name})
        else:
            fields = {key: value for key, value in event.fields.items() if key != "corrected"}
            if like is None and kvm_run.is_read(event.name, fields):
                # Of a read it is what the last access left there.
                fields = {key: value for key, value in fields.items() if key != "data"}
            if like is not None and like.kind == event.name and like.fields:
                shown = [key for key in like.fields if key in fields]
                if len(shown) < len(like.fields):
                    # A member that is not there is mostly the data of a read.
                    shown += [
                        key
                        for key in ("is_write", "direction")
                        if key in fields and key not in shown
                    ]
                fields = {key: fields[key] for key in shown}
            elif like is not None and like.kind == event.name:
                fields = {}
            text = self._exit(event.name, fields)
        if like is None:
            return text
        regs = {name: value for name, value in (event.regs or {}).items() if name in like.regs}
        memory = (
            [] if event.memory is None else [seen(check, event.memory) for check in like.memory]
        )
        return text + self._beside(regs, memory)

    def _exit(self, name: str, fields: Mapping[str, Any]) -> str:
        return f"{name}: {self._members(name, fields)}"

    def _members(self, name: str, fields: Mapping[str, Any]) -> str:
        return (
            "{"
            + ", ".join(f"{key}: {self.value(name, key, value)}" for key, value in fields.items())
            + "}"
        )

    def _beside(self, regs: Mapping[str, Any], memory: Iterable[MemoryExpected]) -> str:
        out = ""
        if regs:
            out += (
                ", regs: {"
                + ", ".join(f"{k}: {self.value('', k, v)}" for k, v in regs.items())
                + "}"
            )
        for check in memory:
            out += f", memory: {{{self.memory(check)}}}"
        return out

    def register(self, value: Any) -> str:
        """A register's value or matcher."""
        return self.value("", "", value)

    def memory(self, check: MemoryExpected) -> str:
        """One memory check: `counter: {u32: [1, 100]}`."""
        if check.unit == "hex":
            return f'{self.address(check.gpa)}: {{hex: "{check.values}"}}'
        return f"{self.address(check.gpa)}: {{{check.unit}: {self.value('', '', check.values)}}}"


def seen(check: MemoryExpected, memory: Mapping[int, bytes]) -> MemoryExpected:
    """What memory held where a check looked, in the check's own unit; an empty list where there is
    no memory.
    """
    at, unit, values = check
    size = 1 if unit == "hex" else int(unit[1:]) // 8
    # Another check at this address may have asked for more.
    raw = memory.get(at, b"")[: len(values) // 2 if unit == "hex" else len(values) * size]
    return MemoryExpected(at, unit, raw.hex() if unit == "hex" else elements(raw, size))


def elements(raw: bytes, size: int) -> list[int]:
    """Little-endian numbers of `size` bytes each."""
    return [int.from_bytes(raw[n : n + size], "little") for n in range(0, len(raw), size)]


def _hex(value: int) -> str:
    return str(value) if -10 < value < 10 else hex(value)


def _repeat(repeat: tuple[int, int]) -> str:
    low, high = repeat
    return str(low) if low == high else f"{{min: {low}, max: {high}}}"


def _in_round(value: Any, nth: int) -> Any:
    """A matcher, or each in a list or map, with `from` and `step` replaced by the value in round
    `nth`.
    """
    if isinstance(value, Mapping):
        return (
            series(value, nth)
            if "from" in value
            else {key: _in_round(member, nth) for key, member in value.items()}
        )
    return [_in_round(member, nth) for member in value] if isinstance(value, list) else value


@cache
def _names(exit_name: str, key: str) -> Mapping[int, str]:
    row = exits.BY_NAME.get(exit_name)
    for field in row.fields if row is not None else ():
        if field.name == key and field.names:
            return {number: name for name, number in field.names.items()}
    return {}
