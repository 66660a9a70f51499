"""seccomp(2): a process gives up all system calls but those that a list names.

A list of what is allowed, since what the kernel gets next year would be missing from a list of what
is not. What is refused fails with EPERM, and what libc tries first and can do without with ENOSYS;
a call of another instruction set ends the process.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Mapping

from kvmscen.sent.sandbox.syscalls import AUDIT, COLUMN, NUMBERS, WITHOUT

_SET_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_EPERM, _ENOSYS = 1, 38
_LOAD, _EQUAL, _SET, _RETURN, _JUMP = 0x20, 0x15, 0x45, 0x06, 0x05
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16

# What an argument must be: it has none of these bits ("without"), all of these ("with"), or is one
# of these numbers ("in").
Check = tuple[int, str, tuple[int, ...]]

_libc = ctypes.CDLL(None, use_errno=True)

Instruction = tuple[int, int, int, int]


def _return(value: int) -> Instruction:
    return (_RETURN, 0, 0, value)


def _check(check: Check) -> list[Instruction]:
    """Fall out of this at its end where the argument is right, return EPERM where it is not.
    Arguments are 32 bits wide here.
    """
    argument, kind, values = check
    code: list[Instruction] = [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument)]
    if kind == "in":
        for n, value in enumerate(values):
            code.append((_EQUAL, len(values) - n, 0, value & 0xFFFFFFFF))
        code.append(_return(_ERRNO | _EPERM))
    else:
        refused = _return(_ERRNO | _EPERM)
        code += (
            [(_SET, 0, 1, values[0]), refused]
            if kind == "without"
            else [(_SET, 1, 0, values[0]), refused]
        )
    return code


def program(machine: str, allowed: Iterable[str], checks: Mapping[str, Check]) -> bytes:
    """The filter for an architecture (by `uname -m`): `allowed` system calls by name, of some the
    arguments are checked.
    """
    column = COLUMN[machine]
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, AUDIT[machine]),
        _return(_KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for name in allowed:
        number = NUMBERS[name][column]
        if number < 0:
            continue
        inner = [*(_check(checks[name]) if name in checks else ()), _return(_ALLOW)]
        code += [(_EQUAL, 0, len(inner), number), *inner]
    for name in WITHOUT:
        code += [(_EQUAL, 0, 1, NUMBERS[name][column]), _return(_ERRNO | _ENOSYS)]
    code.append(_return(_ERRNO | _EPERM))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def no_new_privileges() -> None:
    """No program that is started gets more rights than this one has (prctl(2),
    PR_SET_NO_NEW_PRIVS). Raises OSError.
    """
    _prctl(_SET_NO_NEW_PRIVS, 1)


def _prctl(option: int, second: object, third: object = 0) -> None:
    second = ctypes.c_ulong(second) if isinstance(second, int) else second
    third = ctypes.c_ulong(third) if isinstance(third, int) else third
    if _libc.prctl(ctypes.c_int(option), second, third, ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends (PR_SET_PDEATHSIG).
    Raises OSError.
    """
    _prctl(1, 9)


def is_there() -> bool:
    """Whether this kernel has filters: asked with one that nobody can read, which says EFAULT where
    they are there.
    """
    _libc.prctl(
        ctypes.c_int(_SET_SECCOMP),
        ctypes.c_ulong(_FILTER),
        None,
        ctypes.c_ulong(0),
        ctypes.c_ulong(0),
    )
    return ctypes.get_errno() in (13, 14)


def install(code: bytes) -> None:
    """Confine this thread, and all that it starts from now on, to what the filter allows. Raises
    OSError.
    """
    held = ctypes.create_string_buffer(code, len(code))
    filters = ctypes.create_string_buffer(
        struct.pack("=HxxxxxxQ", len(code) // 8, ctypes.addressof(held))
    )
    _prctl(_SET_SECCOMP, _FILTER, ctypes.byref(filters))
