"""Workers: their time is in proportion to what the machine needs to load the program."""

from __future__ import annotations

import pytest

from kvmscen.engine import workers
from kvmscen.worker import load


@pytest.mark.parametrize(("loading", "times"), [(1000.0, 1.0), (1e-9, 30.0)])
def test_a_slow_machine_has_more_time(
    loading: float, times: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_LOADING", loading)
    forks = workers.Workers(load, [])
    try:
        forks.start()
        assert forks.worker().preparing() == workers.PREPARE_SECONDS * times
    finally:
        forks.close()
