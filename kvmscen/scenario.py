"""A scenario as it is written: names and expressions still in it, every value with its place.

load makes these, build reads them. Nothing here knows YAML or KVM's numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Place(NamedTuple):
    """A position in the scenario's file, counted from 1."""

    line: int
    column: int


class Expr(NamedTuple):
    """`symbol + offset`; a plain number has no symbol."""

    symbol: str | None
    offset: int
    place: Place

    def __str__(self) -> str:
        if self.symbol is None:
            return hex(self.offset) if self.offset >= 10 else str(self.offset)
        if self.offset == 0:
            return self.symbol
        return f"{self.symbol} {'+' if self.offset > 0 else '-'} {abs(self.offset)}"


class Match(NamedTuple):
    """A matcher in place of a number: `kind` is mask, in, range or series, with its numbers by
    name.

    mask: mask, value. in: a tuple under `in`. range: min and/or max. series: from, step. Each
    number is an Expr.
    """

    kind: str
    numbers: Mapping[str, Any]
    place: Place


# A number or symbol (load has turned the header's names into numbers), a matcher, or a list of them
# (io with count > 1, args). In an `error` step: the name under `ioctl` and `errno`, and a map of
# members under `memory_fault`.
Value = Expr | Match | tuple[Any, ...] | str | bool | Mapping[str, Any]


class MemoryCheck(NamedTuple):
    """`counter: {u32: [1, 100]}`: what memory holds, or is given. `unit` is u8..u64, hex or
    text.
    """

    at: Expr
    unit: str
    values: tuple[Value, ...] | bytes
    place: Place


class Action(NamedTuple):
    """One host action of `then` or `setup`, as written.

    `args` of set_regs: Expr by register. write_memory: `memory`, a tuple of MemoryCheck.
    set_memslot: `memslot`, a Memslot. delete_memslot: `slot`, a number. enable: `enable`, an
    Enable. Their errno stands in the action. set_guest_debug: `control`, names, and tuples of Expr
    by debug register. register_coalesced_mmio and its counterpart: `addr` (Expr), `size`, `pio`.
    ioeventfd: `addr`, `len`, `datamatch` (Expr or None), `flags`, names. emulate: none.
    set_guest_debug: `control`, names, and tuples of Expr by debug register. `text` is YAML of it.
    """

    name: str
    args: Mapping[str, Any]
    place: Place
    vcpu: int = 0
    errno: str | None = None
    text: str = ""


class Step(NamedTuple):
    """One step of `expect`.

    `kind`: an exit's name, `error`, `timeout` or `group`. `fields`: the members written (of
    `error`: ioctl, errno and maybe memory_fault). `repeat`: (min, max). `reply`: the members user
    space writes back, `answer`: YAML of them. `then` None: not written.
    """

    kind: str
    fields: Mapping[str, Value]
    place: Place
    vcpu: int = 0
    repeat: tuple[int, int] = (1, 1)
    reply: Mapping[str, Value] | None = None
    then: tuple[Action, ...] | None = None
    regs: Mapping[str, Value] = {}
    memory: tuple[MemoryCheck, ...] = ()
    timeout: float = 0.0
    steps: tuple[Step, ...] = ()
    answer: str = ""


class Memslot(NamedTuple):
    """`{slot, gpa, size, flags, errno}`; flags are KVM_MEM_ names."""

    slot: int
    gpa: Expr
    size: int
    flags: tuple[str, ...]
    errno: str | None
    place: Place


class Section(NamedTuple):
    """Where one output section lies: `at`, or `after` another, `align`ed; `load` when its bytes lie
    elsewhere.
    """

    name: str
    place: Place
    at: int | None = None
    after: str | None = None
    align: int | None = None
    load: int | None = None


class Enable(NamedTuple):
    """One capability to enable, with its args."""

    cap: str
    args: tuple[int, ...]
    errno: str | None
    place: Place


class Vcpu(NamedTuple):
    """One vCPU as written; `mode` and `features` None mean the architecture's default. `mmu` is
    `identity`, or None: off.
    """

    mode: str | None
    features: tuple[str, ...] | None
    regs: Mapping[str, Expr]
    place: Place
    mmu: str | None = None


class Conditions(NamedTuple):
    """What a host must be, for `requires` and `when`: empty members ask nothing."""

    capabilities: tuple[str, ...] = ()
    kernel_from: str | None = None
    kernel_before: str | None = None
    kvm: tuple[str, ...] = ()
    cpu: tuple[str, ...] = ()
    host: tuple[str, ...] = ()


class Final(NamedTuple):
    """What registers and memory hold at the end."""

    regs: Mapping[str, Value] = {}
    memory: tuple[MemoryCheck, ...] = ()
    place: Place = Place(0, 0)


class Overlay(NamedTuple):
    """One entry of `when`: where its conditions hold, its `expect` and `final` hold instead.

    `removed` are those of the two that it takes away. `errno` says how slots, capabilities and
    actions of `setup` fail there, by their names in an Event's `op`; None: they succeed.
    """

    conditions: Conditions
    reason: str
    expect: tuple[Step, ...] | None
    final: Final | None
    xfail: bool
    place: Place
    removed: tuple[str, ...] = ()
    errno: Mapping[str, str | None] = {}

    def over(self, case: Case) -> Case:
        """The case as it is where this entry applies."""
        return case._replace(
            expect=None
            if "expect" in self.removed
            else case.expect
            if self.expect is None
            else self.expect,
            final=None
            if "final" in self.removed
            else case.final
            if self.final is None
            else self.final,
            memslots=tuple(
                memslot._replace(errno=self._errno("memslots", n, memslot))
                for n, memslot in enumerate(case.memslots)
            ),
            enable=tuple(
                capability._replace(errno=self._errno("enable", n, capability))
                for n, capability in enumerate(case.enable)
            ),
            setup=tuple(
                action._replace(errno=self._errno("setup", n, action))
                for n, action in enumerate(case.setup)
            ),
        )

    def _errno(self, kind: str, number: int, written: Memslot | Enable | Action) -> str | None:
        return self.errno.get(f"{kind}/{number}", written.errno)


class Macro(NamedTuple):
    """One of `macros`: `.macro NAME`, its text, `.endm`. `line` and `column` are those of the
    text's first character.
    """

    name: str
    text: str
    line: int
    column: int


class Asm(NamedTuple):
    """The program's text; `line` is the file line of its first line, `column` the one its text
    starts at.

    `place` is where it is written. `name` is the file beside the scenario that holds it, as it is
    written; `path` where it is.
    """

    text: str
    line: int
    column: int
    place: Place
    name: str = ""
    path: str = ""


class Timed(NamedTuple):
    """One entry of `measure`: the exit `to` is timed, or all from the exit `since` to it, that time
    divided by `per`.

    `less` names another entry, whose median is taken off. `samples` are wanted, after `warmup`
    others.
    """

    name: str
    place: Place
    to: Step
    since: Step | None
    samples: int
    warmup: int
    per: int = 1
    less: str | None = None


class Elf(NamedTuple):
    """A linked program in a file beside the scenario: its name as it is written, and its bytes."""

    name: str
    raw: bytes
    place: Place


class Case(NamedTuple):
    """One run: the scenario's keys with the case's own laid over them."""

    name: str
    place: Place
    summary: str
    arch: str
    memslots: tuple[Memslot, ...]
    sections: tuple[Section, ...]
    asm: Asm | None
    vcpus: tuple[Vcpu, ...]
    macros: tuple[Macro, ...] = ()
    elf: Elf | None = None
    enable: tuple[Enable, ...] = ()
    setup: tuple[Action, ...] = ()
    expect: tuple[Step, ...] | None = None
    final: Final | None = None
    ignore: tuple[Step, ...] = ()
    requires: Conditions = Conditions()
    when: tuple[Overlay, ...] = ()
    tags: tuple[str, ...] = ()
    timeout: float | None = None
    exits: int | None = None
    assembler: str | None = None
    measure: tuple[Timed, ...] = ()
    undecoded: str | None = None

    @property
    def program_place(self) -> Place:
        """Where the program is written, or the case where there is none."""
        program = self.asm or self.elf
        return self.place if program is None else program.place

    @property
    def has_story(self) -> bool:
        """True if the case has `expect`, `final` or `when`."""
        return self.expect is not None or self.final is not None or bool(self.when)

    def assembled_by(self, assembler: str | None) -> Case:
        """The same with its program assembled by this assembler, None for the one that is
        written.
        """
        return self if assembler is None else self._replace(assembler=assembler)


class Scenario(NamedTuple):
    """One file: its path as the user gave it, and its cases in order."""

    file: str
    cases: tuple[Case, ...]

    def assembled_by(self, assembler: str | None) -> Scenario:
        """The same, with every program assembled by this assembler, None for what the cases say."""
        return (
            self
            if assembler is None
            else self._replace(cases=tuple(case.assembled_by(assembler) for case in self.cases))
        )

    @property
    def name(self) -> str:
        """The file's stem."""
        return self.file.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
