"""What a worker does: from the files of a run to results, in a process that main forks.

In come the names of the files and requests; out go what is wrong in a file, and what came of each
of its cases. The main process imports nothing of it but this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any


def load(
    files: Sequence[str], local: bool, cache: str | None
) -> tuple[Callable[[], None], dict[str, Any]]:
    """Import what workers for these files and no others need; what each of them does, and what to
    say of this machine. `local`: they run its /dev/kvm. `cache`: the folder of what was prepared
    before.
    """
    started = time.process_time()
    from kvmscen.worker import worker

    work, hello = worker.loaded(files, local, cache)
    return work, {**hello, "spent": time.process_time() - started}
