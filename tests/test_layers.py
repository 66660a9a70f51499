"""Who may import whom (docs of the design: "The house"), how large things may be, and what is sent
to other machines.
"""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Set
from functools import cache
from pathlib import Path

import pytest

from kvmscen.cli.arguments import parser
from kvmscen.cli.main import VERBS
from kvmscen.hosts.process import pack
from kvmscen.sent.agent import frames

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "kvmscen"
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """`sent.script.recorder` for kvmscen/sent/script/recorder.py, `sent` for
    kvmscen/sent/__init__.py, `` for the package.
    """
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


@cache
def imports(module: str) -> frozenset[str]:
    """Every module that a module imports, anywhere in it, also for type checkers alone: ours as
    `kvmscen.x.y`, others by their first name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: a relative import"
            whole = str(node.module)
            # `from kvmscen.sent.header import exits` imports a module, `from kvmscen.errors import
            # HostError` a name.
            found |= {
                f"{whole}.{a.name}" if f"{whole}.{a.name}"[8:] in MODULES else whole
                for a in node.names
            }
    return frozenset(
        name if name.split(".")[0] == "kvmscen" else name.split(".")[0] for name in found
    )


def ours(module: str) -> set[str]:
    return {name[8:] for name in imports(module) if name.startswith("kvmscen")}


def foreign(module: str) -> set[str]:
    return {
        name
        for name in imports(module)
        if not name.startswith("kvmscen") and name not in sys.stdlib_module_names
    }


def under(module: str, *parts: str) -> bool:
    return any(module == part or module.startswith(part + ".") for part in parts)


def test_the_reader_of_imports_sees_them() -> None:
    # Without this, a slip in `imports` would make every rule below hold.
    assert {"sent.header.exits", "sent.machine"} <= ours("sent.script.interpreter")
    assert foreign("model.guest") == {"unicorn"}
    assert "ctypes" in imports("sent.kvm.fds")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_values_are_named_tuples(module: str) -> None:
    # A dataclass takes 1.7 ms to define, ten times as long as a NamedTuple; a hundred of them were
    # half of the start-up.
    assert "dataclasses" not in imports(module)


# --- the rooms ------------------------------------------------------------------------------------

# From the ground up: a floor imports from itself and from those below it.
FLOORS = (
    *(
        "sent",
        "errors",
        "scenario",
        "disk",
        "asm",
        "load",
        "results",
        "job",
        "compile",
        "judge",
        "model",
        "author",
        "hosts",
    ),
    *("engine", "measure", "reports", "worker", "cli", "__main__"),
)


def test_no_module_stands_at_the_top() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == {
        "__init__.py",
        "__main__.py",
        "errors.py",
        "scenario.py",
    }
    assert {path.name for path in PACKAGE.iterdir()} - {"__pycache__"} == {
        *("__init__.py", "__main__.py", "errors.py", "scenario.py", "py.typed"),
        *(floor for floor in FLOORS if floor not in ("errors", "scenario", "__main__")),
    }


@pytest.mark.parametrize(
    "folder",
    sorted(path.parent for path in FILES if path.name == "__init__.py"),
    ids=lambda p: p.name,
)
def test_a_room_says_what_is_in_it(folder: Path) -> None:
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert said, f"{folder}/__init__.py"
    assert len(said.split("\n\n")[0]) > 40


@pytest.mark.parametrize("module", sorted(MODULES))
def test_floors(module: str) -> None:
    own = FLOORS.index(module.split(".")[0]) if module else 0
    above = {name for name in ours(module) if name and FLOORS.index(name.split(".")[0]) > own}
    assert above == set()


def test_no_room_has_the_name_of_something_else() -> None:
    """A folder or file takes the place of a function of that name in the `__init__` beside it, once
    it is imported.
    """
    for path in (path for path in FILES if path.name == "__init__.py"):
        inside = {
            other.stem for other in path.parent.iterdir() if other.suffix == ".py" or other.is_dir()
        }
        tree = ast.parse(path.read_text())
        made = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert inside & made == set(), path


def circles(edges: Mapping[str, Set[str]]) -> Iterator[list[str]]:
    """The nodes of a graph that reach themselves, circle by circle."""
    reach: dict[str, set[str]] = {}
    for node in edges:
        seen: set[str] = set()
        todo = list(edges[node])
        while todo:
            at = todo.pop()
            if at not in seen:
                seen.add(at)
                todo += edges.get(at, ())
        reach[node] = seen
    told: set[str] = set()
    for node in sorted(edges):
        if node in reach[node] and node not in told:
            circle = [
                other for other in sorted(edges) if node in reach[other] and other in reach[node]
            ]
            told |= set(circle)
            yield circle


def test_circles_are_seen() -> None:
    assert list(circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"e"}})) == [
        ["a", "b", "c"],
        ["e"],
    ]


def test_no_circle_of_files() -> None:
    graph = {module: ours(module) - {module} for module in MODULES}
    assert list(circles(graph)) == []


def test_no_import_is_hidden() -> None:
    """Behind TYPE_CHECKING a circle would not show when the program runs."""
    assert [path for path in FILES if "TYPE_CHECKING" in path.read_text()] == []


def test_no_circle_of_folders() -> None:
    """Of those beside each other in one folder, at each depth: what a folder imports, with all that
    is in it.
    """
    for folder in {path.parent for path in FILES}:
        inside = name_of(folder / "__init__.py")
        depth = len(inside.split(".")) if inside else 0
        edges: dict[str, set[str]] = {}
        for module in MODULES:
            parts = module.split(".")
            if module and len(parts) > depth and under(module, inside or parts[0]):
                beside = (
                    name
                    for name in ours(module)
                    if under(name, inside or name) and name.count(".") >= depth
                )
                there = {name.split(".")[depth] for name in beside}
                edges.setdefault(parts[depth], set()).update(there - {parts[depth], ""})
        assert list(circles(edges)) == [], inside


@pytest.mark.parametrize("module", [name for name in sorted(MODULES) if under(name, "sent")])
def test_what_is_sent_stands_alone(module: str) -> None:
    assert foreign(module) == set()
    assert {name for name in ours(module) if not under(name, "sent")} == set()


PURE = ("results", "job", "judge.accesses", "judge.walk", "judge.align")
OUTSIDE = {
    "os",
    "sys",
    "io",
    "time",
    "subprocess",
    "socket",
    "threading",
    "ctypes",
    "signal",
    "random",
    "pathlib",
    "tempfile",
}
VALUES = (
    "machine",
    "observation",
    "facts",
    "measure",
    "codec",
    "errors",
    "arch",
    "header",
    "script",
)


@pytest.mark.parametrize("module", [name for name in sorted(MODULES) if under(name, *PURE)])
def test_pure(module: str) -> None:
    assert foreign(module) == set()
    assert imports(module) & OUTSIDE == set()
    assert {
        name
        for name in ours(module)
        if not under(name, "errors", *(f"sent.{name}" for name in VALUES), *PURE)
    } == set()


LIBRARIES = {
    "yaml": ("load",),
    "jsonschema": ("load",),
    "keystone": ("asm.keystone.encoder",),
    "unicorn": ("model",),
    "capstone": ("model",),
    "matplotlib": ("reports.plot",),
    "elftools": ("asm.gnu", "asm.linked"),
    "tabulate": (
        "reports.text",
        "reports.counts",
        "reports.prices",
        "cli.listing",
        "cli.hosts",
        "cli.host",
    ),
}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_each_library_has_its_place(module: str) -> None:
    for library in foreign(module):
        assert library in LIBRARIES, f"{module} imports {library}"
        assert under(module, *LIBRARIES[library]), (
            f"{module} imports {library}, which is for {LIBRARIES[library]}"
        )


def test_each_verb_is_a_module_that_no_other_verb_imports() -> None:
    assert set(VERBS) == {
        name
        for action in parser()._actions
        if action.dest == "verb"
        for name in action.choices or ()
    }
    for verb in VERBS:
        assert callable(getattr(importlib.import_module(f"kvmscen.cli.{verb}"), verb))
        assert not {f"cli.{other}" for other in VERBS} & ours(f"cli.{verb}")


@pytest.mark.parametrize("module", [name for name in sorted(MODULES) if under(name, "reports")])
def test_reports_see_results_only(module: str) -> None:
    seen = (
        "reports",
        "results",
        "measure.confidence",
        "scenario",
        "sent.machine",
        "sent.observation",
        "errors",
        "sent.errors",
    )
    assert {name for name in ours(module) if not under(name, *seen)} == set()


@pytest.mark.parametrize(
    "module", [name for name in sorted(MODULES) if under(name, "compile", "asm", "load", "judge")]
)
def test_stages_know_no_host(module: str) -> None:
    host = ("hosts", "engine", "sent.agent.main", "sent.executor", "sent.kvm")
    assert {name for name in ours(module) if under(name, *host)} == set()


def test_the_engine_is_handed_its_hosts() -> None:
    host = ("hosts.kvm", "hosts.model", "sent.kvm", "model", "load", "compile")
    assert {
        name
        for module in MODULES
        if under(module, "engine")
        for name in ours(module)
        if under(name, *host)
    } == set()


def test_main_process_is_light() -> None:
    libraries = ("yaml", "jsonschema", "keystone", "elftools", "unicorn", "capstone")
    heavy = (*libraries, "kvmscen.load", "kvmscen.asm", "kvmscen.compile")
    code = (
        "import json, sys, kvmscen.cli.main, kvmscen.cli.run, kvmscen.hosts.kvm; "
        "print(json.dumps(sorted(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT
    ).stdout
    loaded = json.loads(out)
    assert "kvmscen.cli.run" in loaded
    assert [
        name for name in loaded if name in heavy or name.startswith(tuple(h + "." for h in heavy))
    ] == []


# --- how large ------------------------------------------------------------------------------------

# Modules that may be longer, and how long.
LONGER: dict[str, int] = {}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_size(module: str) -> None:
    text = MODULES[module].read_text()
    lines = len(text.splitlines())
    assert lines <= LONGER.get(module, 400)
    assert module not in LONGER or lines > 400, (
        f"{module} is no longer so long: take it out of LONGER"
    )
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{module}:{node.lineno}: {node.name}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_names_say_something(module: str) -> None:
    assert (
        set(module.split("."))
        & {"utils", "util", "core", "common", "base", "manager", "helper", "helpers"}
        == set()
    )


# --- what is sent ---------------------------------------------------------------------------------


def test_sent_modules_are_python_3_9() -> None:
    argv = [
        sys.executable,
        "-c",
        "import vermin; vermin.main()",
        "-t=3.9-",
        "--no-tips",
        str(PACKAGE / "sent"),
    ]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def pythons() -> list[str]:
    """This interpreter, the machine's own, and every other from 3.9 on that lies about."""
    found = {Path(sys.executable).resolve(): sys.executable}
    places = [
        Path("/usr/bin"),
        Path("/usr/local/bin"),
        *Path.home().glob(".pyenv/versions/3.*/bin"),
    ]
    for path in [p / "python3" for p in places] + [
        p / f"python3.{n}" for p in places for n in range(9, 20)
    ]:
        if path.exists() and path.resolve() not in found:
            code = "import sys; sys.exit(sys.version_info < (3, 9))"
            if (
                subprocess.run([str(path), "-I", "-S", "-c", code], capture_output=True).returncode
                == 0
            ):
                found[path.resolve()] = str(path)
    return list(found.values())


# Every module of the pack is imported, from the pack: one that MODULES forgot would be missed here
# only.
IMPORT_ALL = """
import importlib, os, sys, zipfile
path = sys.argv[1]
sys.path.insert(0, path)
for name in zipfile.ZipFile(path).namelist():
    name = name[:-3].replace("/", ".").replace(".__init__", "")
    assert importlib.import_module(name).__file__.startswith(path), name
files = {n: getattr(m, "__file__", None) or "" for n, m in sys.modules.items()}
strays = [n for n, file in files.items() if "site-packages" in file]
assert not strays, strays
print("kvmscen.sent.agent.main" in sys.modules)
"""


@pytest.mark.parametrize("python", pythons())
def test_the_pack_is_whole(python: str, tmp_path: Path) -> None:
    (tmp_path / "pack.zip").write_bytes(pack.pack())
    (tmp_path / "empty").mkdir()
    argv = [python, "-I", "-S", "-c", IMPORT_ALL, str(tmp_path / "pack.zip")]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path / "empty", env={})
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize("python", pythons())
def test_the_boot_line_takes_the_pack_in(python: str, tmp_path: Path) -> None:
    # A stranger's json.py in the working folder is not imported.
    (tmp_path / "json.py").write_text("raise SystemExit('a stranger')\n")
    (tmp_path / "kvmscen.py").write_text("raise SystemExit('a stranger')\n")
    argv = [python, "-I", "-S", "-c", pack.BOOT]
    done = subprocess.run(
        argv,
        input=pack.greeting(),
        capture_output=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    hello = json.loads(frames.unpack(done.stdout) or "")
    assert hello["protocol"] == frames.VERSION
    assert ("facts" in hello) != ("unusable" in hello)


def test_a_pack_that_is_cut_ends_the_boot_line(tmp_path: Path) -> None:
    argv = [sys.executable, "-I", "-S", "-c", pack.BOOT]
    done = subprocess.run(argv, input=pack.greeting()[:-1000], capture_output=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == b""


def test_the_pack_is_the_same_for_the_same_sources() -> None:
    code = "from kvmscen.hosts.process import pack; print(pack.digest())"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert other.stdout.strip() == pack.digest()
