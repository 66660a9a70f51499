"""From a checked document to a Scenario: the top level and each case laid over it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from kvmscen.load import guest, sums
from kvmscen.load.actions import EMULATE, actions
from kvmscen.load.conditions import added, conditions, limits
from kvmscen.load.document import Map
from kvmscen.load.measure import measure
from kvmscen.load.program import linked, macros, program
from kvmscen.load.steps import ignored, steps
from kvmscen.load.values import (
    NOWHERE,
    Notes,
    Seen,
    as_list,
    as_map,
    as_text,
    memory,
    registers,
    texts,
)
from kvmscen.scenario import Case, Conditions, Final, Overlay, Place, Step, Vcpu
from kvmscen.sent.arch import ARCHES

T = TypeVar("T")
Keys = dict[str, tuple[Any, Place]]
DEFAULT = "default"
# Other keys of a case replace the scenario's.
_ADDED = ("requires", "tags")


class FileCases:
    """What was made of a file: its cases, also those with something wrong in them.

    `hits` are the problems of each case's values, `uses` the keys of the top level that it has from
    there.
    """

    def __init__(self) -> None:
        self.cases: dict[str, Case] = {}
        self.hits: dict[str, Seen] = {}
        self.uses: dict[str, frozenset[str]] = {}


def scenario(notes: Notes, root: Map) -> FileCases:
    """The file's cases; what is wrong is noted, and then those that it is in are not to be used."""
    maker = _Maker(notes)
    top: Keys = {key: (root[key], root.at(key)) for key in root if key != "cases"}
    cases = as_map(root.get("cases"))
    cases_found = FileCases()
    with notes.watching() as seen:
        alone = maker.case(DEFAULT, top, notes.doc.place)
        if (
            not cases
            and "cases" not in root
            and alone is not None
            and not (_program(top) and _story(top))
        ):
            _lacking(notes, top, notes.doc.place, "the scenario")
    if _program(top) and _story(top):
        cases_found.hits[DEFAULT], cases_found.uses[DEFAULT] = seen, frozenset(top)
        if alone is not None:
            cases_found.cases[DEFAULT] = alone
    for name, value in cases.items():
        with notes.watching() as seen:
            case = _case(notes, maker, top, name, cases)
        own = value if isinstance(value, Map) else Map()
        kept = _laid(top, own, Place(0, 0))[0]
        used = frozenset(key for key in top if kept.get(key) is top[key] or key + "+" in kept)
        # One that is called `default` is refused, and does not hide the top level.
        called = f"{DEFAULT} " if name == DEFAULT else name
        cases_found.hits[called], cases_found.uses[called] = seen, used
        if case is not None:
            cases_found.cases[called] = case
    return cases_found


def _case(notes: Notes, maker: _Maker, top: Keys, name: str, cases: Map) -> Case | None:
    value = cases[name]
    if name == DEFAULT:
        say = (
            "a case may not be called `default`: the top level itself is that case, give this "
            "one another name"
        )
        notes.add(cases.at_key(name), say)
    if not isinstance(value, Map):
        return None
    keys, place = _laid(top, value, cases.at_key(name))
    case = maker.case(name, keys, place)
    if case is not None:
        _lacking(notes, keys, place, f"the case `{name}`")
    return case


def _program(keys: Keys) -> bool:
    return "asm" in keys or "elf" in keys


def _story(keys: Keys) -> bool:
    overlays = as_list(keys["when"][0]) if "when" in keys else ()
    if any(key in keys for key in ("expect", "final", "measure")):
        return True
    return any(as_map(o).get(key) is not None for o in overlays for key in ("expect", "final"))


def _lacking(notes: Notes, keys: Keys, place: Place, what: str) -> None:
    if not _program(keys):
        notes.add(
            place, f"{what} has no program: write `asm: |`, or `elf` with the name of an executable"
        )
    if not _story(keys):
        notes.add(place, f"{what} has nothing to check: write `expect`, `final` or `measure`")


def _laid(top: Keys, own: Map, place: Place) -> tuple[Keys, Place]:
    keys = dict(top)
    for key, value in own.items():
        if value is None:
            keys.pop(key, None)
        else:
            keys[key] = (value, own.at(key))
    # `asm` and `elf` displace each other: the program that is written closest counts.
    if own.get("elf") is not None and own.get("asm") is None:
        keys.pop("asm", None)
    if own.get("asm") is not None and own.get("elf") is None:
        keys.pop("elf", None)
    for key in _ADDED:
        if own.get(key) is not None and key in top:
            keys[key + "+"] = top[key]
    return keys, place


class _Maker:
    """Converts keys to values, each only once: cases share what they do not replace."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self.made: dict[tuple[Any, ...], Any] = {}
        self.noted: dict[tuple[Any, ...], Seen] = {}

    def once(self, kind: str, arch: str, places: Iterable[Place], make: Callable[[], T]) -> T:
        # A value is known by where it stands: equal scalars in two places are one object.
        key = (kind, arch, *((place.line, place.column) for place in places))
        if key in self.made:
            if key in self.noted:
                self.notes.again(self.noted[key])
        else:
            with self.notes.watching() as seen:
                self.made[key] = make()
            if seen.problems or seen.parts:
                self.noted[key] = seen
        made: T = self.made[key]
        return made

    def case(self, name: str, keys: Keys, place: Place) -> Case | None:
        """One case, None where its architecture is not known."""
        notes = self.notes
        arch = self._arch(name, keys, place)
        if arch is None:
            return None

        def get(key: str, make: Callable[[Any, Place], T], default: T) -> T:
            if key not in keys:
                return default
            value, at = keys[key]
            return self.once(key, arch, (at,), lambda: make(value, at))

        def tags(key: str) -> tuple[str, ...]:
            return texts(keys[key][0]) if key in keys else ()

        timeout, exits = get("limits", lambda v, _: limits(v), limits(None))
        how = get("undecoded", lambda v, at: undecoded(notes, v, at, arch), None)
        expect: tuple[Step, ...] | None = get(
            "expect", lambda v, at: story(notes, v, at, arch), None
        )
        if how == EMULATE and arch == "arm64":
            once_more(notes, expect or ())
        case = Case(
            name=name,
            place=place,
            summary=get("summary", lambda v, _: as_text(v), ""),
            arch=arch,
            memslots=get("memslots", lambda v, _: guest.memslots(notes, v), ()),
            sections=get("sections", lambda v, _: guest.sections(notes, v), ()),
            asm=get("asm", lambda v, at: program(notes, v, at), None),
            elf=get("elf", lambda v, at: linked(notes, v, at), None),
            macros=get("macros", lambda v, _: macros(notes, v), ()),
            vcpus=self._vcpus(keys, arch),
            enable=get("enable", lambda v, _: guest.enables(notes, v), ()),
            setup=get("setup", lambda v, _: actions(notes, v, arch), ()),
            expect=expect,
            final=get("final", lambda v, at: final(notes, v, at, arch), None),
            ignore=self._ignored(keys, arch, how),
            requires=added(
                *(
                    get(k, lambda v, _: conditions(notes, as_map(v)), Conditions())
                    for k in ("requires+", "requires")
                )
            ),
            when=get("when", lambda v, _: overlays(notes, v, arch), ()),
            tags=tuple(dict.fromkeys((*tags("tags+"), *tags("tags")))),
            timeout=timeout,
            exits=exits,
            assembler=get("assembler", lambda v, _: as_text(v) or None, None),
            measure=get("measure", lambda v, _: measure(notes, v, arch), ()),
            undecoded=how,
        )
        sums.check(notes, case)
        if "when" in keys:
            _errno_names(notes, keys["when"][0], case)
        return case

    def _arch(self, name: str, keys: Keys, place: Place) -> str | None:
        """The architecture of a case, None where it is not known."""
        notes = self.notes
        if "arch" not in keys and name != DEFAULT:
            notes.add(
                place, f"the case `{name}` has no `arch`: it cannot be removed, only replaced"
            )
        arch = as_text(keys["arch"][0]) if "arch" in keys else ""
        if arch not in ARCHES:
            return None
        if "asm" in keys and "elf" in keys:
            notes.add(
                keys["elf"][1],
                "`asm` and `elf` are both the program: keep one of them, the other can be that of "
                "a case",
            )
        return arch

    def _vcpus(self, keys: Keys, arch: str) -> tuple[Vcpu, ...]:
        notes = self.notes
        written = ("vcpus", "mode", "features", "regs", "mmu")
        places = [keys[key][1] for key in written if key in keys]
        return self.once(
            "vcpus", arch, places, lambda: guest.vcpus(notes, keys, arch, notes.doc.place)
        )

    def _ignored(self, keys: Keys, arch: str, how: str | None) -> tuple[Step, ...]:
        if "ignore" not in keys:
            return ()
        value, at = keys["ignore"]
        return self.once(
            f"ignore {how}", arch, (at,), lambda: ignored(self.notes, value, arch, how == EMULATE)
        )


def story(notes: Notes, value: Any, place: Place, arch: str) -> tuple[Step, ...]:
    """The steps of an `expect`."""
    if isinstance(value, list) and not value:
        say = "with an empty `expect` the guest is not entered"
        notes.add(place, f"{say}: write its steps, or leave the key out to see what happens")
    return steps(notes, value, arch)


def undecoded(notes: Notes, value: Any, place: Place, arch: str) -> str | None:
    """What becomes of an access that KVM cannot decode: `emulate`."""
    if arch != "arm64":
        notes.add(
            place,
            f"`undecoded` is about arm64's KVM, which cannot decode each access: on {arch} leave "
            f"it out",
        )
    return as_text(value) or None


def once_more(notes: Notes, listed: Iterable[Step]) -> None:
    """`emulate` where each access is carried out already."""
    for step in listed:
        once_more(notes, step.steps)
        for action in step.then or ():
            if action.name == EMULATE and step.kind == "arm_nisv":
                notes.add(
                    action.place,
                    "`undecoded: emulate` has carried this access out already: leave the action "
                    "out",
                )


def final(notes: Notes, value: Any, place: Place, arch: str) -> Final:
    """What registers and memory hold at the end."""
    held = as_map(value)
    return Final(
        registers(notes, held.get("regs"), arch, True),
        memory(notes, held.get("memory"), True),
        place,
    )


_CONDITIONS = ("capabilities", "kernel", "kvm", "cpu", "host")


def overlays(notes: Notes, value: Any, arch: str) -> tuple[Overlay, ...]:
    """The entries of `when`."""
    held = as_list(value)
    return tuple(_overlay(notes, as_map(item), held.at(n), arch) for n, item in enumerate(held))


def _overlay(notes: Notes, held: Map, place: Place, arch: str) -> Overlay:
    xfail = held.get("xfail") is True
    reason = as_text(held.get("reason"))
    if xfail and "reason" not in held:
        notes.add(
            held.at("xfail"),
            "`xfail: true` needs a `reason`: write why the outcome is known to be wrong",
        )
    if not {"expect", "final", "errno"} & set(held) and place != NOWHERE:
        say = ("`xfail: true`" if xfail else "this entry") + " says nothing that holds there"
        notes.add(
            held.at("xfail") if xfail else place, f"{say}: write `expect`, `final` or `errno`"
        )
    asked = conditions(notes, held)
    # What the schema refuses is there, though it asks nothing.
    if asked == Conditions() and place != NOWHERE and not any(held.get(key) for key in _CONDITIONS):
        say = "an entry of `when` without a condition would hold everywhere"
        notes.add(
            place, f"{say}: write one, as `kvm: pvm`, or write what holds into the case itself"
        )
    errno = as_map(held.get("errno"))
    return Overlay(
        asked,
        reason,
        story(notes, held["expect"], held.at("expect"), arch)
        if isinstance(held.get("expect"), list)
        else None,
        final(notes, held["final"], held.at("final"), arch)
        if isinstance(held.get("final"), Map)
        else None,
        xfail,
        place,
        tuple(key for key in ("expect", "final") if key in held and held[key] is None),
        {name: as_text(value) or None for name, value in errno.items()},
    )


def _errno_names(notes: Notes, entries: Any, case: Case) -> None:
    """The names under `errno` in the entries of `when`: each is that of something that the case
    has.
    """
    there = {"memslots": len(case.memslots), "enable": len(case.enable), "setup": len(case.setup)}
    known = {f"{key}/{n}" for key, count in there.items() for n in range(count)}
    for entry in as_list(entries):
        errno = as_map(as_map(entry).get("errno"))
        for name in errno:
            if name not in known:
                has = ", ".join(f"{count} of `{key}`" for key, count in there.items() if count)
                say = (
                    f"`{name}` is nothing that can fail here: the case has {has or 'none of these'}"
                )
                notes.add(
                    errno.at_key(name),
                    f"{say}; write `memslots/N`, `enable/N` or `setup/N`, N from 0",
                )
