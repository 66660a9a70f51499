"""Which scenario files the paths of a command line mean, and what of these paths is passed over."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from kvmscen.errors import Problem

_NO_FILE = "this is no regular file: save it to one, since several processes read it"


class SelectedFiles:
    """`files` in order and each once; `problems` of paths; `passed_over`: what is not run, one line
    each.

    `under`: the files of each path that was named.
    """

    def __init__(self) -> None:
        self.files: list[str] = []
        self.problems: list[Problem] = []
        self.passed_over: list[str] = []
        self.under: dict[str, list[str]] = {}

    def unselected(self, reported: Collection[str]) -> list[str]:
        """The paths of the command line under which no file is in `reported`."""
        return [
            path
            for path, files in self.under.items()
            if files and not any(file in reported for file in files)
        ]


def find(paths: Sequence[str]) -> SelectedFiles:
    """The scenario files of the paths. A folder without any is a problem beside other paths; alone
    it is passed over.
    """
    selected = SelectedFiles()
    empty: list[str] = []
    for path in paths:
        before = len(selected.problems)
        if os.path.isdir(path):
            files = _in_folder(path, selected)
            selected.files += files
            selected.under[path] = files
            if not files and len(selected.problems) == before:
                empty.append(path)
        elif os.path.isfile(path):
            selected.files.append(path)
            selected.under[path] = [path]
        else:
            selected.problems.append(Problem(path, 0, 0, why_no_scenario(path)))
    selected.files = list(dict.fromkeys(selected.files))
    for folder in empty:
        say = "there are no scenarios (*.yaml) in this folder"
        if selected.files or selected.problems:
            # It was named, and nothing of it runs: what else there is must not hide that.
            selected.problems.append(Problem(folder, 0, 0, say))
        else:
            selected.passed_over.append(f"{folder}: {say}")
    return selected


def _in_folder(path: str, out: SelectedFiles) -> list[str]:
    """The scenario files below a folder, sorted."""

    def cannot(error: OSError) -> None:
        out.problems.append(
            Problem(str(error.filename), 0, 0, f"cannot be read: {os.strerror(error.errno or 0)}")
        )

    selected: list[str] = []
    for folder, folders, names in os.walk(path, onerror=cannot):
        # What is hidden belongs to other tools, as in .git and .venv.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if os.path.islink(os.path.join(folder, name)):
                out.passed_over.append(
                    f"{os.path.join(folder, name)}: a link to a folder is not followed: name it to "
                    f"run what is in it"
                )
        for name in sorted(names):
            file = os.path.join(folder, name)
            if name.startswith("."):
                continue
            if name.endswith(".yaml"):
                if os.path.isfile(file):
                    selected.append(os.path.normpath(file) if path == "." else file)
                else:
                    out.problems.append(Problem(file, 0, 0, why_no_scenario(file)))
            elif name.lower().endswith((".yml", ".yaml")):
                out.passed_over.append(
                    f"{file}: of a folder only *.yaml is run: rename it, or name it"
                )
    return sorted(selected)


def why_no_scenario(path: str) -> str:
    """The message for a path that is no scenario file."""
    if os.path.exists(path):
        return _NO_FILE
    return (
        f"this link leads nowhere: {os.readlink(path)}"
        if os.path.islink(path)
        else "there is no such file or folder"
    )
