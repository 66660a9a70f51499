"""Some hundred damaged inputs of each kind; `python tests/fuzz/fuzzing.py KIND COUNT` tries as many
as one likes.
"""

from __future__ import annotations

import pytest
from fuzzing import run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count", "outcomes"),
    [
        ("scenario", 300, {"right", "wrong"}),
        ("elf", 500, {"right", "wrong"}),
        ("recording", 500, {"refused", "PASS"}),
        ("frame", 500, {"read", "refused", "noise"}),
    ],
)
def test_nothing_breaks_and_nothing_is_left(kind: str, count: int, outcomes: set[str]) -> None:
    found, faults = run(kind, count, 1000)
    assert faults == []
    assert sum(found.values()) == count
    assert outcomes <= set(found)
