"""Which as and ld there are for an architecture, and what a process must keep that will start
them.
"""

from __future__ import annotations

import os
import platform
import shutil
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from kvmscen.sent.sandbox import landlock

# Where shared libraries lie.
FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_PT_INTERP = 3


class Target(NamedTuple):
    """An architecture's binutils. `options` are as's by the mode's width in bits, `prologue` what
    stands before every program.

    `machines` are those whose plain `as` is of this architecture. `align` is that of instructions,
    in bytes.
    """

    machines: tuple[str, ...]
    prefix: str
    package: str
    options: dict[int, tuple[str, ...]]
    emulation: str
    align: int = 1
    prologue: dict[int, str] = {}


_RISCV = (
    "-march=rv64gch_zba_zbb_zbc_zbs_zbkb_zbkc_zbkx_zknd_zkne_zknh_zksed_zksh_zicbom_zicbop_zicboz"
    "_zihintpause_zawrs_svinval_zfh_v"
)
# Binutils know more instructions than one CPU has: a guest may ask what happens at any of them.
# 32- and 16-bit x86 code is assembled into 64-bit ELF, so that it can change mode and lie anywhere.
TARGETS = {
    "arm64": Target(
        ("aarch64", "arm64"),
        "aarch64-linux-gnu-",
        "binutils-aarch64-linux-gnu",
        {64: ("-march=all",)},
        "aarch64linux",
        4,
    ),
    "riscv64": Target(
        ("riscv64",),
        "riscv64-linux-gnu-",
        "binutils-riscv64-linux-gnu",
        {64: ("-mno-relax", _RISCV)},
        "elf64lriscv",
        2,
    ),
    "x86_64": Target(
        ("x86_64", "amd64"),
        "x86_64-linux-gnu-",
        "binutils-x86-64-linux-gnu",
        {64: ("--64",), 32: ("--64", "-mtune=generic32"), 16: ("--64", "-mtune=generic32")},
        "elf_x86_64",
        1,
        {
            64: ".intel_syntax noprefix",
            32: ".intel_syntax noprefix; .code32",
            16: ".intel_syntax noprefix; .code16",
        },
    ),
}


class Tools(NamedTuple):
    """The paths of as and ld for one target."""

    target: Target
    assembler: str
    linker: str


@lru_cache(maxsize=8)
def find(arch: str) -> Tools | None:
    """as and ld for an architecture, None where they are not on PATH."""
    target = TARGETS[arch]
    native = platform.machine().lower() in target.machines
    for prefix in ("", target.prefix) if native else (target.prefix,):
        assembler, linker = shutil.which(prefix + "as"), shutil.which(prefix + "ld")
        if assembler and linker:
            return Tools(target, assembler, linker)
    return None


def package(arch: str) -> str:
    """The Debian package that has as and ld for an architecture on this machine."""
    target = TARGETS[arch]
    return "binutils" if platform.machine().lower() in target.machines else target.package


def absent(arch: str) -> str:
    """The message where as and ld are not installed."""
    return f"no GNU as for {arch} is installed here: apt install {package(arch)}"


def rules(program: str) -> tuple[landlock.Rule, ...]:
    """What a process must keep that will start `program`: to run it and its loader, and to read
    libraries.
    """
    interpreter = loader(program)
    folders = tuple((folder, landlock.READ_FILE) for folder in FOLDERS)
    return (
        (program, landlock.RUN),
        *(((interpreter, landlock.RUN), *folders) if interpreter else ()),
    )


@lru_cache(maxsize=8)
def loader(program: str) -> str | None:
    """The dynamic loader that an ELF file names, None where it needs none, or is no ELF file."""
    with Path(program).open("rb") as stream:
        header = stream.read(64)
        if header[:5] != b"\x7fELF\x02":
            return None
        at, size, count = (
            int.from_bytes(header[start : start + n], "little")
            for start, n in ((32, 8), (54, 2), (56, 2))
        )
        stream.seek(at)
        table = stream.read(size * count)
        for entry in (table[n * size : (n + 1) * size] for n in range(count)):
            if int.from_bytes(entry[:4], "little") == _PT_INTERP:
                stream.seek(int.from_bytes(entry[8:16], "little"))
                return os.fsdecode(
                    stream.read(int.from_bytes(entry[32:40], "little")).rstrip(b"\0")
                )
    return None
