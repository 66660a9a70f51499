"""A real sshd on loopback, run by whoever runs the tests, with keys and a port of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
MISSING = "needs an sshd to log in to (Debian: openssh-server and openssh-client)"
HAS = bool(SSHD and shutil.which("ssh") and shutil.which("ssh-keygen"))


class Sshd:
    """One server. `ssh` is a client's command line that knows its host key and has a key to log in
    with.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.config = ""
        self.process: subprocess.Popen[bytes] | None = None
        for name in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
            )
        shutil.copy(folder / "user.pub", folder / "authorized")
        self.know((folder / "host.pub").read_text())
        self.ssh = (
            f"ssh -F none -oUserKnownHostsFile={folder}/known -oIdentityFile={folder}/user "
            f"-oIdentitiesOnly=yes"
        )

    def know(self, key: str) -> None:
        """Let the client know this public key as the server's."""
        (self.folder / "known").write_text(f"[127.0.0.1]:{self.port} {key}")

    @property
    def name(self) -> str:
        """For --on."""
        return f"ssh:127.0.0.1:{self.port}"

    def start(self, *more: str, path: str | None = None) -> Sshd:
        """Serve; `more` are lines of sshd_config, `path` is the PATH of a login."""
        if os.geteuid() == 0:
            # Made when the machine boots, where it is one.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        lines = (
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.folder}/host",
            f"AuthorizedKeysFile {self.folder}/authorized",
            "StrictModes no",
            "UsePAM no",
            "PidFile none",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            # A home of its own: what stands in a real .bashrc may take long, and take ill to being
            # killed.
            f"SetEnv HOME={self.folder}" + (f" PATH={path}" if path else ""),
            *more,
        )
        (self.folder / "conf").write_text("\n".join(lines) + "\n")
        with open(self.folder / "log", "ab") as log:
            assert SSHD is not None
            self.process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", self.folder / "conf"], stderr=log, start_new_session=True
            )
        end = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                assert time.monotonic() < end, (self.folder / "log").read_text()
                assert self.process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.02)

    def python(self, code: str) -> str:
        """A `python3` to have there that is a program of ours; argv[4] is the agent's BOOT."""
        path = self.folder / "bin" / "python3"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{sys.executable} -IS\nimport os, sys\n{code}\n")
        path.chmod(0o755)
        return f"{self.name},python={path}"

    def sessions(self) -> list[int]:
        """The processes of the logins: what a connection that breaks ends."""
        assert self.process is not None
        return children(self.process.pid)

    def agents(self) -> list[int]:
        """What the logins have started."""
        return [pid for pid in descendants(self.sessions()) if b"fromhex" in command_line(pid)]

    def kill_agents(self) -> None:
        """End what the logins have started."""
        for pid in self.agents():
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End it, and what it started, at once."""
        if self.process is None:
            return
        pids = [self.process.pid, *descendants([self.process.pid])]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        self.process = None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(path.parent.name))
    return found


def descendants(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        below = children(pid)
        found += [pid, *descendants(below)]
    return found


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
