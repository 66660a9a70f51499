"""The documentation against the code: its scenarios are right, its tables are the code's, and no
key is left out.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvmscen.asm.keystone import assembly, expand, items
from kvmscen.compile.ready import _DEFAULT_TIMEOUT, _EXITS_ABOVE, _EXITS_MOST
from kvmscen.load import conditions, document, names, steps
from kvmscen.sent import machine
from kvmscen.sent.arch import ARCHES
from kvmscen.sent.header import actions, exits
from kvmscen.sent.script import interpreter, recorder

ROOT = Path(__file__).resolve().parent.parent
LANGUAGE = ROOT / "docs" / "language.md"
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
SCHEMA: dict[str, Any] = json.loads((ROOT / "schema" / "scenario.schema.json").read_text())
DEFS = SCHEMA["definitions"]
# Definitions of the schema that are maps with keys of the language.
MAPS = (
    *(
        "step",
        "action",
        "memslot",
        "section",
        "vcpu",
        "enable_entry",
        "final",
        "requires",
        "limits",
        "measured",
    ),
    *("memory_value", "value", "repeat", "reply"),
)
_BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_GENERATED = re.compile(r"<!-- generated: (\w+) -->\n(.*?)<!-- end -->\n", re.DOTALL)


# --- the scenarios --------------------------------------------------------------------------------


def scenarios() -> Iterator[Any]:
    """Every complete scenario of a page, with its line there; those of CONTRIBUTING.md are for
    test_contributing.py.
    """
    for page in (page for page in PAGES if page.name != "CONTRIBUTING.md"):
        text = page.read_text() if page.exists() else ""
        for found in _BLOCK.finditer(text):
            if found[1].startswith(("summary:", "# yaml-language-server")):
                line = text.count("\n", 0, found.start()) + 1
                yield pytest.param(found[1], id=f"{page.name}-{line}")


def test_there_are_scenarios() -> None:
    assert sum(1 for _ in scenarios()) >= 2


@pytest.mark.parametrize("text", list(scenarios()))
def test_scenario_is_right(text: str, tmp_path: Path) -> None:
    pytest.importorskip("keystone")
    file = tmp_path / "example.yaml"
    file.write_text(text)
    for verb, right in (("check", (0,)), ("run", (0, 4))):
        done = kvmscen(verb, str(file), *(("--on", "model") if verb == "run" else ()))
        assert done.returncode in right, done.stdout + done.stderr


def kvmscen(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from kvmscen.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT
    )


# --- the tables -----------------------------------------------------------------------------------


def member(row: exits.Exit, field: exits.Field) -> str:
    text = f"**{field.name}**" if field.name in row.where else field.name
    if field.length > 1:
        text += f"[{field.length}]"
    return text + (f" ({', '.join(field.names)})" if field.names else "")


def fields_of(row: exits.Exit) -> str:
    if row.name == "debug":
        by_arch = {
            arch: ", ".join(f.name for f in exits.fields_of("debug", arch)) for arch in ARCHES
        }
        return "; ".join(f"{arch}: {fields}" for arch, fields in by_arch.items() if fields)
    arch = (row.archs or tuple(ARCHES))[0]
    return ", ".join(member(row, field) for field in exits.fields_of(row.name, arch))


def exit_table() -> Iterator[str]:
    """One row for each exit that a scenario may name, then the others by name."""
    offered = names.offered()
    yield "| exit | members | reply | ends | arch | what |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in offered:
        archs = ", ".join(arch for arch in row.archs if arch in ARCHES)
        cells = (
            f"`{row.name}`",
            fields_of(row),
            ", ".join(row.reply),
            "yes" if row.ends else "",
            archs,
            row.text,
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    others = [row for row in exits.EXITS if row not in offered]
    with_errno = [row.name for row in others if not row.archs]
    yield (
        f"Only beside an errno, in an `error` step: {listed(with_errno)}. Of other "
        f"architectures, and so refused:"
    )
    yield listed(row.name for row in others if row.archs) + "."


def listed(words: Iterable[str]) -> str:
    return " ".join(f"`{word}`" for word in words)


def register_table() -> Iterator[str]:
    yield "| arch | registers | views |"
    yield "| --- | --- | --- |"
    for arch, module in ARCHES.items():
        table = module.REGISTERS
        wholes = [name for name, row in table.items() if not row.of and "." not in name]
        wholes += dict.fromkeys(name.split(".")[0] for name in table if "." in name)
        views = [name for name, row in table.items() if row.of and "." not in row.of]
        yield f"| {arch} | {' '.join(ranges(wholes))} | {' '.join(ranges(views))} |"


def ranges(words: Iterable[str]) -> Iterator[str]:
    """`x0-x30` for what is numbered without a gap."""
    found: dict[tuple[str, str], list[int]] = {}
    order: dict[tuple[str, str], str] = {}
    for word in dict.fromkeys(words):
        match = re.fullmatch(r"([a-z]+)(\d+)([a-z]?)", word)
        key = (match[1], match[3]) if match else (word, "")
        found.setdefault(key, [])
        order[key] = word
        if match:
            found[key].append(int(match[2]))
    for (head, tail), numbers in found.items():
        if len(numbers) > 3 and numbers == list(range(numbers[0], numbers[-1] + 1)):
            yield f"`{head}{numbers[0]}{tail}`-`{head}{numbers[-1]}{tail}`"
        elif numbers:
            yield from (f"`{head}{n}{tail}`" for n in numbers)
        else:
            yield f"`{order[head, tail]}`"


def limit_table() -> Iterator[str]:
    mib = 1 << 20
    longest = DEFS["limits"]["properties"]["timeout"]["maximum"]
    rows = {
        "`timeout`, by default and at most": f"{conditions.TIMEOUT_DEFAULT:g} s, {longest} s",
        "`exits`, by default": f"what the steps sum up to and {_EXITS_ABOVE:,}",
        "`exits` and `repeat`, at most": f"{steps.REPEAT_MAX:,}",
        "extra exits before the vCPU stops": f"{interpreter.EXTRA_LIMIT}",
        "memslots, all together, of `setup`, of `then` and with `errno` too": (
            f"{machine.SLOTS_MOST // mib} MiB"
        ),
        "memory that is looked at, in `final` and at each exit": f"{machine.OBSERVED_MOST // mib} "
        f"MiB",
        "what is kept of all exits": f"{recorder.WEIGHT_MOST // mib} MiB",
        "a section, all sections": f"{items.MAX_SIZE // mib} MiB, {assembly.MAX_TOTAL // mib} MiB",
        "statements of a program": f"{expand.MAX_STATEMENTS:,}",
        "a scenario's file": f"{document.SIZE_MAX // mib} MiB, nested {document.DEPTH_MAX} deep, "
        f"{document.VALUES_MAX:,} values",
    }
    yield "| what | limit |"
    yield "| --- | --- |"
    yield from (f"| {what} | {limit} |" for what, limit in rows.items())


def test_the_limit_of_exits_is_one() -> None:
    most = DEFS["limits"]["properties"]["exits"]["maximum"]
    assert _EXITS_MOST == steps.REPEAT_MAX == most
    assert DEFS["repeat"]["maximum"] == most
    assert _DEFAULT_TIMEOUT == conditions.TIMEOUT_DEFAULT


def action_table() -> Iterator[str]:
    """One row for each action; of a struct, the members that may be written."""
    yield "| action | what it does |"
    yield "| --- | --- |"
    for row in actions.ACTIONS:
        text = (
            row.text
            if row.text.startswith(row.ioctl) or row.ioctl == row.name or not row.on
            else f"{row.ioctl}: {row.text}"
        )
        yield f"| `{row.name}: {row.written or written(row)}` | {text}{words_of(row)} |"


def written(row: actions.Action) -> str:
    """`{addr, size, pio}`, or a value of the one member that stands for the map."""
    if row.alone:
        return next(iter(row.anywhere[row.alone][0].names or {row.alone: 0}))
    own = dict.fromkeys(member.name.partition(".")[0] for member in row.members.get("", ()))
    if not own:
        tables = [
            dict.fromkeys(m.name.partition(".")[0] for m in table) for table in row.members.values()
        ]
        own = {name: None for name in tables[0] if all(name in table for table in tables)}
        return "{" + ", ".join([*own, "..."]) + "}"
    return "{" + ", ".join(own) + "}"


def words_of(row: actions.Action) -> str:
    """The words that stand for numbers, and members that some architectures alone have."""
    words = {
        name: listed(dict.fromkeys(w for m in ms for w in m.names or {}))
        for name, ms in row.anywhere.items()
    }
    told = [f"`{name}`: {known}" for name, known in words.items() if known]
    if "" not in row.members:
        told += [
            f"{arch}: {listed(member.name for member in table)}"
            for arch, table in row.members.items()
            if table
        ]
    return "".join(f". {sentence}" for sentence in told)


def later_list() -> Iterator[str]:
    yield f"* keys of a scenario: {listed(names.LATER_TOP)}"
    yield f"* keys of a step: {listed(names.LATER_STEP)}"
    yield f"* actions: {listed(names.LATER_ACTIONS)}"


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "exits": exit_table,
    "registers": register_table,
    "actions": action_table,
    "limits": limit_table,
    "later": later_list,
}


@pytest.mark.parametrize("name", TABLES)
def test_table_is_what_the_code_says(name: str) -> None:
    text = LANGUAGE.read_text()
    made = "\n".join(TABLES[name]()) + "\n"
    if os.environ.get("KVMSCEN_UPDATE_GOLDEN") == "1" and not os.environ.get("CI"):
        text = _GENERATED.sub(
            lambda m: f"<!-- generated: {name} -->\n{made}<!-- end -->\n" if m[1] == name else m[0],
            text,
        )
        LANGUAGE.write_text(text)
    again = "KVMSCEN_UPDATE_GOLDEN=1 pytest tests/test_docs.py"
    assert dict(_GENERATED.findall(text)).get(name) == made, (
        f"docs/language.md: make it with {again}"
    )


def test_no_table_is_forgotten() -> None:
    assert {name for name, _ in _GENERATED.findall(LANGUAGE.read_text())} == set(TABLES)


# --- what is mentioned ----------------------------------------------------------------------------


def keys() -> Iterable[tuple[str, str]]:
    """Every key of the language that is no member of an exit, with the map that it belongs to."""
    yield from (("a scenario", key) for key in SCHEMA["properties"])
    exit_keys = {row.name for row in exits.EXITS}
    for name in MAPS:
        node = DEFS[name]
        maps = [node, *node.get("anyOf", ())]
        yield from (
            (name, key)
            for found in maps
            for key in found.get("properties", ())
            if key not in exit_keys
        )
    yield from (("when", key) for key in DEFS["when"]["items"]["properties"])


@pytest.mark.parametrize(("where", "key"), sorted(set(keys())))
def test_key_is_mentioned(where: str, key: str) -> None:
    assert re.search(rf"`[^`\n]*\b{re.escape(key)}\b[^`\n]*`", LANGUAGE.read_text()), (
        f"docs/language.md: {key} of {where}"
    )


@pytest.mark.parametrize("name", [row.name for row in exits.EXITS])
def test_exit_is_mentioned(name: str) -> None:
    assert f"`{name}`" in LANGUAGE.read_text()


def test_every_variable_is_in_the_table_and_in_the_help() -> None:
    known = {
        f"KVMSCEN_{name}"
        for name in (
            "ON",
            "K",
            "CASE",
            "J",
            "REPORT",
            "RECORD",
            "OBSERVED",
            "ROUNDS",
            "LOOP",
            "BASE",
        )
    }
    for path in (ROOT / "kvmscen").rglob("*.py"):
        known |= set(
            re.findall(r"(?:environ(?:\.get\(|\[)|homes\.folder\()\"([A-Z_]+)\"", path.read_text())
        )
    assert {"KVMSCEN_SSH", "KVMSCEN_ASSEMBLER", "NO_COLOR", "XDG_CACHE_HOME"} <= known
    known -= {"PATH"}
    table = (ROOT / "README.md").read_text().split("## Environment")[1].split("\n## ")[0]
    told = kvmscen("run", "--help").stdout
    assert sorted(name for name in known if f"`{name}`" not in table or name not in told) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text() if page.exists() else ""
    for target in re.findall(r"\]\(([^)#:\s]*)(?:#[^)\s]*)?\)", text):
        assert not target or (page.parent / target).exists(), f"{page.name}: {target}"
    titles = {
        re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-")
        for t in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for anchor in re.findall(r"\]\(#([^)\s]*)\)", text):
        assert anchor in titles, f"{page.name}: #{anchor}"


# --- arm64 itself ---------------------------------------------------------------------------------


def native(title: str) -> str:
    """A block of docs/native-arm64.md by its title."""
    text = (ROOT / "docs" / "native-arm64.md").read_text()
    found = re.search(
        rf"^<!-- native: {title} -->\n```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE
    )
    assert found is not None
    return found[1]


@pytest.mark.parametrize("title", ["the root", "boot", "run", "ssh"])
def test_the_commands_for_arm64_are_shell(title: str) -> None:
    done = subprocess.run(["bash", "-n"], input=native(title), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_wheels_for_arm64_are_what_is_needed_there() -> None:
    needed = re.search(
        r"^dependencies = \[\n(.*?)^\]",
        (ROOT / "pyproject.toml").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    assert needed is not None
    everywhere = {
        re.split("[>=<]", name)[0]
        for name in re.findall(r'^ +"([^";]+)",$', needed[1], re.MULTILINE)
    }
    fetched = re.search(r"manylinux_2_28_aarch64 (.*)", native("the root"))
    assert fetched is not None
    assert len(everywhere) > 3
    assert set(fetched[1].split()) == everywhere


def test_one_cpu_is_booted_for_arm64() -> None:
    # With several QEMU tells KVM another syndrome of atomics than a CPU does.
    assert " -smp 1 " in native("boot")
