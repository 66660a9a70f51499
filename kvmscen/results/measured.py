"""What was timed of one case on one host, put into figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

Json = dict[str, Any]


class Spread(NamedTuple):
    """The figures of a distribution. `mad` is the median absolute deviation from the median, not
    scaled.
    """

    min: float
    median: float
    p95: float
    p99: float
    mad: float

    def times(self, factor: float) -> Spread:
        """The figures in another unit."""
        return Spread(
            *(getattr(self, name) * factor for name in ("min", "median", "p95", "p99", "mad"))
        )


def number(value: float) -> str:
    """A number with three significant digits; from 100 on without decimals."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


# Nanoseconds of five digits are told in the next unit.
_UNITS = (("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9))


def unit(ns: float) -> tuple[str, float]:
    """The unit in which a time of `ns` nanoseconds is printed, and that unit in nanoseconds."""
    return next((row for row in _UNITS if abs(ns) < 9999.5 * row[1]), _UNITS[-1])


def time_text(ns: float) -> str:
    """A time with its unit: `238 ns`, `14.4 us`."""
    name, size = unit(ns)
    return f"{number(ns / size)} {name}"


def quantile(ordered: Sequence[float], q: float) -> float:
    """The smallest value that at least a share `q` of the ordered values does not exceed (nearest
    rank).
    """
    rank = -(-q * len(ordered) // 1)
    return ordered[max(int(rank), 1) - 1]


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def spread(values: Sequence[float]) -> Spread:
    """The figures of at least one value."""
    ordered = sorted(values)
    middle = median(ordered)
    return Spread(
        ordered[0],
        middle,
        quantile(ordered, 0.95),
        quantile(ordered, 0.99),
        median([abs(v - middle) for v in ordered]),
    )


class Measured(NamedTuple):
    """One kind of access on one host.

    `loop` is native or python. `overhead_ns` is the median with a no-op ioctl in place of KVM_RUN,
    `user` the share of the time that was spent in user space, by medians. `rounds` are the samples
    of each round in ticks, after `per` and `less`, and `whole` the same with what user space did up
    to the next KVM_RUN; `hz` is the rate of the counter. A span has no such two prices: all that
    lies in it is in both.
    """

    name: str
    line: int
    text: str
    samples: int
    ns: Spread
    ticks: Spread
    loop: str
    why: str | None
    overhead_ns: float
    overhead_ticks: float
    user: float
    hz: float
    rounds: tuple[tuple[float, ...], ...]
    whole: tuple[tuple[float, ...], ...] = ()
    is_span: bool = False

    @property
    def medians_ns(self) -> tuple[float, ...]:
        """The median of each round in nanoseconds."""
        return tuple(median(samples) * 1e9 / self.hz for samples in self.rounds)

    @property
    def rounds_ns(self) -> list[list[float]]:
        """The samples of each round in nanoseconds."""
        return [[sample * 1e9 / self.hz for sample in samples] for samples in self.rounds]

    @property
    def whole_rounds_ns(self) -> list[list[float]]:
        """The samples of each round with what user space did, in nanoseconds."""
        return [
            [sample * 1e9 / self.hz for sample in samples] for samples in self.whole or self.rounds
        ]

    @property
    def whole_ns(self) -> Spread:
        """The figures with what user space did, in nanoseconds."""
        return spread([sample for samples in self.whole_rounds_ns for sample in samples])
