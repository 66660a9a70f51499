"""The `kvm` host: this machine's /dev/kvm, through the agent in a child process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from kvmscen.errors import UsageError
from kvmscen.hosts.process import confinement
from kvmscen.hosts.process.child import Child
from kvmscen.hosts.process.children import ChildHost
from kvmscen.sent.arch import of_machine

Json = dict[str, Any]


class KvmHost(ChildHost):
    """This machine's /dev/kvm. An agent of it is for `measure`: `run` has workers that use it."""

    kind = "kvm"
    archs: tuple[str, ...] | None = (of_machine(os.uname().machine),)

    def __init__(self, name: str) -> None:
        if name != "kvm":
            raise UsageError(f"there is no host {name!r}; did you mean kvm?")
        super().__init__(name)
        # What says what this machine is, where the guests run in workers and no agent is needed.
        self.hello: Callable[[], Json] | None = None

    def start(self) -> None:
        """An agent, unless workers run the guests."""
        if self.hello is None:
            super().start()

    def wait(self) -> None:
        """The facts, of an agent or of the workers."""
        if self.hello is None:
            super().wait()
        else:
            self.take(self.hello())

    def child(self) -> Child:
        """One agent, not started yet."""
        from kvmscen.hosts.process import pack  # here, since workers need no agent

        argv = [sys.executable, "-I", "-S", "-c", pack.BOOT, confinement.asked(self.timing)]
        child = Child("the agent of kvm", argv, pack.greeting(compiled=True))
        child.heard = confinement.heard
        return child
