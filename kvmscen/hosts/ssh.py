"""The `ssh:` host: another machine's /dev/kvm, through agents sent over the user's own ssh client.

Nothing is installed there but python3. Each agent has a connection of its own: a shared one
(ControlMaster) would start them in 90 ms instead of 250 ms on loopback, but ends all of them when
it breaks, and allows 10. An ssh_config may ask for it.
"""

from __future__ import annotations

import os
import re
import shlex
from functools import partial

from kvmscen.errors import HostError, UsageError
from kvmscen.hosts.process import confinement, crash, pack
from kvmscen.hosts.process.child import Child, ChildError
from kvmscen.hosts.process.children import ChildHost, Json, Starts

USAGE = (
    "write ssh:USER@HOST, ssh:USER@HOST:PORT, or ssh:NAME as in your ssh_config; behind it "
    "maybe ,python=PATH"
)
# No question can be answered here, and nothing of the user's configuration for terminals and
# tunnels may stand in the way. A connection that answers nothing for 15 s has gone.
OPTIONS = (
    "-T",
    "-x",
    "-oBatchMode=yes",
    "-oConnectTimeout=15",
    "-oServerAliveInterval=5",
    "-oServerAliveCountMax=3",
    "-oClearAllForwardings=yes",
    "-oRemoteCommand=none",
)
# sshd refuses some of more than 10 who have not logged in yet (MaxStartups).
_AT_ONCE = 4
# What an agent's start takes of CPU (seconds) where its answers have the plain grace: on a machine
# of 2020 it takes less.
_START, _SLOWEST = 0.5, 30.0
_FAILED = 255  # what ssh exits with when it is ssh itself that failed
_SHELL = {126: "python3 there cannot be run", 127: "there is no python3 there"}
# What ssh says, and what to do about it.
_REMEDIES = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": "its host key is not the one that is known: see that "
    "it is the right machine",
    "Host key verification failed": "its host key is not known: connect once by hand, `ssh {to}`, "
    "and accept it",
    "Permission denied": "`ssh {to}` has to work without a question: give ssh a key, in a file or "
    "in ssh-agent",
    "Could not resolve hostname": "is the name right?",
    "Connection refused": "is sshd running there, on that port?",
    "timed out": "is it on, and is the address right?",
    "No route to host": "is it on, and is the address right?",
}


class SshHost(ChildHost):
    """One agent, and one connection, a worker."""

    kind = "ssh"
    # A login on a slow machine, and Python compiling the agent.
    seconds = 60.0

    def __init__(self, name: str) -> None:
        super().__init__(name)
        where, comma, options = name.removeprefix("ssh:").partition(",")
        key, _, self.python = options.partition("=") if comma else ("python", "", "python3")
        match = re.fullmatch(
            r"(?:([^@\s]+)@)?(\[[0-9A-Fa-f:.%\w]+\]|[^@:/\[\]\s]+)(?::([0-9]{1,5}))?", where
        )
        if name == "ssh" or not where:
            raise HostError(f"ssh needs a machine: {USAGE}")
        if match is None or where.startswith("-") or int(match[3] or 22) > 65535:
            raise UsageError(f"there is no host {name!r}: {USAGE}")
        if key != "python" or not self.python:
            raise UsageError(f"host {name}: {options!r} is no option of it: {USAGE}")
        user, host, port = match.groups()
        self.to = [*(["-p", port] if port else []), (f"{user}@" if user else "") + host.strip("[]")]
        self.starts = Starts(_AT_ONCE)
        self._slow = 1.0

    def take(self, hello: Json) -> None:
        """Take the facts from the agent's hello, and how slow its machine is."""
        super().take(hello)
        spent = hello.get("spent")
        if isinstance(spent, int | float) and spent > _START:
            self._slow = min(spent, _START * _SLOWEST) / _START

    def grace(self) -> float:
        """In proportion to how slow that machine is: whether its CPUs were busy is not to be seen
        from here.
        """
        return super().grace() * self._slow

    def child(self) -> Child:
        """One agent, not started yet. KVMSCEN_SSH is the ssh client to use, with options of its
        own.
        """
        try:
            client = shlex.split(os.environ.get("KVMSCEN_SSH", "")) or ["ssh"]
        except ValueError as error:
            raise HostError(f"KVMSCEN_SSH is not a command: {error}") from None
        *port, to = self.to
        there = f"{command(self.python)} {confinement.asked(self.timing)}"
        child = Child(
            f"the agent of {self.name}",
            [*client, *OPTIONS, *port, "--", to, there],
            pack.greeting(),
        )
        child.heard = partial(confinement.heard, where=self.name)
        return child

    def explain(self, error: ChildError) -> str:
        """What ssh, the shell or Python there said, and what to do about it."""
        lines = [line.strip() for line in error.tail.splitlines() if line.strip()]
        if place := crash.where(error.tail):
            return f"the agent of {self.name} died{place}"
        last = f": {lines[-1]}" if lines else ""
        if lines and lines[-1].startswith(pack.OLD):
            return lines[-1]
        if error.status in _SHELL:
            return (
                f"{_SHELL[error.status]} (it needs 3.9 or newer){last}; name one by "
                f"ssh:...,python=PATH"
            )
        if error.status != _FAILED:
            return str(error) + last
        for said, remedy in _REMEDIES.items():
            line = next((line for line in lines if said in line), None)
            if line is not None:
                return (
                    f"ssh: {line.removeprefix('ssh: ').rstrip('.')}; "
                    f"{remedy.format(to=shlex.join(self.to))}"
                )
        return (
            f"the connection ended, or the agent there was killed{last or '; ssh does not say why'}"
        )


def command(python: str) -> str:
    """What the login shell there gets, be it sh, csh or fish: one line without a sign that means
    something between quotes.
    """
    return (
        f"exec {shlex.quote(python)} -I -S -c 'exec(bytes.fromhex(\"{pack.BOOT.encode().hex()}\"))'"
    )
