"""The prepare child as the main process sees it: told first which files it will be asked for, so
that it can open no others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from kvmscen.disk import scratch
from kvmscen.hosts.process import confinement
from kvmscen.hosts.process.child import Child, Json, python
from kvmscen.hosts.process.patience import Patience, used

# What a start takes of CPU (seconds) where a file has its plain time: twice what it takes on a
# machine of 2020. On a processor that QEMU emulates it takes 4 to 6, and a file of 500 programs for
# GNU as 130 in place of 4.
_START, _SLOWEST = 0.3, 30.0


class PrepareChild(Child):
    """Turns scenario files into jobs. One that is killed leaves what it was at: the folder of an
    assembler.
    """

    def __init__(self, files: Sequence[str]) -> None:
        told = json.dumps({"files": list(files)}).encode()
        super().__init__(
            "the prepare child", python("kvmscen.compile.prepare"), b"%d\n%b" % (len(told), told)
        )
        self.heard = confinement.heard
        # What comes of a file is held against limits of its own, and there are more lines in a
        # program than exits in a run.
        self.doubted = False
        self._slow = 1.0

    def wait_hello(self, seconds: float = 30.0) -> Json:
        """Its first frame. What it took of CPU until then says how slow this machine is: a file has
        its time in proportion.
        """
        new = not self.hello
        hello = super().wait_hello(seconds)
        if new and (process := self.process_id) is not None:
            self._slow = min(max(used(process) / _START, 1.0), _SLOWEST)
        return hello

    def _patience(self, seconds: float) -> Patience:
        return super()._patience(seconds * self._slow)

    def kill(self) -> None:
        """End the process and what it started, and remove what it has left."""
        ended = self.process_id
        super().kill()
        scratch.sweep(ended)
