"""Run a command on a kernel that seems to lack something: `without.py landlock|seccomp COMMAND...`,
by a filter.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

# By `uname -m`: the number of prctl; Landlock has one number everywhere.
PRCTL = {"x86_64": 157, "aarch64": 167, "riscv64": 167}
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ENOSYS, _EINVAL = 0x7FFF0000, 0x50000 | 38, 0x50000 | 22
# prctl's first argument PR_SET_SECCOMP.
_SET_SECCOMP = 22


def take_away(what: str) -> None:
    """From here on this process, and what it starts, finds no `what` in the kernel."""
    if what == "landlock":
        code = [
            (_LOAD, 0, 0, 0),
            (_EQUAL, 0, 1, 444),
            (_RETURN, 0, 0, _ENOSYS),
            (_RETURN, 0, 0, _ALLOW),
        ]
    else:
        number = PRCTL[os.uname().machine]
        code = [
            (_LOAD, 0, 0, 0),
            (_EQUAL, 0, 3, number),
            (_LOAD, 0, 0, 16),
            (_EQUAL, 0, 1, _SET_SECCOMP),
        ]
        code += [(_RETURN, 0, 0, _EINVAL), (_RETURN, 0, 0, _ALLOW)]
    raw = b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
    held = ctypes.create_string_buffer(raw, len(raw))
    filters = ctypes.create_string_buffer(
        struct.pack("=HxxxxxxQ", len(code), ctypes.addressof(held))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    assert libc.prctl(38, ctypes.c_ulong(1), zero, zero, zero) == 0
    assert libc.prctl(_SET_SECCOMP, ctypes.c_ulong(2), ctypes.byref(filters), zero, zero) == 0


if __name__ == "__main__":
    for name in sys.argv[1].split(","):
        take_away(name)
    os.execvp(sys.argv[2], sys.argv[2:])
