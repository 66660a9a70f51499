"""What is told of a child's fault: by a real one of Python's own, and through the two hosts that
hear of it in other ways.
"""

from __future__ import annotations

import subprocess
import sys

from kvmscen.hosts import host
from kvmscen.hosts.process import crash
from kvmscen.hosts.process.child import ChildError
from kvmscen.hosts.qemu import vm
from kvmscen.hosts.ssh import SshHost

_CODE = """
import ctypes, faulthandler
faulthandler.enable(2, all_threads=False)
def inner(): ctypes.string_at(8)
def outer(): inner()
outer()
"""


def died() -> str:
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", _CODE], capture_output=True, text=True
    ).stderr


def test_the_innermost_stands_first() -> None:
    told = crash.where(died())
    assert told.startswith(" in string_at (__init__.py:")
    assert told.endswith(
        "called by inner (<string>:4), called by outer (<string>:5), called by <module> "
        "(<string>:6)"
    )
    assert crash.where("") == crash.where('Traceback:\n  File "x.py", line 1 in run\n') == ""


def test_a_machine_whose_first_process_dies_is_no_finding() -> None:
    console = (
        died()
        + "[    9.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\n"
    )
    told = vm.why(
        ChildError("the machine of qemu:arm64 exited with status 0", console, 0), "qemu:arm64"
    )
    assert told.startswith("the agent of qemu:arm64 died in string_at (")
    assert "finding" not in told
    assert "Attempted to kill init" in told


def test_ssh_says_so_although_its_own_status_is_that_of_a_lost_connection() -> None:
    made = host("ssh:me@board")
    assert isinstance(made, SshHost)
    told = made.explain(ChildError("the agent of ssh:me@board exited with status 255", died(), 255))
    assert told.startswith("the agent of ssh:me@board died in string_at (")
