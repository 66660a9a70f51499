"""The timing loops: their bytes are what assemblers make of the source beside them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from kvmscen import asm
from kvmscen.sent.header import exits
from kvmscen.sent.timing import arm64_loop, loop, riscv64_loop, x86_64_loop

LOOPS = {"x86_64": x86_64_loop, "arm64": arm64_loop, "riscv64": riscv64_loop}
GNU = {
    "x86_64": ("", "--64"),
    "arm64": ("aarch64-linux-gnu-", "-mlittle-endian"),
    "riscv64": ("riscv64-linux-gnu-", "-march=rv64g"),
}


@pytest.mark.parametrize("arch", LOOPS)
def test_gnu_as_makes_these_bytes(arch: str, tmp_path: Path) -> None:
    prefix, flag = GNU[arch]
    if arch == "x86_64" and not shutil.which("as"):
        prefix = "x86_64-linux-gnu-"
    if not shutil.which(prefix + "as"):
        pytest.skip(f"{prefix}as is not installed")
    text = (".intel_syntax noprefix\n" if arch == "x86_64" else "") + LOOPS[arch].SOURCE
    (tmp_path / "a.s").write_text(text)
    subprocess.run([prefix + "as", flag, "-o", "a.o", "a.s"], cwd=tmp_path, check=True, timeout=600)
    subprocess.run(
        [prefix + "objcopy", "-O", "binary", "-j", ".text", "a.o", "a.bin"],
        cwd=tmp_path,
        check=True,
        timeout=600,
    )
    assert (tmp_path / "a.bin").read_bytes() == LOOPS[arch].CODE


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_our_own_assembler_makes_these_bytes(arch: str) -> None:
    pytest.importorskip("keystone")
    made = asm.assemble(arch, 64, asm.Source("loop.s", LOOPS[arch].SOURCE, 1, 1), (), 0)
    (text,) = (section.data for section in made.sections if section.name == ".text")
    assert text == LOOPS[arch].CODE


@pytest.mark.parametrize("module", LOOPS.values(), ids=list(LOOPS))
def test_the_code_is_sent(module: ModuleType) -> None:
    assert module.CODE in loop.CODES.values()


def test_offsets_in_the_source_are_those_of_the_exit_table() -> None:
    at = {field.name: exits.UNION + field.offset for field in exits.BY_NAME["mmio"].fields}
    assert (at["phys_addr"], at["data"], at["len"]) == (32, 40, 48)
    for module in LOOPS.values():
        assert str(loop.ROW_SIZE) in module.SOURCE
