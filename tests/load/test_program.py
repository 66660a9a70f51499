"""`asm: {file}` and `macros`: where a file may lie, and what is said of it and of what is in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvmscen.compile import plans
from kvmscen.errors import ScenarioError
from kvmscen.load import load
from kvmscen.load.document import SIZE_MAX

SCENARIO = """\
arch: arm64
memslots: [{slot: 0, gpa: 0, size: 0x1000}]
asm: {file: "%s"}
final: {}
"""


def write(folder: Path, name: str, content: bytes = b"nop\n") -> str:
    scenario = folder / "s.yaml"
    scenario.write_text(SCENARIO % name.replace("\\", "\\\\"))
    if content:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return str(scenario)


def problem(scenario: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        load(scenario)
    (found,) = caught.value.problems
    assert (found.file, found.line, found.column) == (scenario, 3, 13)
    return found.message


def test_a_file_beside_the_scenario(tmp_path: Path) -> None:
    (case,) = load(write(tmp_path, "start.s", "\ufeffnop // é\r\nnop\r\n".encode())).cases
    assert case.asm is not None
    assert (case.asm.text, case.asm.name, case.asm.path) == (
        "nop // é\nnop\n",
        "start.s",
        f"{tmp_path}/start.s",
    )


def test_a_file_below_the_scenario_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "below/start.s")
    monkeypatch.chdir(tmp_path)
    assert load("s.yaml").cases[0].asm is not None
    monkeypatch.chdir("/")
    assert load(f"{tmp_path}/s.yaml").cases[0].asm is not None


def test_a_link_inside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "real.s").write_text("nop")
    (tmp_path / "link.s").symlink_to("real.s")
    assert load(write(tmp_path, "link.s", b"")).cases[0].asm is not None


@pytest.mark.parametrize(
    "target", ["outside.s", "/etc/passwd", "/dev/zero", "../scenarios/../outside.s"]
)
def test_a_link_that_leads_out(target: str, tmp_path: Path) -> None:
    (tmp_path / "outside.s").write_text("nop")
    folder = tmp_path / "scenarios"
    folder.mkdir()
    (folder / "link.s").symlink_to(target if target[0] in "/." else f"../{target}")
    (folder / "out").symlink_to("..")
    say = "is a link that leads out of the scenario's folder: put the file itself there"
    assert problem(write(folder, "link.s", b"")) == f"`link.s` {say}"
    assert problem(write(folder, "out/outside.s", b"")) == f"`out/outside.s` {say}"


def test_a_folder_whose_name_begins_alike(tmp_path: Path) -> None:
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios-2").mkdir()
    (tmp_path / "scenarios-2" / "a.s").write_text("nop")
    (tmp_path / "scenarios" / "a.s").symlink_to("../scenarios-2/a.s")
    assert "leads out" in problem(write(tmp_path / "scenarios", "a.s", b""))


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.s", "a/../../b.s", "a/.."])
def test_a_path_that_leads_out(name: str, tmp_path: Path) -> None:
    assert (
        "leads out of the scenario's folder: write the name of a file in it or below it"
        in problem(write(tmp_path, name, b""))
    )


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.s")
    (tmp_path / "folder.s").mkdir()
    (tmp_path / "loop.s").symlink_to("loop.s")
    assert (
        problem(write(tmp_path, "pipe.s", b""))
        == "`pipe.s` is no regular file: write the name of a file"
    )
    assert (
        problem(write(tmp_path, "folder.s", b""))
        == "`folder.s` is a folder: write the name of a file"
    )
    assert "Too many levels of symbolic links" in problem(write(tmp_path, "loop.s", b""))
    assert "No such file or directory" in problem(write(tmp_path, "missing.s", b""))
    assert "cannot be read" in problem(write(tmp_path, "x" * 5000, b""))
    (tmp_path / "s.yaml").write_text(SCENARIO % "a\\0b")
    assert "null" in problem(f"{tmp_path}/s.yaml")


def test_what_is_no_program(tmp_path: Path) -> None:
    assert problem(write(tmp_path, "a.s", b"nop\n\xff")) == (
        "`a.s` is no text: the byte 0xff in its line 2 is not UTF-8: save it as UTF-8"
    )
    assert (
        problem(write(tmp_path, "a.s", b"nop\n\n\0"))
        == "`a.s` is no text: there is a zero byte in its line 3: name a source"
    )
    assert problem(write(tmp_path, "a.s", b" \n")).startswith("the program in `a.s` is empty")
    assert (
        problem(write(tmp_path, "a.s", b"#" * (SIZE_MAX + 1)))
        == "`a.s` has more than 1,048,576 bytes: that is the limit"
    )
    assert load(write(tmp_path, "a.s", b"#" * SIZE_MAX)).cases


def test_errors_are_told_in_the_file(tmp_path: Path) -> None:
    pytest.importorskip("keystone")
    scenario = load(write(tmp_path, "start.s", b"nop\n  ldr x0, =missing\n.section .far\n nop\n"))
    with pytest.raises(ScenarioError) as caught:
        plans(scenario, scenario.cases)
    assert str(caught.value) == f"{tmp_path}/start.s:2:3: undefined symbol missing"


def test_what_is_misplaced_is_told_in_the_scenario(tmp_path: Path) -> None:
    pytest.importorskip("keystone")
    path = write(tmp_path, "start.s", b"nop\n.data\n.quad 1\n")
    Path(path).write_text(Path(path).read_text() + "sections: {.text: 0, .data: 2}\n")
    scenario = load(path)
    with pytest.raises(ScenarioError) as caught:
        plans(scenario, scenario.cases)
    assert str(caught.value).startswith(f"{path}:5:29: section .data at 0x2-0x9 overlaps .text")


def test_a_source_and_an_executable_displace_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.elf").write_bytes(b"\x7fELF")
    (tmp_path / "s.yaml").write_text(
        "arch: arm64\nfinal: {}\nasm: nop\n"
        "cases: {linked: {elf: a.elf}, source: {asm: isb}, same: {}, none: {asm: null, elf: "
        "a.elf}}\n"
    )
    made = {
        case.name: (case.asm and case.asm.text, case.elf and (case.elf.name, case.elf.raw))
        for case in load(str(tmp_path / "s.yaml")).cases
    }
    linked = (None, ("a.elf", b"\x7fELF"))
    assert made == {
        "default": ("nop", None),
        "linked": linked,
        "source": ("isb", None),
        "same": ("nop", None),
        "none": linked,
    }


def test_an_executable_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.elf").open("wb") as stream:
        stream.truncate((64 << 20) + 1)
    (tmp_path / "s.yaml").write_text("arch: arm64\nfinal: {}\nelf: a.elf\n")
    with pytest.raises(
        ScenarioError, match=r"3:6: `a\.elf` has more than 67,108,864 bytes: that is the limit"
    ):
        load(str(tmp_path / "s.yaml"))


def test_a_case_names_its_own_macros(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "arch: arm64\nfinal: {}\nasm: a\nmacros: {a: nop, b: nop}\n"
        "cases: {one: {macros: {a: isb}}, none: {macros: null, asm: nop}, two: {}}\n"
    )
    cases = {
        case.name: [(macro.name, macro.text) for macro in case.macros]
        for case in load(str(tmp_path / "s.yaml")).cases
    }
    both = [("a", "nop"), ("b", "nop")]
    assert cases == {"default": both, "one": [("a", "isb")], "none": [], "two": both}
