"""How far a figure can be trusted: confidence intervals by bootstrap of medians and of their
ratios.

The unit is the round: what disturbs a machine lasts longer than one exit, so samples of one round
are not independent of each other. A resample draws rounds with replacement, and of each round the
median of a resample of its samples. That median needs no resampling: that of n draws with
replacement from n ordered values is the value at place floor(n * B), where B, the median of n
uniform numbers, has the distribution Beta((n + 1) / 2, (n + 1) / 2).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

from kvmscen.results.measured import median, quantile

RESAMPLES = 1000
CONFIDENCE = 0.95

Rounds = Sequence[Sequence[float]]


class Interval(NamedTuple):
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float


def ratio(
    ones: Rounds, others: Rounds, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Interval:
    """What `ones` cost in `others`: the median over the rounds, taken in turn, of the ratio of the
    rounds' medians.
    """
    draw = random.Random(1)
    pairs = [(sorted(a), sorted(b)) for a, b in zip(ones, others, strict=True)]
    value = median([_divided(median(a), median(b)) for a, b in pairs])
    resampled = []
    for _ in range(resamples):
        chosen = (pairs[draw.randrange(len(pairs))] for _ in pairs)
        resampled.append(median([_divided(_median(a, draw), _median(b, draw)) for a, b in chosen]))
    return _interval(value, resampled, confidence)


def _divided(dividend: float, divisor: float) -> float:
    # With `less` a figure may be so small that it vanishes in what is taken off.
    return dividend / divisor if divisor > 0 else math.inf


def _median(ordered: Sequence[float], draw: random.Random) -> float:
    """The median of a resample of ordered values."""
    half = (len(ordered) + 1) / 2
    return ordered[min(int(len(ordered) * draw.betavariate(half, half)), len(ordered) - 1)]


def _interval(value: float, resampled: list[float], confidence: float) -> Interval:
    resampled.sort()
    tail = (1 - confidence) / 2
    return Interval(value, quantile(resampled, tail), quantile(resampled, 1 - tail))
