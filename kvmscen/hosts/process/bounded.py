"""JSON of others: of agents, and in recordings. What would take all memory is refused before it is
read.
"""

from __future__ import annotations

import json
from typing import Any

# A run has 100,000 exits at most, each of a few values, and a measurement six million samples. A
# map takes 200 bytes of memory where its text has two, and a number 30.
_CONTAINERS, _VALUES = 2_000_000, 10_000_000


def parse(text: str) -> Any:
    """The value of a JSON text. Raises ValueError where it is none, or holds more than any run
    can.
    """
    if text.count("{") + text.count("[") > _CONTAINERS or text.count(",") > _VALUES:
        raise ValueError("it holds more values than a run can have")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
