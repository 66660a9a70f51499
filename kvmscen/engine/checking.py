"""What is done with files short of running them: `check` and `show`, through workers."""

from __future__ import annotations

import json
import os
import queue
from collections.abc import Callable, Sequence
from typing import Any

from kvmscen.engine import workers
from kvmscen.engine.shared import Task, Tasks
from kvmscen.engine.workers import AHEAD, Load, WorkerChild, Workers, threads
from kvmscen.errors import Problem
from kvmscen.hosts.process import confinement
from kvmscen.sent.codec import decode

OnFile = Callable[[str, int, list[Problem], list[Problem]], None]


def check(
    load: Load, files: Sequence[str], assembler: str | None, on_file: OnFile
) -> list[Problem]:
    """Everything short of running, file by file; `on_file(file, cases, problems, notes)` in the
    order of the files.
    """
    confinement.check()
    count = max(1, min(os.cpu_count() or 1, len(files)))
    waiting = Tasks(list(files), count)
    done: queue.SimpleQueue[tuple[int, int, list[Problem], list[Problem]]] = queue.SimpleQueue()

    def checking(child: WorkerChild) -> None:
        left: list[Task] = []
        while left := left + waiting.take(len(left), AHEAD):
            try:
                asked = [_checking(task.file, assembler) for task in left]
                for reply in child.ask_ahead(asked, child.preparing()):
                    task = left.pop(0)
                    if "broke" in reply:
                        because = f"preparing broke: {reply['broke']}"
                        problems = [workers.unprepared(task.file, because)]
                    else:
                        problems = [decode(Problem, told) for told in reply["problems"]]
                    notes = [decode(Problem, note) for note in reply.get("notes", ())]
                    done.put((task.number, reply.get("cases", 0), problems, notes))
            except Exception as error:
                child.kill()
                task = left.pop(0)
                done.put((task.number, 0, [workers.unprepared(task.file, workers.why(error))], []))

    forks, children = Workers(load, files), list[WorkerChild]()
    out: list[Problem] = []
    try:
        forks.start()
        children += [forks.worker() for _ in range(count)]
        threads(checking, [(child,) for child in children])
        arrived: dict[int, tuple[int, list[Problem], list[Problem]]] = {}
        for number, file in enumerate(files):
            while number not in arrived:
                at, cases, problems, notes = done.get()
                arrived[at] = (cases, problems, notes)
            on_file(file, *arrived[number])
            out += arrived.pop(number)[1]
    finally:
        forks.close()
        for child in children:
            child.close()
    return out


def _checking(file: str, assembler: str | None) -> str:
    return json.dumps({"check": file, "assembler": assembler})[1:-1]


def show(load: Load, file: str, case: str | None, assembler: str | None) -> Any:
    """What `kvmscen show` prints of one file, as data, through a worker: `{"cases": [...],
    "problems": [...]}`.
    """
    confinement.check()
    forks = Workers(load, [file])
    child = forks.worker()
    try:
        forks.start()
        return child.request(show=file, case=case, assembler=assembler)
    finally:
        forks.close()
        child.close()
