"""Every expected value of every shipped scenario, altered one at a time: none may still pass.

`python tests/judge/alterations.py --on kvm`, `--on model`, `--on qemu:arm64@6.1`. What must survive
has its reason in `REASONS`.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from kvmscen.compile.prepare import Preparer
from kvmscen.engine.work import start
from kvmscen.hosts import Executor, host
from kvmscen.job.job import Job, Target
from kvmscen.judge.verdict import judge
from kvmscen.sent.codec import decode, encode

SCENARIOS = Path(__file__).resolve().parent.parent.parent / "scenarios"
# What must survive, by file and path, with its reason.
REASONS = {
    (
        "x86_64-coalesced.yaml",
        "expect/0/repeat/min",
    ): "more exits came than the least that are asked for",
    (
        "x86_64-coalesced.yaml",
        "expect/0/repeat/max",
    ): "fewer exits came than the most that are asked for",
    (
        "x86_64-cost.yaml",
        "expect/0/repeat",
    ): "the guest goes round for ever: four rounds are there as three are",
    (
        "arm64-cost.yaml",
        "expect/0/repeat",
    ): "the guest goes round for ever: three rounds are there as two are",
    (
        "arm64-debug.yaml",
        "expect/0/debug/hsr/mask",
    ): "bit 0 of the syndrome is clear in what was seen, and in what is asked for",
    (
        "x86_64-debug.yaml",
        "expect/0/debug/dr6/mask",
    ): "bit 0 of DR6 is clear in what was seen, and in what is asked for",
    ("x86_64-msr.yaml", "expect/0/reply/error"): "any error but 0 makes KVM inject #GP",
}
_OTHER = {
    "in": "out",
    "out": "in",
    "true": "false",
    "false": "true",
    "shutdown": "reset",
    "reset": "shutdown",
    "emulation": "simul_ex",
    "KVM_RUN": "KVM_GET_REGS",
    "filter": "inval",
    "hlt": "shutdown",
    "KVM_ENABLE_CAP": "KVM_RUN",
    "KVM_SET_USER_MEMORY_REGION": "KVM_RUN",
}
_KINDS = {
    "errno": "errno",
    "reply": "reply",
    "repeat": "count",
    "regs": "register",
    "memory": "memory",
}
_ERRNOS = ("EPERM", "ENXIO")
_NUMBER = re.compile(r"-?(0x[0-9a-fA-F]+|0|[1-9][0-9]*)")
_SYMBOL = re.compile(r"([A-Za-z_.$][\w.$]*)(?:\s*([+-])\s*(0x[0-9a-fA-F]+|[0-9]+))?")


class Mutation(NamedTuple):
    """One value in a file: where it stands, what stands there and what instead, and which case it
    is in (None: the top level).
    """

    case: str | None
    path: str
    line: int
    start: int
    end: int
    was: str
    now: str

    @property
    def what(self) -> str:
        """Member, register, memory, reply, errno or count."""
        keys = self.path.split("/")
        for key, name in (
            ("errno", "errno"),
            ("reply", "reply"),
            ("repeat", "count"),
            ("regs", "register"),
            ("memory", "memory"),
        ):
            if key in keys:
                return name
        return "member"


def mutations(text: str) -> Iterator[Mutation]:
    """Every expected value of a file, altered."""
    root = yaml.compose(text)
    for case, key, node in _parts(root, None):
        if key in ("expect", "final"):
            yield from _values(text, case, key, node, key == "final")
        elif key == "when":
            for n, entry in enumerate(node.value):
                for name, value in _items(entry):
                    if name in ("expect", "final"):
                        yield from _values(text, case, f"when/{n}/{name}", value, name == "final")
        else:
            for n, entry in enumerate(node.value):
                for name, value in _items(entry):
                    if name == "errno":
                        yield from _altered(text, case, f"{key}/{n}/errno", value)


def _items(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, yaml.MappingNode):
        yield from ((key.value, value) for key, value in node.value)


def _parts(root: Any, case: str | None) -> Iterator[tuple[str | None, str, Any]]:
    for key, value in _items(root):
        if key in ("expect", "final", "when", "memslots", "enable", "setup"):
            yield case, key, value
        if key == "cases":
            for name, inner in _items(value):
                yield from _parts(inner, name)


def _values(text: str, case: str | None, path: str, node: Any, final: bool) -> Iterator[Mutation]:
    if isinstance(node, yaml.SequenceNode):
        for n, item in enumerate(node.value):
            yield from _values(text, case, f"{path}/{n}", item, final)
    elif isinstance(node, yaml.MappingNode):
        for key, value in _items(node):
            if key == "then":
                for n, action in enumerate(value.value):
                    yield from (
                        m
                        for name, e in _items(action)
                        if name == "errno"
                        for m in _altered(text, case, f"{path}/then/{n}/errno", e)
                    )
            elif key != "timeout":
                yield from _values(text, case, f"{path}/{key}", value, final)
    else:
        yield from _altered(text, case, path, node)


def _altered(text: str, case: str | None, path: str, node: Any) -> Iterator[Mutation]:
    start, end = node.start_mark.index, node.end_mark.index
    was = text[start:end].rstrip()
    now = _other(path, was, node.value)
    if now is not None:
        yield Mutation(case, path, node.start_mark.line + 1, start, start + len(was), was, now)


def _other(path: str, was: str, value: str) -> str | None:
    key = path.rpartition("/")[2]
    if "errno" in path.split("/"):
        return _ERRNOS[value == _ERRNOS[0]]
    if key in ("hex", "text"):
        return (
            '"' + ("0" if value[:1] != "0" else "1") + value[1:] + '"'
            if value and '"' not in value and "\\" not in was
            else None
        )
    if value in _OTHER:
        return _OTHER[value]
    if _NUMBER.fullmatch(value):
        number = int(value, 0)
        if key in ("len", "size"):
            return {1: "2", 2: "4", 4: "8"}.get(number, "4")
        return hex(number + 1) if "x" in value else str(number + 1)
    found = _SYMBOL.fullmatch(value)
    if found is None or key == "ioctl":
        return None
    return f"{found[1]} + 1" if not found[2] else f"{value[: found.start(3)]}{int(found[3], 0) + 1}"


class Runner:
    """One host, and files in a folder of their own beside what they name."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        self.host = host(name)
        start([self.host], True)
        self.executor: Executor = self.host.executor()
        self.preparer = Preparer()
        self.preparer.handle(
            {"targets": [encode(Target(name, self.host.facts))], "each": True, "assembler": None}
        )
        self.arches = {facts.arch for facts in self.host.facts}

    def jobs(self, file: str, text: str, case: str | None) -> dict[str, Job] | None:
        """The jobs of a file by case; None where it is refused."""
        (self.folder / file).write_text(text)
        cases = [] if case is None else [case]
        reply = self.preparer.handle({"run": str(self.folder / file), "text": None, "cases": cases})
        return (
            None
            if reply.get("problems")
            else {job["case"]: decode(Job, job) for job in reply["jobs"]}
        )

    def status(self, job: Job) -> str:
        """The verdict."""
        return (
            "SKIP" if job.machine is None else judge(job, self.executor.execute(job.machine)).status
        )

    def close(self) -> None:
        """End what runs."""
        self.executor.close()
        self.host.close()


def effect(before: Job, after: Job) -> str:
    """What of a case an alteration has changed on this host."""
    assert before.expectation is not None
    assert after.expectation is not None
    old, new = before.expectation, after.expectation
    if old == new and before.machine == after.machine:
        return "none"
    return (
        "base"
        if old.xfail is not None and old.xfail == new.xfail and before.machine == after.machine
        else "all"
    )


def survivors(
    runner: Runner, path: Path, counts: Counter[str], most: int = 1 << 30
) -> Iterator[tuple[Mutation, str]]:
    """The alterations of a file that still pass, with the case; `counts` says how many there were
    of each kind.
    """
    text = path.read_text()
    arch = re.search(r"^arch: (\w+)", text, re.MULTILINE)
    if arch is None or arch[1] not in runner.arches:
        return
    whole = runner.jobs(path.name, text, None)
    assert whole is not None, path
    was = {case: runner.status(job) for case, job in whole.items()}
    found = list(mutations(text))
    for mutation in found[:: max(1, len(found) // most)]:
        altered = text[: mutation.start] + mutation.now + text[mutation.end :]
        jobs = runner.jobs(path.name, altered, mutation.case)
        if jobs is None:
            counts[f"{mutation.what}: refused"] += 1
            continue
        good = {case for case in jobs if was[case] in ("PASS", "XFAIL")}
        looked = {
            case
            for case in good
            if jobs[case].machine is None or effect(whole[case], jobs[case]) != "none"
        }
        looked -= {
            case
            for case in looked
            if was[case] == "XFAIL"
            and jobs[case].machine
            and effect(whole[case], jobs[case]) == "base"
        }
        if not looked:
            counts["of no effect on this host"] += 1
            continue
        # One case that shares the value tells as much as a hundred.
        still = [case for case in sorted(looked)[:3] if runner.status(jobs[case]) == was[case]]
        counts[f"{mutation.what}: {'survived' if still else 'killed'}"] += 1
        yield from ((mutation, case) for case in still)


def main() -> None:
    """All of them on one host."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--on", default="model")
    parser.add_argument("-k", default="", help="only files with this in their name")
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    left: list[str] = []
    told: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(SCENARIOS, folder, dirs_exist_ok=True)
        runner = Runner(arguments.on, Path(folder))
        with contextlib.closing(runner):
            for path in sorted(
                path for path in SCENARIOS.glob("*.yaml") if arguments.k in path.name
            ):
                for mutation, case in survivors(runner, path, counts):
                    line = (
                        f"{path.name}:{mutation.line}: {mutation.path}: {mutation.was} -> "
                        f"{mutation.now} ({case})"
                    )
                    reason = REASONS.get((path.name, mutation.path))
                    (left if reason is None else told).append(line)
                    print(line + (f": {reason}" if reason else ""), flush=True)
    for what, count in sorted(counts.items()):
        print(f"{count:6} {what}")
    print(f"{len(told):6} survived with a reason, {len(left)} without")
    sys.exit(1 if left else 0)


if __name__ == "__main__":
    main()
