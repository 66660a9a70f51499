"""The policies: what a process of each kind keeps, and how it gives up the rest."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kvmscen.sent.header.actions import REQUESTS
from kvmscen.sent.sandbox import InForce, landlock, mode, require, seccomp
from kvmscen.sent.sandbox.syscalls import CALM, COLUMN, FILES, START

# TCGETS FIOCLEX FIONCLEX FIONBIO TIOCGWINSZ: what Python asks of a descriptor. Others reach into
# drivers.
_IOCTLS = (0x5401, 0x5451, 0x5450, 0x5421, 0x5413)
_THREAD, _NEW_NAMESPACES = 0x10000, 0x7E020080


class Policy(NamedTuple):
    """What a process keeps: system calls by name, checks of their arguments, limits by (resource,
    most).
    """

    calls: tuple[str, ...]
    checks: Mapping[str, seccomp.Check]
    limits: Mapping[str, int]


GIB = 1 << 30
_ALONE: dict[str, seccomp.Check] = {
    "clone": (0, "with", (_THREAD,)),
    "ioctl": (1, "in", _IOCTLS),
    "prlimit64": (0, "in", (0,)),
}
# libc asks by these what a descriptor is; the flag (AT_EMPTY_PATH) says that it is one.
_HELD = ("newfstatat", "statx")
_NOTHING: dict[str, seccomp.Check] = {
    **_ALONE,
    "newfstatat": (3, "with", (0x1000,)),
    "statx": (2, "with", (0x1000,)),
}
# Nothing but what it holds: it opens no file and starts no process.
MODEL = Policy(CALM + _HELD, _NOTHING, {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": 0, "RLIMIT_NOFILE": 64})
# The same, and every ioctl, for /dev/kvm; a descriptor is a vCPU or an eventfd. Machine code passes
# through a memfd.
AGENT = Policy(
    CALM + _HELD,
    {key: check for key, check in _NOTHING.items() if key != "ioctl"},
    {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": 1 << 20, "RLIMIT_NOFILE": 4096},
)
_STARTING: dict[str, seccomp.Check] = {**_ALONE, "clone": (0, "without", (_NEW_NAMESPACES,))}
PREPARE = Policy(
    CALM + FILES + START,
    {**_STARTING, "socketpair": (0, "in", (1,))},
    {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": 256 << 20, "RLIMIT_NOFILE": 256, "RLIMIT_AS": 8 * GIB},
)
# What prepares and runs the guests too: what /dev/kvm and its VMs are asked for.
WORKER = Policy(
    tuple(dict.fromkeys(PREPARE.calls + AGENT.calls)),
    {
        **{key: check for key, check in PREPARE.checks.items() if key != "ioctl"},
        "ioctl": (1, "in", (*REQUESTS.values(), *_IOCTLS)),
    },
    {**PREPARE.limits, "RLIMIT_NOFILE": 4096},
)
# as and ld, and the thread that starts them, from which they have it: so they may start what that
# may, which is themselves.
TOOL = Policy(
    tuple(name for name in CALM if name not in ("memfd_create", "tgkill", "sched_setaffinity"))
    + FILES
    + ("fork", "vfork", "execve", "wait4", "waitid", "pipe", "pipe2", "chdir"),
    _STARTING,
    {},
)


def _limit(limits: Mapping[str, int]) -> None:
    import resource  # here, since the main process needs the names alone

    for name, most in limits.items():
        what = getattr(resource, name)
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(
            what, (most, most) if hard == resource.RLIM_INFINITY or most < hard else (hard, hard)
        )


def load_for_threads() -> None:
    """Load what libc would look for when a thread ends, and end the process without (pthread_exit
    of glibc).
    """
    try:
        ctypes.CDLL("libgcc_s.so.1")
    except OSError:
        pass  # another libc


def means() -> InForce:
    """What this kernel has, none of it used yet."""
    return InForce(landlock.abi(), seccomp.is_there() and os.uname().machine in COLUMN)


def confine(
    policy: Policy,
    rules: Iterable[landlock.Rule] = (),
    filtered: bool = True,
    asked: str | None = None,
) -> InForce:
    """Confine this process for good to `policy` and the files of `rules`, as far as the kernel has
    the means; what now holds it.

    `filtered` False: no filter of system calls. `asked` None is `mode()`; `off` leaves all as it
    is. No other thread may be there yet. Raises HostError where `require` asks for more than the
    kernel has.
    """
    asked = asked or mode()
    if asked == "off":
        return InForce(0, False, True)
    in_force = means()
    if asked == "require":
        require(in_force)
    load_for_threads()
    _limit(policy.limits)
    seccomp.no_new_privileges()
    if in_force.landlock:
        ruleset = landlock.ruleset(in_force.landlock, rules)
        landlock.restrict(ruleset)
        os.close(ruleset)
    if filtered and in_force.seccomp:
        seccomp.install(filter_of(policy))
    return in_force


def filter_of(policy: Policy) -> bytes:
    """The filter of a policy, for this process: it may signal itself."""
    checks = {**policy.checks, "tgkill": (0, "in", (os.getpid(),))}
    return seccomp.program(os.uname().machine, policy.calls, checks)
