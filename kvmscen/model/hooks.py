"""Unicorn's hooks, given back at once: what the binding keeps of one holds the engine, which holds
it.
"""

from __future__ import annotations

from typing import Any


def remove(engine: Any, hook: int) -> None:
    """Call it no more."""
    pointer = engine._callbacks.get(hook)
    engine.hook_del(hook)
    _let_go(pointer)


def let_go(engine: Any) -> None:
    """All that an engine still has, once nothing runs any more that could call them: it then ends
    when nobody else holds it, and not some time later with half a megabyte.
    """
    for pointer in engine._callbacks.values():
        _let_go(pointer)
    engine._callbacks.clear()


def _let_go(pointer: Any) -> None:
    # What ctypes.cast gives holds itself by these.
    if pointer is not None and pointer._objects:
        pointer._objects.clear()
