"""What a host is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Facts(NamedTuple):
    """What a host is, for one architecture that it runs.

    `kind` is kvm, model, qemu or ssh, `predicted` whether no KVM runs there. `kernel` is its `uname
    -r` (None: a model of no named kernel), `capabilities` maps KVM_CAP_ names to what
    KVM_CHECK_EXTENSION gave (only those above 0), `flavour` is pvm, svm, vmx, vhe, nvhe or None
    where it cannot be told, `cpu` the CPU feature names of /proc/cpuinfo.
    """

    arch: str
    kernel: str | None
    capabilities: Mapping[str, int]
    page_size: int = 4096
    flavour: str | None = None
    cpu: tuple[str, ...] = ()
    agent: str = ""
    kind: str = ""
    predicted: bool = False
