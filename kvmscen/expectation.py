"""What must be seen, with every name resolved to its number. It goes round the host to diff, as JSON where it must."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Json = dict[str, Any]


class Deed(NamedTuple):
    """What the host is told to do, as it is written: `text` is YAML of it, in file line `line`.

    With `errno` it must fail so. An action is carried out as `parts` actions of the Machine, of which each must end so.
    """

    text: str
    line: int
    errno: str | None = None
    parts: int = 1

    def to_json(self) -> list[Any]:
        return [self.text, self.line, self.errno, self.parts]


def parts(deeds: Iterable[Deed]) -> list[Deed]:
    """One for each action of the Machine, as Event.op counts them."""
    return [deed for deed in deeds for _ in range(deed.parts)]


class Expected(NamedTuple):
    """One step. `kind`: exit name, `error`, `timeout`, `group`. `fields`, `regs`: name to matcher (plain JSON data).

    `where` names the fields that decide whether an exit is this step at all. `memory`: (gpa, unit, values); unit u8 to u64
    with a list of matchers, or `hex` with the bytes' hex. `reply` are the members that user space must have written back (None:
    none of the step's own), `answer` is YAML of them. `then` are the actions (None: not written).
    """

    kind: str
    line: int
    column: int
    vcpu: int = 0
    fields: Mapping[str, Any] = {}
    where: tuple[str, ...] = ()
    repeat: tuple[int, int] = (1, 1)
    regs: Mapping[str, Any] = {}
    memory: tuple[tuple[int, str, Any], ...] = ()
    timeout: float = 0.0
    steps: tuple[Expected, ...] = ()
    answer: str = ""
    then: tuple[Deed, ...] | None = None
    reply: Mapping[str, Any] | None = None

    def to_json(self) -> Json:
        out: Json = {"kind": self.kind, "at": [self.line, self.column], "vcpu": self.vcpu}
        if self.fields:
            out["fields"] = dict(self.fields)
        if self.where:
            out["where"] = list(self.where)
        if self.repeat != (1, 1):
            out["repeat"] = list(self.repeat)
        if self.regs:
            out["regs"] = dict(self.regs)
        if self.memory:
            out["memory"] = [list(m) for m in self.memory]
        if self.timeout:
            out["timeout"] = self.timeout
        if self.steps:
            out["steps"] = [s.to_json() for s in self.steps]
        if self.answer:
            out["answer"] = self.answer
        if self.then is not None:
            out["then"] = [deed.to_json() for deed in self.then]
        if self.reply is not None:
            out["reply"] = dict(self.reply)
        return out

    @classmethod
    def from_json(cls, data: Json) -> Expected:
        low, high = data.get("repeat", (1, 1))
        line, column = data["at"]
        return cls(
            data["kind"],
            line,
            column,
            data["vcpu"],
            data.get("fields", {}),
            tuple(data.get("where", ())),
            (low, high),
            data.get("regs", {}),
            tuple((at, unit, values) for at, unit, values in data.get("memory", ())),
            data.get("timeout", 0.0),
            tuple(cls.from_json(s) for s in data.get("steps", ())),
            data.get("answer", ""),
            tuple(Deed(*deed) for deed in data["then"]) if "then" in data else None,
            data.get("reply"),
        )


class Story(NamedTuple):
    """The steps in order (None: nothing is compared but the end), exits to ignore, and the final state.

    `built` are capabilities, slots and vCPUs by the name that an Event's `op` gives them, `setup` the actions before the guest.
    """

    steps: tuple[Expected, ...] | None
    ignore: tuple[Expected, ...] = ()
    regs: Mapping[str, Any] = {}
    memory: tuple[tuple[int, str, Any], ...] = ()
    line: int = 0
    built: Mapping[str, Deed] = {}
    setup: tuple[Deed, ...] = ()

    def to_json(self) -> Json:
        return {
            "steps": None if self.steps is None else [s.to_json() for s in self.steps],
            "ignore": [s.to_json() for s in self.ignore],
            "regs": dict(self.regs),
            "memory": [list(m) for m in self.memory],
            "line": self.line,
            "built": {op: deed.to_json() for op, deed in self.built.items()},
            "setup": [deed.to_json() for deed in self.setup],
        }

    @classmethod
    def from_json(cls, data: Json) -> Story:
        steps = data["steps"]
        return cls(
            None if steps is None else tuple(Expected.from_json(s) for s in steps),
            tuple(Expected.from_json(s) for s in data["ignore"]),
            data["regs"],
            tuple((at, unit, values) for at, unit, values in data["memory"]),
            data["line"],
            {op: Deed(*deed) for op, deed in data["built"].items()},
            tuple(Deed(*deed) for deed in data["setup"]),
        )


class Expectation(NamedTuple):
    """The story that should hold; `xfail` is the known wrong one that holds today, `reason` why."""

    story: Story
    xfail: Story | None = None
    reason: str = ""

    def to_json(self) -> Json:
        return {
            "story": self.story.to_json(),
            "xfail": None if self.xfail is None else self.xfail.to_json(),
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, data: Json) -> Expectation:
        xfail = data["xfail"]
        return cls(Story.from_json(data["story"]), None if xfail is None else Story.from_json(xfail), data["reason"])
