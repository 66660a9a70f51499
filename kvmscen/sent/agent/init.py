"""The first process of a Linux that QEMU boots for the agent: mounts, modules, the line to the
other side, then the agent.

The kernel's command line says `kvmscen=DEVICE`, the device that frames go over. When the agent
ends, so does the machine.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

_MODULES = "/modules"
_MOUNTS = (("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"))
# finit_module(2) has no function in libc.
_FINIT_MODULE = {"aarch64": 273, "riscv64": 273, "x86_64": 313}
_REBOOT = {"off": 0x4321FEDC, "restart": 0x1234567}
# In seconds: longer than a tick of the kernel, so that it stops that meanwhile.
_TICK = 0.02
# How long a device may take to come after its driver is there, in seconds.
_PATIENCE = 20.0


def main() -> None:
    """Set the machine up, serve, and power it off, whatever happens."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        _prepare(libc)
        from kvmscen.sent.agent.main import main as serve

        _wait()
        # This machine is made for the agent, which has to switch it off: nothing in it is a
        # stranger's.
        serve(_awake, "off,effects")
    except BaseException:  # noqa: BLE001 the first process must not end
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    os.sync()
    for how in ("off", "restart"):
        libc.reboot(ctypes.c_int(_REBOOT[how]))
    time.sleep(3600)


def _wait() -> None:
    """Before the agent waits: have the next thing that the kernel's timer is set for be ours.

    QEMU (7.2: vmstate_arm_cpu has GTIMER_PHYS and GTIMER_VIRT alone) saves no EL2 timer of arm64.
    What was set there when a machine was saved never comes when it goes on, and the kernel sets no
    later time. It does when what it waits for is cancelled.
    """
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, _TICK, _TICK)


def _awake() -> None:
    """Cancel it; and sleep for a moment, so that a machine without a timer does not answer, and is
    known by that.
    """
    signal.setitimer(signal.ITIMER_REAL, 0)
    time.sleep(0.001)


def _prepare(libc: ctypes.CDLL) -> None:
    for kind, place in _MOUNTS:
        os.makedirs(place, exist_ok=True)
        if libc.mount(kind.encode(), place.encode(), kind.encode(), 0, None):
            raise OSError(ctypes.get_errno(), f"{kind} cannot be mounted")
    console = os.open("/dev/console", os.O_RDWR | os.O_NOCTTY)
    for fd in (0, 1, 2):
        os.dup2(console, fd)
    names = sorted(os.listdir(_MODULES)) if os.path.isdir(_MODULES) else []
    for name in names:
        fd = os.open(os.path.join(_MODULES, name), os.O_RDONLY)
        if libc.syscall(
            ctypes.c_long(_FINIT_MODULE[os.uname().machine]), ctypes.c_int(fd), b"", ctypes.c_int(0)
        ):
            # A board may lack what a module is for; what the agent then misses it says itself.
            print(f"init: {name}: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        os.close(fd)
    _connect(_device())


def _device() -> str:
    with open("/proc/cmdline", encoding="ascii", errors="replace") as line:
        words = line.read().split()
    return next(word.partition("=")[2] for word in words if word.startswith("kvmscen="))


def _connect(device: str) -> None:
    """Make the device the agent's input and output."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fd = os.open(device, os.O_RDWR | os.O_NOCTTY)
            break
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
    if os.isatty(fd):
        import tty

        tty.setraw(fd)
    os.dup2(fd, 0)
    os.dup2(fd, 1)
