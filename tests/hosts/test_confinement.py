"""What is made of a child's word on how it is confined: under `require` silence is a refusal."""

from __future__ import annotations

from typing import Any

import pytest

from kvmscen.errors import HostError
from kvmscen.hosts.process import confinement

WHOLE = {"landlock": 4, "seccomp": True}
# A child that is unconfined, or says nothing, or what none of ours says.
SILENT: list[dict[str, Any]] = [
    {},
    {"sandbox": None},
    {"sandbox": []},
    {"sandbox": {}},
    {"sandbox": {"landlock": 0, "seccomp": False, "off": True}},
    {"sandbox": {"landlock": 4}},
    {"sandbox": {"landlock": "4", "seccomp": True}},
    {"sandbox": {"landlock": [4], "seccomp": True}},
    {"sandbox": {"landlock": True, "seccomp": True}},
    {"sandbox": {"landlock": -1, "seccomp": True}},
    {"sandbox": {"landlock": 4, "seccomp": "no"}},
]


@pytest.mark.parametrize("hello", SILENT)
def test_silence_is_refused_where_it_is_required(
    hello: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVMSCEN_SANDBOX", "require")
    with pytest.raises(HostError, match="ssh:pi: the process there does not say that it is con"):
        confinement.heard(hello, "ssh:pi")
    with pytest.raises(HostError, match="a process of this machine does not say"):
        confinement.heard(hello)


@pytest.mark.parametrize("mode", ["auto", "off"])
@pytest.mark.parametrize("hello", SILENT)
def test_it_is_none_elsewhere(
    hello: dict[str, Any], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVMSCEN_SANDBOX", mode)
    confinement.heard(hello, "ssh:pi")


def test_what_is_said_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVMSCEN_SANDBOX", "require")
    confinement.heard({"sandbox": WHOLE})
    with pytest.raises(HostError, match="the kernel there has no Landlock"):
        confinement.heard({"sandbox": {**WHOLE, "landlock": 0}}, "ssh:pi")
    with pytest.raises(HostError, match="this kernel has no seccomp filters"):
        confinement.heard({"sandbox": {**WHOLE, "seccomp": False}})
    # It says why it runs nothing; that is what is told of it.
    confinement.heard({"unusable": "there is no /dev/kvm"})
