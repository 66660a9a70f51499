"""The `kvm` host: this machine's /dev/kvm, through the agent in a child process."""

from __future__ import annotations

import os
import sys

from kvmscen.errors import UsageError
from kvmscen.hosts.process import confinement, pack
from kvmscen.hosts.process.child import Child
from kvmscen.hosts.process.children import ChildHost
from kvmscen.sent.arch import of_machine


class KvmHost(ChildHost):
    """One agent a worker."""

    kind = "kvm"
    archs = (of_machine(os.uname().machine),)

    def __init__(self, name: str) -> None:
        if name != "kvm":
            raise UsageError(f"there is no host {name!r}; did you mean kvm?")
        super().__init__(name)

    def child(self) -> Child:
        """One agent, not started yet."""
        argv = [sys.executable, "-I", "-S", "-c", pack.BOOT, confinement.asked(self.timing)]
        child = Child("the agent of kvm", argv, pack.greeting(compiled=True))
        child.heard = confinement.heard
        return child
