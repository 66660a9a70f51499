"""The prepare child: its time is in proportion to what the machine needs to start it."""

from __future__ import annotations

import pytest

from kvmscen.hosts.process.preparing import PrepareChild


@pytest.mark.parametrize(("start", "least"), [(1000.0, 1.0), (0.001, 30.0)])
def test_a_slow_machine_has_more_time(
    start: float, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvmscen.hosts.process.preparing._START", start)
    monkeypatch.setattr("kvmscen.hosts.process.preparing._SLOWEST", 30.0)
    child = PrepareChild([])
    try:
        child.wait_hello(60)
        left = child._patience(10).left()
    finally:
        child.close()
    assert 10 * least - 5 < left <= 10 * least
