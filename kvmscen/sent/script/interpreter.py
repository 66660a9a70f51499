"""The script of a vCPU: which step an exit takes, what is replied, what follows. One interpreter
for every host.

The executor and the model feed it events; diff uses its `matches`. It never sees what an exit
should hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, NamedTuple

from kvmscen.sent.errors import IoctlError
from kvmscen.sent.header import exits, kvm_run
from kvmscen.sent.machine import Action, Bytes, Step

# After so many exits that no step expected, the vCPU stops.
EXTRA_LIMIT = 16
EFAULT = 14
_PAGE = 4096


def matches(matcher: Any, value: Any, nth: int = 0) -> bool:
    """Whether a value fits a matcher; `nth` counts the iterations of a repeat from 0, for `from`
    and `step`.

    A list fits the beginning of a list, member by member. None (a member that is not there) fits
    nothing.
    """
    if isinstance(matcher, list):
        return (
            isinstance(value, list)
            and len(value) >= len(matcher)
            and all(matches(m, v, nth) for m, v in zip(matcher, value))
        )
    if not isinstance(matcher, dict):
        return bool(matcher == value)
    if not isinstance(value, int):
        return False
    if "mask" in matcher:
        return bool(value & matcher["mask"] == matcher["value"])
    if "in" in matcher:
        return value in matcher["in"]
    if "from" in matcher:
        return bool(value == series(matcher, nth))
    return bool(matcher.get("min", value) <= value <= matcher.get("max", value))


def series(matcher: Mapping[str, int], nth: int) -> int:
    """The value of a `from` and `step` in round `nth`; it wraps at `bits`, 64 where there are
    none.
    """
    return int(matcher["from"] + matcher["step"] * nth) & ((1 << matcher.get("bits", 64)) - 1)


# Where a script stands: (index, count) of the step in each sequence from the outermost in. `count`
# is how often that step was taken; of a group, how many whole iterations are done.
Position = tuple[tuple[int, int], ...]


class Verdict(NamedTuple):
    """What to do at an event. `step` None: it is extra or ignored. `nth` is its iteration, `at` the
    step's position.

    `stop` is None or a reason of kvmscen.sent.observation.STOPPED: this vCPU enters no more.
    """

    step: Step | None
    nth: int
    then: tuple[Action, ...]
    stop: str | None
    at: Position | None = None
    ignored: bool = False


class Script:
    """The state of one vCPU's script.

    An exit takes the current step if it fits, else the next one if the current minimum is met, else
    it is extra and the script stays. `steps` None records everything. Where there are exits to
    ignore, the limit of extras is off.
    """

    def __init__(self, steps: Sequence[Step] | None, ignore: Sequence[Step] = ()) -> None:
        self.steps = steps
        self.ignore = ignore
        self.extras = 0
        self._at: Position = ((0, 0),)
        self._waits = _waits(steps or ())
        # What _plain() gives, until the script moves on.
        self._known = False
        self._next: tuple[Position, Step] | None = None

    # --- walking ----------------------------------------------------------------------------------

    def current(self) -> Step | None:
        """The step that the next exit is held against first, None past the last."""
        plain = self._plain()
        return plain[1] if plain is not None else next((step for _, step in self.options()), None)

    def timeout(self) -> float | None:
        """Seconds after which nothing happening is a step that may be taken now, None when no such
        step may.
        """
        if not self._waits:
            return None
        return next(
            (
                step.timeout
                for _, step in self.options()
                if step is not None and step.exit == "timeout"
            ),
            None,
        )

    def over(self) -> bool:
        """Whether the last step has been taken as often as it may be."""
        return self.steps is not None and self.current() is None

    def finished(self) -> bool:
        """Whether every step was taken as often as it must be."""
        return any(step is None for _, step in self.options())

    def options(self) -> Iterator[tuple[Position, Step | None]]:
        """The steps that the next exit may take, in order, with their positions; None is the end of
        the script.
        """
        return self._options(self._at, len(self._at))

    def move(self, at: Position) -> None:
        """Take the step at a position that `options` gave."""
        index, count = at[-1]
        self._at = (*at[:-1], (index, count + 1))
        self._known = False

    def _sequence(self, at: Position) -> Sequence[Step]:
        steps: Sequence[Step] = self.steps or ()
        for index, _ in at[:-1]:
            steps = steps[index].steps
        return steps

    def _options(self, at: Position, begun: int) -> Iterator[tuple[Position, Step | None]]:
        # In the outermost `begun` sequences something of the present round was taken. A round
        # without anything is none: its end leads nowhere, since the group that it is of can then be
        # passed over as a whole. By a list of what is still to be looked at, the first of it last:
        # thousands of steps may be optional.
        pending = [(at, begun)]
        while pending:
            at, begun = pending.pop()
            outer, (index, count), steps = at[:-1], at[-1], self._sequence(at)
            if index == len(steps):
                if not outer:
                    yield at, None
                elif len(at) <= begun:
                    group, rounds = outer[-1]
                    pending.append(((*outer[:-1], (group, rounds + 1)), len(outer)))
                continue
            step = steps[index]
            if count >= step.repeat[0] or _optional(step):
                pending.append(((*outer, (index + 1, 0)), begun))
            if count < step.repeat[1]:
                if step.exit == "group":
                    pending.append(((*at, (0, 0)), begun))
                else:
                    yield at, step

    def _plain(self) -> tuple[Position, Step] | None:
        """What `options` gives first, where that is a step outside every group: it is asked for at
        each exit.
        """
        if not self._known:
            self._next, self._known = self._find_plain(), True
        return self._next

    def _find_plain(self) -> tuple[Position, Step] | None:
        if self.steps is None or len(self._at) > 1:
            return None
        index, count = self._at[0]
        if index >= len(self.steps):
            return None
        step = self.steps[index]
        if 0 < count >= step.repeat[1]:
            index, count = index + 1, 0
            if index >= len(self.steps):
                return None
            step = self.steps[index]
        plain = count < step.repeat[1] and step.exit != "group"
        return (((index, count),), step) if plain else None

    def _advance(
        self, kind: str, name: str, fields: Mapping[str, Any]
    ) -> tuple[Step, Position] | None:
        plain = self._plain()
        if plain is not None and fits(plain[1], kind, name, fields, plain[0][0][1]):
            self.move(plain[0])
            return plain[1], plain[0]
        for at, step in self.options():
            if step is None:
                return None
            if fits(step, kind, name, fields, iteration(at, step.repeat)):
                self.move(at)
                return step, at
        return None

    # --- events -----------------------------------------------------------------------------------

    def take(self, kind: str, name: str, fields: Mapping[str, Any]) -> Verdict:
        """The verdict on one event (`kind` and `name` as in kvmscen.sent.observation.Event)."""
        if self.ignore and any(fits(step, kind, name, fields, 0) for step in self.ignore):
            return Verdict(None, 0, (), None, ignored=True)
        if self.steps is None:
            return Verdict(None, 0, (), self._end(kind, name, fields, None))
        taken = self._advance(kind, name, fields)
        if taken is None:
            self.extras += 1
            stop = self._end(kind, name, fields, None)
            if stop is None and self.extras >= EXTRA_LIMIT and self.steps and not self.ignore:
                stop = "extra"
            return Verdict(None, 0, (), stop)
        step, at = taken
        stop = self._end(kind, name, fields, step)
        if stop is None and self.over():
            stop = "end"
        return Verdict(step, iteration(at, step.repeat), step.then or (), stop, at)

    @staticmethod
    def _end(kind: str, name: str, fields: Mapping[str, Any], step: Step | None) -> str | None:
        if step is not None and step.then is not None:
            return None
        if kind == "error":
            return "error"
        if kind == "timeout":
            return None if step is not None else "timeout"
        row = exits.BY_NAME.get(name)
        # An arm_nisv that nothing acts upon would repeat for ever; so would an exit that nobody
        # knows.
        ends = row is None or row.ends or (name == "arm_nisv" and not fields.get("emulated"))
        return "expected" if ends else None


def _waits(steps: Sequence[Step]) -> bool:
    """Whether there is a timeout step, however deep."""
    pending = list(steps)
    while pending:
        step = pending.pop()
        if step.exit == "timeout":
            return True
        pending += step.steps
    return False


def _optional(step: Step) -> bool:
    # However often a group must be, it is there as soon as each of its steps may be missing.
    return step.repeat[0] == 0 or (step.exit == "group" and all(map(_optional, step.steps)))


def iteration(at: Position, repeat: tuple[int, int]) -> int:
    """Which round, from 0, the step at a position is in: of its own `repeat`, else of the group
    right around it.
    """
    return at[-2][1] if repeat == (1, 1) and len(at) > 1 else at[-1][1]


def fits(step: Step, kind: str, name: str, fields: Mapping[str, Any], nth: int) -> bool:
    """Whether an event is this step at all, by the fields that tell one such exit from another."""
    if step.exit != (name if kind == "exit" else kind):
        return False
    for key, matcher in step.where.items():
        value = name if kind == "error" and key == "errno" else fields.get(key)
        # Mostly it is a number, and this is asked at each exit.
        if not (matcher == value if type(matcher) is int else matches(matcher, value, nth)):
            return False
    return True


class Devices:
    """The sections outside every slot: bytes that accesses read and change."""

    def __init__(self, sections: Sequence[Bytes]) -> None:
        self._held = [
            (s.gpa, bytearray(s.data.ljust(s.size or len(s.data), b"\0"))) for s in sections
        ]

    def _at(self, gpa: int) -> tuple[bytearray, int] | None:
        for start, held in self._held:
            if start <= gpa < start + len(held):
                return held, gpa - start
        return None

    def _pieces(self, gpa: int, length: int) -> Iterator[tuple[bytearray | None, int, int, int]]:
        """What a range is made of: the section (None: none), the place in it, the offset in the
        range, and how long.
        """
        done = 0
        while done < length:
            section = self._at(gpa + done)
            if section is not None:
                held, at = section
                size = min(length - done, len(held) - at)
                yield held, at, done, size
            else:
                above = [start - gpa - done for start, _ in self._held if start > gpa + done]
                size = min([length - done, *above])
                yield None, 0, done, size
            done += size

    def read(self, gpa: int, length: int) -> bytes:
        """`length` bytes from `gpa`; zero where no section lies."""
        pieces = self._pieces(gpa, length)
        return b"".join(
            bytes(size) if held is None else bytes(held[at : at + size])
            for held, at, _, size in pieces
        )

    def beside(
        self, slots: Callable[[int, int], bytes | None], gpa: int, length: int
    ) -> bytes | None:
        """What lies in a range of slots (`slots` reads them) and sections; None where any byte lies
        in neither.
        """
        whole = slots(gpa, length)
        if whole is not None:
            return whole
        out: list[bytes] = []
        while length:
            # A slot begins and ends with a page, of 4 KiB at least, and hides a section below it.
            size = min(length, _PAGE - gpa % _PAGE)
            pieces = list(self._pieces(gpa, size))
            in_slots = slots(gpa, size)
            if in_slots is None and any(held is None for held, _, _, _ in pieces):
                return None
            out.append(self.read(gpa, size) if in_slots is None else in_slots)
            gpa, length = gpa + size, length - size
        return b"".join(out)

    def write(self, gpa: int, data: bytes) -> None:
        """Keep what lies inside a section, drop the rest."""
        found = self._at(gpa)
        if found is not None and len(data) <= len(found[0]) - found[1]:
            held, at = found
            held[at : at + len(data)] = data
            return
        for piece, at, done, size in self._pieces(gpa, len(data)):
            if piece is not None:
                piece[at : at + size] = data[done : done + size]

    def put(self, gpa: int, data: bytes) -> None:
        """Write as the host does. Raises IoctlError where not every byte lies in a section outside
        the slots.
        """
        if any(held is None for held, _, _, _ in self._pieces(gpa, len(data))):
            raise IoctlError("write_memory", EFAULT)
        self.write(gpa, data)

    def spans(self) -> Iterator[tuple[int, int, bytearray | None]]:
        """All addresses in order, as (first, last, bytes of the section there, None between
        sections).
        """
        at = 0
        for start, held in sorted(self._held, key=lambda section: section[0]):
            if at < start:
                yield at, start - 1, None
            if held:
                yield start, start + len(held) - 1, held
                at = start + len(held)
        if at < 1 << 64:
            yield at, (1 << 64) - 1, None


def reply_of(
    step: Step | None, name: str, fields: Mapping[str, Any], devices: Devices
) -> dict[str, Any]:
    """The members that user space writes back at an exit: the step's, else the section's bytes,
    else zero.
    """
    written: Mapping[str, Any] = step.reply if step is not None and step.reply is not None else {}
    row = exits.BY_NAME.get(name)
    if row is None or not (written or kvm_run.is_read(name, fields)):
        return dict(written)
    out = dict(written)
    if "data" in row.reply and "data" not in out and kvm_run.is_read(name, fields):
        if name == "mmio":
            out["data"] = int.from_bytes(devices.read(fields["phys_addr"], fields["len"]), "little")
        else:
            out["data"] = 0
    return out


def answered(name: str, fields: Mapping[str, Any], reply: Mapping[str, Any]) -> bool:
    """Whether the value of a reply could be given: the exit is a read, as wide as the value, of as
    many elements.
    """
    data = reply.get("data")
    if data is None or name not in ("mmio", "io"):
        return True
    size = fields["len" if name == "mmio" else "size"]
    values = data if isinstance(data, list) else [data]
    if len(values) > fields.get("count", 1):
        return False
    return kvm_run.is_read(name, fields) and not any(value >> 8 * size for value in values)
