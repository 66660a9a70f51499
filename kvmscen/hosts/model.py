"""The `model` host: Unicorn and rules of KVM predict the exits, in a child process. `model@6.1` predicts that kernel."""

from __future__ import annotations

import re

from kvmscen.errors import UsageError
from kvmscen.hosts.child import Child, ChildHost, python


class ModelHost(ChildHost):
    """One model a worker; its results are predictions."""

    kind = "model"
    predicted = True

    def __init__(self, name: str) -> None:
        _, at, kernel = name.partition("@")
        if ":" in name or (at and not re.fullmatch(r"\d+(\.\d+)*", kernel)):
            raise UsageError(f"there is no host {name!r}; write model, or model@6.1 for the kernel to predict")
        self.kernel = kernel
        super().__init__(name)

    def child(self) -> Child:
        """One model, not started yet."""
        return Child("the model", python("kvmscen.model.child", self.kernel))
