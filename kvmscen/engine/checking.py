"""What is done with files short of running them: `check` and `show`, through prepare children."""

from __future__ import annotations

import json
import os
import queue
from collections.abc import Callable, Sequence
from typing import Any

from kvmscen.engine import work
from kvmscen.errors import Problem
from kvmscen.hosts.process import confinement
from kvmscen.hosts.process.child import Child

OnFile = Callable[[str, int, list[Problem], list[Problem]], None]


def check(files: Sequence[str], assembler: str | None, on_file: OnFile) -> list[Problem]:
    """Everything short of running, file by file; `on_file(file, cases, problems, notes)` in the
    order of the files.
    """
    confinement.check()
    count = max(1, min(os.cpu_count() or 1, -(-len(files) // work.FILES_A_CHILD)))
    children = [work.prepare_child(files) for _ in range(count)]
    waiting: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, int, list[Problem], list[Problem]]] = queue.SimpleQueue()
    for numbered in enumerate(files):
        waiting.put(numbered)

    def checking(child: Child) -> None:
        left: list[tuple[int, str]] = []
        while left := left + work.take(waiting, work.AHEAD - len(left)):
            try:
                for reply in child.ask_ahead(
                    [_checking(file, assembler) for _, file in left], work.PREPARE_SECONDS
                ):
                    number, file = left[0]
                    broke = (
                        [work.unprepared(file, f"preparing broke: {reply['broke']}")]
                        if "broke" in reply
                        else []
                    )
                    notes = [Problem(**note) for note in reply.get("notes", ())]
                    done.put(
                        (number, reply.get("cases", 0), broke or work.problems_of(reply), notes)
                    )
                    del left[0]
            except Exception as error:
                child.kill()
                number, file = left.pop(0)
                done.put((number, 0, [work.unprepared(file, work.why(error))], []))

    out: list[Problem] = []
    try:
        for child in children:
            child.spawn()
        work.threads(checking, [(child,) for child in children])
        arrived: dict[int, tuple[int, list[Problem], list[Problem]]] = {}
        for number, file in enumerate(files):
            while number not in arrived:
                at, cases, problems, notes = done.get()
                arrived[at] = (cases, problems, notes)
            on_file(file, *arrived[number])
            out += arrived[number][1]
    finally:
        for child in children:
            child.close()
    return out


def _checking(file: str, assembler: str | None) -> str:
    return json.dumps({"check": file, "assembler": assembler})[1:-1]


def show(file: str, case: str | None, assembler: str | None) -> Any:
    """What `kvmscen show` prints of one file, as data, through a prepare child: `{"cases": [...],
    "problems": [...]}`.
    """
    confinement.check()
    child = work.prepare_child([file])
    try:
        return work.ask_prepare(child, show=file, case=case, assembler=assembler)
    finally:
        child.close()
