"""Which conditions of `requires` and `when` a host meets."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kvmscen.scenario import Conditions, Overlay
from kvmscen.sent.facts import Facts


def unmet(conditions: Conditions, facts: Facts, kind: str) -> str | None:
    """The first condition that a host does not meet, as text; None when it meets all."""
    for name in conditions.capabilities:
        if not facts.capabilities.get(name):
            return f"the host has no {name}{other_cpu(name, kind)}"
    if conditions.kernel_from or conditions.kernel_before:
        if facts.kernel is None:
            return "the condition is on the kernel, and this host has none of its own"
        have = _version(facts.kernel)
        if conditions.kernel_from and have < _version(conditions.kernel_from):
            return f"kernel {facts.kernel} is older than {conditions.kernel_from}"
        if conditions.kernel_before and have >= _version(conditions.kernel_before):
            return f"kernel {facts.kernel} is not before {conditions.kernel_before}"
    if conditions.kvm and facts.flavour not in conditions.kvm:
        return (
            f"KVM is {facts.flavour or 'of a flavour that cannot be told'}, not "
            f"{' or '.join(conditions.kvm)}"
        )
    for feature in conditions.cpu:
        if feature not in facts.cpu:
            return f"the CPU has no {feature}{other_cpu(feature, kind)}"
    if conditions.host and kind not in conditions.host:
        return f"the host is {kind}, not {' or '.join(conditions.host)}"
    return None


def undecided(overlays: Iterable[Overlay], facts: Facts, kind: str) -> str | None:
    """Why it cannot be told which overlay applies, where that is so: a flavour of KVM that the host
    does not show.
    """
    for overlay in overlays:
        asked = overlay.conditions
        if unmet(asked, facts, kind) is None:
            return None
        known = facts.flavour is not None or facts.predicted
        if asked.kvm and not known and unmet(asked._replace(kvm=()), facts, kind) is None:
            return (
                f"what is expected is conditional on KVM being {' or '.join(asked.kvm)}, and "
                f"its flavour cannot be told here"
            )
    return None


def _version(text: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", text)
    numbers = list(map(int, match[0].split("."))) if match else []
    while numbers and not numbers[-1]:
        # 6.4 and 6.4.0 are one.
        numbers.pop()
    return tuple(numbers)


# Which of QEMU's processors has what its usual one (boards.BOARDS) lacks.
_CPUS = {"KVM_CAP_ARM_SVE": "a64fx", "sve": "a64fx"}


def other_cpu(name: str, kind: str) -> str:
    """How a host that QEMU boots gets a capability or CPU feature, where one of its processors has
    it.
    """
    cpu = _CPUS.get(name) if kind == "qemu" else None
    return f": add `,cpu={cpu}` to the host's name, as QEMU's {cpu} has it" if cpu else ""
