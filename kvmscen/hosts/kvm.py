"""The `kvm` host: this machine's /dev/kvm, through the agent in a child process."""

from __future__ import annotations

import sys

from kvmscen.agent import pack
from kvmscen.hosts.child import Child


def child() -> Child:
    """One agent, not started yet."""
    return Child("the agent of kvm", [sys.executable, "-I", "-S", "-c", pack.BOOT], pack.greeting())
