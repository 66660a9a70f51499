"""What becomes of a run whose workers break: an error of exactly the case, or file, that did it.
And long files, which are for all workers.

The workers are real ones on the real /dev/kvm. What breaks them is put into the process that forks
them, and only there.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from kvmscen import worker
from kvmscen.engine import work, workers
from kvmscen.engine.shared import SLICE
from kvmscen.errors import HostError, Problem
from kvmscen.hosts.kvm import KvmHost
from kvmscen.results.result import Run

Json = dict[str, Any]
HEAD = """arch: x86_64
mode: real
memslots: [{slot: 0, gpa: 0, size: 0x1000}]
sections: {.text: {at: 0}}
limits: {timeout: 1}
"""
CASE = """  %s:
    asm: |
      _start: mov al, %d
      out 0x10, al
      hlt
    expect: [{io: {data: %d}}, hlt]
"""


def cases(count: int, wrong: Sequence[int] = ()) -> str:
    """A scenario of so many cases; in the program of some of them a label is not there."""
    text = HEAD + "cases:\n"
    for n in range(count):
        case = CASE % (f"c{n}", n % 256, n % 256)
        text += case.replace("hlt\n    expect", "jmp nowhere\n    expect") if n in wrong else case
    return text


def run(
    folder: Path, files: dict[str, str], breaks: Callable[[Any], None], at_once: int = 1
) -> tuple[Run, list[str]]:
    """A run of these files, whose workers are broken so; and what was told, in order."""
    for name, text in files.items():
        (folder / name).write_text(text)

    def load(*arguments: Any) -> Any:
        made = worker.load(*arguments)
        breaks(sys.modules["kvmscen.worker.worker"])
        return made

    told: list[str] = []

    def on_problem(problem: Problem) -> None:
        told.append(problem.file)

    made = work.run(
        load,
        [str(folder / name) for name in files],
        [KvmHost("kvm")],
        True,
        work.Selection(),
        at_once,
        lambda outcome, _: told.append(outcome.result.case),
        on_problem,
    )
    return made, told


def at_case(name: str, do: Callable[[], None]) -> Callable[[Any], None]:
    """Breaks workers while they run the case of this name."""

    def breaks(module: Any) -> None:
        judged = module.Worker._judged

        def broken(self: Any, made: Any) -> Any:
            if made.job.case == name:
                do()
            return judged(self, made)

        module.Worker._judged = broken

    return breaks


def fault() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    os.write(2, b"the last that it said\n")
    os._exit(7)


def hang() -> None:
    time.sleep(600)


def spin() -> None:
    while True:
        pass


def noise() -> None:
    """A half frame, and then nothing that is one."""
    os.write(1, b"\x1e12 0 {")
    os._exit(0)


@pytest.mark.kvm
@pytest.mark.parametrize(
    ("do", "said"),
    [
        (fault, "the worker was ended by SIGSEGV"),
        (leave, "the worker exited with status 7 (the last that it said)"),
        (noise, "the worker exited with status 0"),
        (hang, "the worker did not answer in time"),
        (spin, "the worker did not answer in time"),
    ],
)
def test_what_ends_a_worker_is_an_error_of_its_case(
    do: Callable[[], None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "GRACE", 0.2)
    files = {"a.yaml": cases(2), "b.yaml": cases(5), "c.yaml": cases(1)}
    made, told = run(tmp_path, files, at_case("c3", do))
    assert told == ["c0", "c1", "c0", "c1", "c2", "c3", "c4", "c0"]
    assert [result.status for result in made.results] == ["PASS"] * 5 + ["ERROR"] + ["PASS"] * 2
    reason = made.results[5].reason or ""
    assert reason.startswith(said)
    assert (made.results[5].machine, made.results[5].observation) == (None, None)
    assert made.exit_status == 3


@pytest.mark.kvm
def test_what_a_case_raises_is_its_own_error(tmp_path: Path) -> None:
    def breaks(module: Any) -> None:
        def execute(self: Any, machine: Any) -> Any:
            raise RuntimeError("no such luck")

        module.Executor.execute = execute

    made, _ = run(tmp_path, {"a.yaml": cases(2)}, breaks)
    assert [r.reason for r in made.results] == ["RuntimeError: no such luck"] * 2


@pytest.mark.kvm
def test_each_case_of_a_file_may_end_its_worker(tmp_path: Path) -> None:
    def breaks(module: Any) -> None:
        module.Worker._judged = lambda self, made: os._exit(3)

    made, told = run(tmp_path, {"a.yaml": cases(6)}, breaks, 2)
    assert told == [f"c{n}" for n in range(6)]
    assert [result.status for result in made.results] == ["ERROR"] * 6


@pytest.mark.kvm
@pytest.mark.parametrize("do", [fault, hang])
def test_what_ends_a_worker_while_it_reads_is_an_error_of_its_file(
    do: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "PREPARE_SECONDS", 0.5)

    def breaks(module: Any) -> None:
        prepare = module.Preparer.prepare

        def broken(self: Any, request: Json, raw: bytes | None = None) -> Any:
            if request["run"].endswith("b.yaml"):
                do()
            return prepare(self, request, raw)

        module.Preparer.prepare = broken

    files = {f"{name}.yaml": cases(1) for name in "abc"}
    made, told = run(tmp_path, files, breaks)
    assert told == ["c0", str(tmp_path / "b.yaml"), "c0"]
    (problem,) = made.problems
    assert problem.ours
    assert problem.message.startswith("this file could not be prepared: the worker ")


@pytest.mark.kvm
def test_workers_that_cannot_be_loaded_are_told_of_each_file(tmp_path: Path) -> None:
    def breaks(_: Any) -> None:
        raise ImportError("No module named 'yaml'")

    with pytest.raises(HostError, match="No module named 'yaml'"):
        run(tmp_path, {"a.yaml": cases(1)}, breaks)


@pytest.mark.kvm
def test_a_long_file_is_for_all_workers_and_told_in_order(tmp_path: Path) -> None:
    seen = tmp_path / "seen"

    def breaks(module: Any) -> None:
        judged = module.Worker._judged

        def noted(self: Any, made: Any) -> Any:
            with seen.open("a") as stream:
                stream.write(f"{os.getpid()}\n")
            time.sleep(0.002)
            return judged(self, made)

        module.Worker._judged = noted
        # It may write there alone for this test.
        module.policies.confine = lambda *_: module.policies.InForce(0, False, True)

    count = 4 * SLICE + 3
    made, told = run(tmp_path, {"a.yaml": cases(count)}, breaks, 3)
    assert told == [f"c{n}" for n in range(count)]
    assert {result.status for result in made.results} == {"PASS"}
    assert len(set(seen.read_text().split())) == 3


@pytest.mark.kvm
def test_a_worker_that_ends_in_a_later_part_of_a_file(tmp_path: Path) -> None:
    count = 2 * SLICE + 5
    made, told = run(tmp_path, {"a.yaml": cases(count)}, at_case("c70", fault), 2)
    assert told == [f"c{n}" for n in range(count)]
    assert [r.case for r in made.results if r.status != "PASS"] == ["c70"]


@pytest.mark.kvm
def test_what_is_wrong_in_several_parts_of_a_file(tmp_path: Path) -> None:
    count = 2 * SLICE + 5
    made, told = run(tmp_path, {"a.yaml": cases(count, (3, 66, 130))}, lambda _: None, 2)
    right = [f"c{n}" for n in range(count) if n not in (3, 66, 130)]
    assert [name for name in told if name.startswith("c")] == right
    assert len(made.problems) == 3
    assert {problem.cases for problem in made.problems} == {("c3",), ("c66",), ("c130",)}
    assert made.exit_status == 2


@pytest.mark.kvm
def test_the_same_fault_in_two_parts_is_told_once(tmp_path: Path) -> None:
    """A program that all cases share, and that is wrong."""
    shared = HEAD + "asm: |\n  _start: jmp nowhere\nexpect: [hlt]\ncases:\n"
    text = shared + "".join(f"  c{n}: {{summary: number {n}}}\n" for n in range(SLICE + 9))
    made, _ = run(tmp_path, {"a.yaml": text}, lambda _: None, 2)
    assert not made.results
    assert len({(p.line, p.column, p.message) for p in made.problems}) == len(made.problems)


def test_no_worker_and_no_process_that_forks_is_left(tmp_path: Path) -> None:
    forks = workers.Workers(worker.load, [])
    forks.start()
    child = forks.worker()
    child.wait_hello()
    pid = child.process_id
    assert pid is not None
    forks.close()
    child.close()
    for process in (pid, forks._server._pid):
        assert not Path(f"/proc/{process}").exists()


@pytest.mark.kvm
def test_a_file_that_changes_between_its_parts_is_no_run_of_either(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(cases(SLICE + 5))

    def load(*arguments: Any) -> Any:
        made = worker.load(*arguments)
        at_case("c10", lambda: time.sleep(0.5))(sys.modules["kvmscen.worker.worker"])
        return made

    def changes(outcome: Any, _: Any) -> None:
        if outcome.result.case == "c0":
            file.write_text(cases(SLICE + 5).replace("c66", "other"))

    made = work.run(
        load,
        [str(file)],
        [KvmHost("kvm")],
        True,
        work.Selection(),
        1,
        changes,
        lambda _: None,
    )
    assert len(made.results) == SLICE
    (problem,) = made.problems
    assert "the file has changed while it was run" in problem.message
    assert made.exit_status == 3
