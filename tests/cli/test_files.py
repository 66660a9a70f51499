"""What the paths of a command line mean: nothing of them is left out without a word."""

from __future__ import annotations

import os
from pathlib import Path

from kvmscen.cli.files import find


def test_a_folder_tells_what_it_leaves_out(tmp_path: Path) -> None:
    for name in (
        "b.yaml",
        "a.yaml",
        "c.yml",
        "d.YAML",
        ".hidden.yaml",
        "e.txt",
        "sub/f.yaml",
        ".git/g.yaml",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("arch: arm64\n")
    (tmp_path / "gone.yaml").symlink_to("/nowhere/at/all")
    (tmp_path / "linked.yaml").symlink_to(tmp_path / "a.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder").symlink_to(tmp_path / "sub")
    found = find([str(tmp_path)])
    assert [os.path.relpath(file, tmp_path) for file in found.files] == [
        "a.yaml",
        "b.yaml",
        "linked.yaml",
        "sub/f.yaml",
    ]
    assert {
        os.path.basename(problem.file): problem.message.partition(":")[0]
        for problem in found.problems
    } == {
        "gone.yaml": "this link leads nowhere",
        "pipe.yaml": "this is no regular file",
    }
    assert sorted(os.path.basename(line.partition(":")[0]) for line in found.passed_over) == [
        "c.yml",
        "d.YAML",
        "folder",
    ]


def test_a_file_that_is_named_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text("arch: arm64\n")
    assert find([str(tmp_path / "c.yml")]).files == [str(tmp_path / "c.yml")]
    (tmp_path / "folder").symlink_to(tmp_path)
    (tmp_path / "a.yaml").write_text("arch: arm64\n")
    assert find([str(tmp_path / "folder")]).files == [str(tmp_path / "folder" / "a.yaml")]


def test_a_folder_without_scenarios_is_wrong_beside_other_paths(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.yaml").write_text("arch: arm64\n")
    alone = find([str(tmp_path / "empty")])
    assert (alone.files, alone.problems, len(alone.passed_over)) == ([], [], 1)
    beside = find([str(tmp_path / "a.yaml"), str(tmp_path / "empty")])
    assert [problem.message for problem in beside.problems] == [
        "there are no scenarios (*.yaml) in this folder"
    ]
    assert [problem.message for problem in find([str(tmp_path / "nowhere")]).problems] == [
        "there is no such file or folder"
    ]
