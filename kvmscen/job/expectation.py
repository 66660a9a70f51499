"""What must be seen, with every name resolved to its number. It goes round the host to diff, as
JSON where it must.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kvmscen.sent.codec import Rows

Json = dict[str, Any]


class Deed(NamedTuple):
    """What the host is told to do, as it is written: `text` is YAML of it, in file line `line`.

    With `errno` it must fail so. An action is carried out as `parts` actions of the Machine, of
    which each must end so.
    """

    text: str
    line: int
    errno: str | None = None
    parts: int = 1


def parts(deeds: Iterable[Deed]) -> list[Deed]:
    """One for each action of the Machine, as Event.op counts them."""
    return [deed for deed in deeds for _ in range(deed.parts)]


class MemoryExpected(NamedTuple):
    """What memory holds at `gpa`: with a unit u8 to u64 a list of matchers, with `hex` the bytes'
    hex.
    """

    gpa: int
    unit: str
    values: Any


class Expected(NamedTuple):
    """One step. `kind`: exit name, `error`, `timeout`, `group`. `fields`, `regs`: name to matcher
    (plain JSON data).

    `where` names the fields that decide whether an exit is this step at all. `reply` are the
    members that user space must have written back (None: none of the step's own), `answer` is YAML
    of them. `then` are the actions (None: not written).
    """

    kind: str
    line: int
    column: int
    vcpu: int = 0
    fields: Mapping[str, Any] = {}
    where: tuple[str, ...] = ()
    repeat: tuple[int, int] = (1, 1)
    regs: Mapping[str, Any] = {}
    memory: Rows[MemoryExpected] = ()
    timeout: float = 0.0
    steps: tuple[Expected, ...] = ()
    answer: str = ""
    then: tuple[Deed, ...] | None = None
    reply: Mapping[str, Any] | None = None


class Story(NamedTuple):
    """The steps in order (None: nothing is compared but the end), exits to ignore, and the final
    state.

    `built` are capabilities, slots and vCPUs by the name that an Event's `op` gives them, `setup`
    the actions before the guest.
    """

    steps: tuple[Expected, ...] | None
    ignore: tuple[Expected, ...] = ()
    regs: Mapping[str, Any] = {}
    memory: Rows[MemoryExpected] = ()
    line: int = 0
    built: Mapping[str, Deed] = {}
    setup: tuple[Deed, ...] = ()


class Expectation(NamedTuple):
    """The story that should hold; `xfail` is the known wrong one that holds today, `reason` why."""

    story: Story
    xfail: Story | None = None
    reason: str = ""
