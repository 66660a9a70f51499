"""Landlock (landlock(7), Linux 5.13 on): a process gives up the right to open files, but for those
that a rule names.

Python's standard library does not have it, and no package for it is kept well enough to depend on;
the agent could not use one anyway. Rights that a kernel does not know are left out, so an older
kernel confines less, never wrongly.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

# The same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15

# By the ABI's version from 1: how many bits of rights on files the kernel knows, on TCP ports, and
# kinds of scope. The last row holds for all that come.
_ABIS = ((13, 0, 0), (14, 0, 0), (15, 0, 0), (15, 2, 0), (16, 2, 0), (16, 2, 2))
_ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

READ = READ_FILE | READ_DIR
RUN = READ_FILE | EXECUTE
# Make, write and remove files and folders there.
OWN = READ | WRITE_FILE | TRUNCATE | MAKE_REG | MAKE_DIR | REMOVE_FILE | REMOVE_DIR

Rule = tuple[str, int]

_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def abi() -> int:
    """The version of the kernel's Landlock, 0 where it has none or it is switched off."""
    try:
        return max(0, _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION)))
    except OSError:
        return 0


def ruleset(version: int, rules: Iterable[Rule]) -> int:
    """A descriptor of what stays allowed: (path, rights) each, of a file or of all beneath a
    folder; nothing else may be opened.

    A path that is not there gives no right. TCP, abstract sockets and signals to others are refused
    where the kernel can do that. Raises OSError.
    """
    on_files, on_ports, scopes = _ABIS[min(version, len(_ABIS)) - 1]
    handled = (1 << on_files) - 1
    attributes = struct.pack("=QQQ", handled, (1 << on_ports) - 1, (1 << scopes) - 1)
    # An older kernel refuses a longer structure, even one with zeroes behind what it knows being
    # only tolerated later.
    attributes = attributes[: 24 if scopes else 16 if on_ports else 8]
    ruleset = _call(
        _CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0)
    )
    try:
        for path, rights in rules:
            _add(ruleset, path, rights & handled)
    except OSError:
        os.close(ruleset)
        raise
    return ruleset


def _add(ruleset: int, path: str, rights: int) -> None:
    try:
        at = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(at).st_mode):
            rights &= _ON_FILES
        _call(
            _ADD_RULE,
            ctypes.c_int(ruleset),
            ctypes.c_int(_PATH_BENEATH),
            struct.pack("=Qi", rights, at),
            ctypes.c_uint32(0),
        )
    finally:
        os.close(at)


def restrict(ruleset: int) -> None:
    """Confine this thread, and all that it starts from now on. It must have given up new privileges
    before. Raises OSError.
    """
    _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
