"""What `run --observed` prints is put in place of what the shipped scenarios expect, and passes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

SCENARIOS = Path(__file__).resolve().parent.parent / "scenarios"
HEADER = re.compile(
    r"# (?P<file>[^:]+)(?::(?P<line>\d+))?, case (?P<case>[\w.-]+), (?:observed on|predicted by) "
)


def kvmscen(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kvmscen", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def statuses(report: Path) -> dict[tuple[str, str], str]:
    return {
        (Path(result["file"]).name, result["case"]): result["status"]
        for result in json.loads(report.read_text())["results"]
    }


def lists(node: Any) -> Iterator[yaml.SequenceNode]:
    if isinstance(node, yaml.SequenceNode):
        yield node
    for inner in node.value if not isinstance(node, yaml.ScalarNode) else ():
        for child in inner if isinstance(inner, tuple) else (inner,):
            yield from lists(child)


def in_place(text: str, line: int, steps: list[str]) -> str | None:
    """The scenario with the list whose first item stands in this line replaced by these lines; None
    inside a flow map.
    """
    node = next(
        node
        for node in lists(yaml.compose(text, Loader=yaml.CSafeLoader))
        if node.value and node.value[0].start_mark.line + 1 == line
    )
    start, end = node.start_mark, node.end_mark
    before = text[start.index - start.column : start.index]
    if not node.flow_style:
        made = "".join(before + step.removeprefix("  ") + "\n" for step in steps)
        return text[: start.index - start.column] + made + text[end.index - end.column :]
    if before.strip() != "expect:":
        return None
    made = "".join("\n" + before.partition("expect")[0] + step for step in steps)
    return text[: start.index].rstrip() + made + text[end.index :]


def again(host: str, tmp_path: Path) -> tuple[int, list[tuple[str, str]]]:
    """How many cases were run a second time with what was printed in the first, and those that did
    not pass then.
    """
    first = kvmscen(
        "run", SCENARIOS, "--on", host, "--observed", "--report", f"json={tmp_path / 'first.json'}"
    )
    passed = {key for key, status in statuses(tmp_path / "first.json").items() if status == "PASS"}
    folder = tmp_path / "again"
    shutil.copytree(SCENARIOS, folder, ignore=shutil.ignore_patterns("*.yaml"))
    made = {}
    copies: Counter[str] = Counter()
    for block in first.stdout.strip().split("\n\n"):
        head, *steps = block.splitlines()
        match = HEADER.match(head)
        if match is None or match["line"] is None or not steps:
            continue
        assert steps.pop(0) == "expect:", block
        file = Path(match["file"])
        text = in_place(file.read_text(), int(match["line"]), steps)
        # Each copy has all cases of its file, and all of them run: a few of each file, or there
        # would be thousands.
        if (file.name, match["case"]) in passed and text is not None and copies[file.name] < 4:
            copies[file.name] += 1
            name = f"{file.stem}--{match['case']}.yaml"
            (folder / name).write_text(text)
            made[name, match["case"]] = block
    kvmscen("run", folder, "--on", host, "--report", f"json={tmp_path / 'second.json'}")
    second = statuses(tmp_path / "second.json")
    return len(made), [
        (block, second.get(key, "refused"))
        for key, block in made.items()
        if second.get(key) != "PASS"
    ]


def test_on_the_model(tmp_path: Path) -> None:
    count, failed = again("model", tmp_path)
    assert failed == []
    assert count > 30


@pytest.mark.kvm
def test_on_kvm(tmp_path: Path) -> None:
    count, failed = again("kvm", tmp_path)
    assert failed == []
    assert count > 30
