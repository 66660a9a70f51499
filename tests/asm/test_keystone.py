"""Keystone reads numbers in the base that its memory happens to hold: what is assembled must not
depend on it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# Memory that holds nothing but 16 is given back just before an engine is opened, and is what that
# engine finds.
POISONED = """
import ctypes, sys
import keystone
from kvmscen.asm.keystone.encoder import encode

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def poison():
    held = []
    for size in range(64, 2048, 16):
        for _ in range(10):
            held.append(libc.malloc(size))
            ctypes.memmove(held[-1], (16).to_bytes(4, "little") * (size // 4), size)
    for at in held:
        libc.free(at)

poison()
print(bytes(keystone.Ks(*eval(sys.argv[1])).asm(sys.argv[3])[0]).hex())
poison()
print(encode(sys.argv[2], sys.argv[3]).hex())
"""


@pytest.mark.parametrize(
    ("raw", "mode", "text", "wrong", "right"),
    [
        ("keystone.KS_ARCH_ARM64, 0", "arm64", "mov x0, #10", "000280d2", "400180d2"),
        (
            "keystone.KS_ARCH_X86, keystone.KS_MODE_64",
            "x64",
            "mov eax, 12",
            "b812000000",
            "b80c000000",
        ),
        (
            "keystone.KS_ARCH_X86, keystone.KS_MODE_32",
            "x32",
            "mov eax, 12",
            "b812000000",
            "b80c000000",
        ),
        ("keystone.KS_ARCH_X86, keystone.KS_MODE_16", "x16", "mov ax, 12", "b81200", "b80c00"),
    ],
    ids=["arm64", "x64", "x32", "x16"],
)
def test_numbers_are_decimal_whatever_the_memory_held(
    raw: str, mode: str, text: str, wrong: str, right: str
) -> None:
    pytest.importorskip("keystone")
    done = subprocess.run(
        [sys.executable, "-c", POISONED, raw, mode, text],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    # Did Keystone itself read it right, this test would show nothing, and what it is for could go.
    assert done.stdout.split() == [wrong, right], done.stderr


def test_an_engine_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("keystone")
    from kvmscen.asm.keystone import encoder
    from kvmscen.asm.values import Wrong

    # No radix gives these bytes: memory that happens to hold 16 would make b"\xb0\x10" right.
    monkeypatch.setitem(encoder._TEN, "x86", ("mov al, 10", b"\xff\xff"))
    monkeypatch.setattr(encoder, "_local", type(encoder._local)())
    with pytest.raises(
        Wrong, match="Keystone reads 10 as sixteen in this process: use --assembler gnu"
    ):
        encoder.engine("x64")
