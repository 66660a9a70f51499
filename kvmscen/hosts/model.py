"""The `model` host: Unicorn and rules of KVM predict the exits, in a child process. `model@6.1`
predicts that kernel.
"""

from __future__ import annotations

import re
from typing import Any

from kvmscen.errors import UsageError
from kvmscen.hosts.process import confinement
from kvmscen.hosts.process.child import Child, python
from kvmscen.hosts.process.children import ChildHost
from kvmscen.model import ARCHES, facts
from kvmscen.sent.facts import Facts

Json = dict[str, Any]


class ModelHost(ChildHost):
    """One model a worker; its results are predictions."""

    kind = "model"
    archs = tuple(ARCHES)

    def __init__(self, name: str) -> None:
        _, at, kernel = name.partition("@")
        if ":" in name or (at and not re.fullmatch(r"[0-9]+(\.[0-9]+)*", kernel)):
            raise UsageError(
                f"there is no host {name!r}; write model, or model@6.1 for the kernel to predict"
            )
        self.kernel = kernel
        super().__init__(name)

    def start(self) -> None:
        """Nothing yet: what the model is, is known, and many runs need none."""

    def wait(self) -> None:
        """The facts, without a child."""
        self.facts = tuple(facts(arch, self.kernel or None) for arch in ARCHES)

    def known(self, hello: Json) -> tuple[Facts, ...]:
        """What it is does not depend on the child."""
        return self.facts

    def child(self) -> Child:
        """One model, not started yet."""
        child = Child("the model", python("kvmscen.model.child", self.kernel))
        child.heard = confinement.heard
        return child
