"""What the main process holds at once: files wait for their turn, and a run that has seen too much
says so.
"""

from __future__ import annotations

import threading

import pytest

from kvmscen.engine import room
from kvmscen.engine.room import Room
from kvmscen.sent.observation import Event, Observation


def test_no_more_is_prepared_until_some_is_taken() -> None:
    held, stopped, through = Room(), threading.Event(), threading.Event()
    held.wait(200 << 20, stopped)

    def prepare() -> None:
        held.wait(100 << 20, stopped)
        through.set()

    threading.Thread(target=prepare, daemon=True).start()
    assert not through.wait(0.2)
    held.taken(200 << 20)
    assert through.wait(60)


def test_a_run_that_is_over_waits_for_nothing() -> None:
    held, stopped = Room(), threading.Event()
    stopped.set()
    held.wait(1 << 40, stopped)


def test_what_is_kept_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    event = Event(0, "exit", "io", {"data": [1] * 1000}, 4)
    seen = Observation("end", (event,) * 100, {}, {0x1000: bytes(1000)}, 0.1)
    monkeypatch.setattr(room, "SEEN_MOST", 10 << 20)
    held = Room()
    kept = 0
    while held.keep(seen):
        kept += 1
    assert 1 < kept < 10
    # A small one still has room.
    assert held.keep(Observation("end", (), {}, {}, 0.1))
