"""GNU as and ld as the reference: a whole program in one run."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

_PREFIX = {
    "arm64": "aarch64-linux-gnu-",
    "riscv64": "riscv64-linux-gnu-",
    "x86_64": "" if shutil.which("as") else "x86_64-linux-gnu-",
}


def tools(arch: str) -> str:
    """The prefix of the tools for `arch`; skips the test where they are missing."""
    prefix = _PREFIX[arch]
    if not all(shutil.which(prefix + tool) for tool in ("as", "ld", "objcopy")):
        pytest.skip(f"{prefix}as is not installed")
    return prefix


def link(arch: str, bits: int, text: str, places: dict[str, int]) -> dict[str, bytes]:
    """The bytes of the sections named in `places`, each at its address."""
    prefix = tools(arch)
    if arch == "x86_64" and ".att_syntax" not in text:
        text = ".intel_syntax noprefix\n" + text
    if bits == 16:
        text = ".code16\n" + text
    flags = (
        ["-march=armv8.6-a+memtag+sb"] if arch == "arm64" else ["--64" if bits == 64 else "--32"]
    )
    emulation = [] if arch == "arm64" else ["-m", "elf_x86_64" if bits == 64 else "elf_i386"]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "a.s").write_text(text + "\n")
        script = "".join(f"{name} {at:#x} : {{ *({name}) }}\n" for name, at in places.items())
        (base / "a.ld").write_text(
            "SECTIONS {\n" + script + "/DISCARD/ : { *(.note.gnu.property) }\n}\n"
        )
        _run([prefix + "as", *flags, "-o", base / "a.o", base / "a.s"])
        _run([prefix + "ld", *emulation, "-T", base / "a.ld", "-o", base / "a.elf", base / "a.o"])
        result = {}
        for name in places:
            out = base / "out"
            out.unlink(missing_ok=True)
            _run([prefix + "objcopy", "-O", "binary", "-j", name, base / "a.elf", out])
            result[name] = out.read_bytes() if out.exists() else b""
        return result


def each(bits: int, lines: list[str]) -> list[bytes | None]:
    """The bytes of each x86 statement by itself, in Intel syntax, None where as refuses it."""
    prefix = tools("x86_64")
    head = ".intel_syntax noprefix" + f"; .code{bits}" * (bits != 64) + "\n"
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        command = [
            prefix + "as",
            "--64",
            *(["-mtune=generic32"] * (bits != 64)),
            "-o",
            str(base / "a.o"),
            str(base / "a.s"),
        ]

        def run(chosen: list[int]) -> str:
            body = "".join(
                f'.ascii "<<"; .long {index}; .ascii ">>"\n{lines[index]}\n' for index in chosen
            )
            (base / "a.s").write_text(head + body)
            return subprocess.run(command, capture_output=True, text=True, check=False).stderr

        chosen = list(range(len(lines)))
        # The head is line 1, a statement with its mark two lines.
        wrong = {(int(line) - 3) // 2 for line in re.findall(r"a\.s:(\d+): Error", run(chosen))}
        chosen = [index for index in chosen if index not in wrong]
        assert "Error" not in run(chosen)
        _run([prefix + "objcopy", "-O", "binary", "-j", ".text", base / "a.o", base / "a.bin"])
        pieces = re.split(rb"<<(....)>>", (base / "a.bin").read_bytes(), flags=re.DOTALL)
    made = {int.from_bytes(pieces[at], "little"): pieces[at + 1] for at in range(1, len(pieces), 2)}
    return [made.get(index) for index in range(len(lines))]


def _run(command: list[object]) -> None:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
