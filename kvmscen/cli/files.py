"""Which scenario files the paths of a command line mean."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kvmscen.errors import Problem


def find(paths: Sequence[str]) -> tuple[list[str], list[Problem], list[str]]:
    """The scenario files of the paths, in order and each once; problems of paths; folders that have none."""
    files: dict[str, None] = {}
    problems: list[Problem] = []
    empty: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            found, refused = _in_folder(path)
            problems += refused
            if not found and not refused:
                empty.append(path)
            files.update(dict.fromkeys(found))
        elif os.path.isfile(path):
            files[path] = None
        elif os.path.exists(path):
            problems.append(Problem(path, 0, 0, "this is no regular file: save it to one, since several processes read it"))
        else:
            problems.append(Problem(path, 0, 0, "there is no such file or folder"))
    return list(files), problems, empty


def _in_folder(path: str) -> tuple[list[str], list[Problem]]:
    """The scenario files below a folder, sorted, and what could not be looked into."""
    refused: list[Problem] = []

    def cannot(error: OSError) -> None:
        refused.append(Problem(str(error.filename), 0, 0, f"cannot be read: {os.strerror(error.errno or 0)}"))

    found: list[str] = []
    for folder, folders, names in os.walk(path, onerror=cannot):
        # What is hidden belongs to other tools, as in .git and .venv.
        folders[:] = [name for name in folders if not name.startswith(".")]
        wanted = (os.path.join(folder, name) for name in names if name.endswith(".yaml") and not name.startswith("."))
        found += filter(os.path.isfile, wanted)
    return sorted(os.path.normpath(file) if path == "." else file for file in found), refused
