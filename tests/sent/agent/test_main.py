"""What the agent reads of the machine that it is on."""

from __future__ import annotations

import pytest

from kvmscen.sent.agent.main import announced, features


@pytest.mark.parametrize(
    ("line", "mode"),
    [
        ("6,164,1000,-;kvm [1]: VHE mode initialized successfully\n", "vhe"),
        ("6,164,1000,-;kvm [1]: VHE+NV2 mode initialized successfully\n", "vhe"),
        ("6,164,1000,-;kvm [1]: Hyp mode initialized successfully\n", "nvhe"),
        ("6,164,1000,-;kvm [1]: Hyp nVHE mode initialized successfully\n", "nvhe"),
        ("6,164,1000,-;kvm [1]: Protected nVHE mode initialized successfully\n", "nvhe"),
        ("6,163,1000,-;kvm [1]: IPA Size Limit: 44 bits\n", None),
        ("6,163,1000,-;VHE mode initialized successfully\n", None),
    ],
)
def test_the_flavour_of_arm64_by_the_log(line: str, mode: str | None) -> None:
    assert announced(line) == mode


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse2\nbugs\t\t: none\n", ("fpu", "sse2")),
        ("processor\t: 0\nFeatures\t: fp asimd atomics\n", ("fp", "asimd", "atomics")),
        (
            "hart\t\t: 0\nisa\t\t: rv64imh_zicsr_sstc\nmmu\t\t: sv57\n",
            ("i", "m", "h", "zicsr", "sstc"),
        ),
        ("processor\t: 0\n", ()),
    ],
)
def test_features(text: str, found: tuple[str, ...]) -> None:
    assert features(text.splitlines(keepends=True)) == found
