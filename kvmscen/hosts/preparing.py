"""The prepare child as the main process sees it: told first which files it will be asked for, so that it can open no others."""

from __future__ import annotations

import json
from collections.abc import Sequence

from kvmscen.disk import scratch
from kvmscen.hosts import confinement
from kvmscen.hosts.child import Child, python


class PrepareChild(Child):
    """Turns scenario files into jobs. One that is killed leaves what it was at: the folder of an assembler."""

    def __init__(self, files: Sequence[str]) -> None:
        told = json.dumps({"files": list(files)}).encode()
        super().__init__("the prepare child", python("kvmscen.prepare"), b"%d\n%b" % (len(told), told))
        self.heard = confinement.heard
        # What comes of a file is held against limits of its own, and there are more lines in a program than exits in a run.
        self.doubted = False

    def kill(self) -> None:
        """End the process and what it started, and remove what it has left."""
        super().kill()
        scratch.sweep()
