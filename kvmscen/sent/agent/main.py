"""The agent: Machines in, Observations out, on a machine that has /dev/kvm and python3 3.9 or
newer, and nothing else.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kvmscen.sent import sandbox
from kvmscen.sent.agent.serve import serve
from kvmscen.sent.arch import of_machine
from kvmscen.sent.codec import decode, encode
from kvmscen.sent.errors import IoctlError
from kvmscen.sent.executor.executor import Executor
from kvmscen.sent.executor.session import ARCHES
from kvmscen.sent.facts import Facts
from kvmscen.sent.header.caps import CAPABILITIES
from kvmscen.sent.header.uapi import API_VERSION
from kvmscen.sent.kvm.fds import Kvm
from kvmscen.sent.machine import Machine
from kvmscen.sent.sandbox import policies

_FLAVOURS = {"kvm_pvm": "pvm", "kvm_amd": "svm", "kvm_intel": "vmx"}


# What arm64's KVM says of itself when it starts: "VHE", "Hyp", "Hyp nVHE", "Protected nVHE",
# "VHE+NV2".
_STARTED = re.compile("kvm \\[[0-9]+\\]: (.*)mode initialized successfully")


def _flavour(arch: str, cpu: Sequence[str]) -> str | None:
    """Which KVM this is, by the module that is loaded or by the kernel's log; None where they do
    not tell.
    """
    if arch == "arm64":
        # VHE came with Armv8.1, as did the LSE atomics.
        return _logged() if "atomics" in cpu else "nvhe"
    return next(
        (name for module, name in _FLAVOURS.items() if os.path.isdir(f"/sys/module/{module}")), None
    )


def announced(line: str) -> str | None:
    """vhe or nvhe, where a line of the kernel's log says which of them KVM runs in."""
    match = _STARTED.search(line)
    return None if match is None else "nvhe" if re.search("nVHE|[Hh]yp", match[1]) else "vhe"


def _logged() -> str | None:
    """vhe or nvhe by the kernel's log, as long as that still has its beginning and may be read."""
    try:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        while True:
            try:
                line = os.read(log, 8192).decode("utf-8", "replace")
            except BrokenPipeError:
                continue  # this record was overwritten meanwhile
            if mode := announced(line):
                return mode
    except OSError:
        return None  # no more records
    finally:
        os.close(log)


def _cpu() -> tuple[str, ...]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            return features(lines)
    except OSError:
        return ()


def features(lines: Iterable[str]) -> tuple[str, ...]:
    """The features of the first CPU in the lines of /proc/cpuinfo."""
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return tuple(value.split())
        if key.strip() == "isa":
            # riscv64: rv64imafdch_zicsr_zifencei, one letter each and then longer names.
            letters, *others = value.strip().split("_")
            return (*letters[4:], *others)
    return ()


def facts(kvm: Kvm) -> Facts:
    """What this machine's KVM is."""
    capabilities = {name: kvm.check_extension(number) for name, number in CAPABILITIES.items()}
    arch, cpu = of_machine(os.uname().machine), _cpu()
    return Facts(
        arch,
        os.uname().release,
        {name: value for name, value in capabilities.items() if value > 0},
        os.sysconf("SC_PAGE_SIZE"),
        _flavour(arch, cpu),
        cpu,
        sys.version.split()[0],
    )


def opened() -> Kvm | str:
    """/dev/kvm, or why it cannot be used."""
    try:
        kvm = Kvm()
    except FileNotFoundError:
        return "there is no /dev/kvm (no virtualization, or the kvm module is not loaded)"
    except PermissionError:
        return (
            "no permission to open /dev/kvm (be root, or a member of the group that owns it, "
            "often kvm)"
        )
    except (OSError, IoctlError) as error:
        return f"/dev/kvm cannot be used: {error}"
    version = kvm.ioctl("KVM_GET_API_VERSION")
    if version != API_VERSION:
        return f"/dev/kvm has API version {version}, not {API_VERSION}"
    arch = of_machine(os.uname().machine)
    return kvm if arch in ARCHES else f"the kvm host does not run {arch} yet"


def main(awake: Callable[[], None] = lambda: None, asked: str | None = None) -> None:
    """Serve until the input ends; `awake` is called before what comes is looked at.

    `asked` is how it is confined (kvmscen.sent.sandbox.MODES), by default the command line's first
    argument, or the environment's. `timing` behind a comma leaves system calls unfiltered, since a
    filter's time would be in every figure; `effects` lets a guest have capabilities that reach
    beyond its VM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked, *others = (asked or (sys.argv[1] if len(sys.argv) > 1 else sandbox.mode())).split(",")
    kvm = opened()
    if isinstance(kvm, str):
        serve({"unusable": kvm}, lambda request: {"broke": str(kvm)})
        return
    known = facts(kvm)
    executor = Executor(kvm, known.flavour, "effects" in others)

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        return {"observation": encode(executor.execute(decode(Machine, request["machine"])))}

    # What Python would import at some time in the life of an agent: afterwards it can open no file.
    import tokenize  # noqa: F401

    if "timing" in others:
        import kvmscen.sent.executor.timed  # noqa: F401
    held = policies.confine(policies.AGENT, filtered="timing" not in others, asked=asked)
    # Whoever waits for its answers sees by that how slow this machine is.
    spent = time.process_time()
    serve({"facts": [encode(known)], "sandbox": encode(held), "spent": spent}, handle, awake)
