"""A made-up Job and Observation, and the verdict on them."""

from __future__ import annotations

from typing import Any

from walked import walked

from kvmscen.job.expectation import Expectation, Expected, Story
from kvmscen.job.job import Job
from kvmscen.job.legend import Legend
from kvmscen.judge.verdict import judge as judge_walked
from kvmscen.results.result import Result
from kvmscen.sent.machine import Machine, Memslot, Sealed, Vcpu
from kvmscen.sent.observation import Event, Observation

MMIO = Event(0, "exit", "mmio", {"phys_addr": 0x5000, "is_write": True, "len": 8, "data": 0}, 4)
ENOSYS = Event(0, "error", "ENOSYS", {"ioctl": "KVM_RUN"}, 12)
HLT = Event(0, "exit", "hlt", {}, 8)
SHUTDOWN = Event(0, "exit", "shutdown", {}, 8)
TIMEOUT = Event(0, "timeout", "", {"timeout": 5.0}, 8)
NISV = Event(0, "exit", "arm_nisv", {"esr_iss": 0x47, "fault_ipa": 0x5000}, 12)


def story(*kinds: str, **more: Any) -> Story:
    return Story(tuple(Expected(kind, 10 + n, 5) for n, kind in enumerate(kinds)), **more)


RIGHT, WRONG = story("mmio", "hlt"), story("mmio", "error")


def job(expectation: Expectation, arch: str = "arm64") -> Job:
    plan = Vcpu(0, {"arm64": "el1", "x86_64": "long", "riscv64": "s"}[arch], {}, (), ())
    text = Machine(arch, (Memslot(0, 0, 0x1000),), (), (), (plan,)).seal("a:default").text
    sealed = Sealed("a:default", text, "sha256:00", arch, 5.0)
    return Job(
        "a.yaml",
        "a",
        "default",
        1,
        "",
        arch,
        "kvm",
        "6.1",
        None,
        False,
        None,
        sealed,
        expectation,
        Legend({}, ()),
    )


def run(*events: Event, stopped: str = "end", **more: Any) -> Observation:
    return Observation(stopped, events, more.pop("regs", {}), more.pop("memory", {}), 0.25, **more)


def judge(job: Job, seen: Observation) -> Result:
    """The verdict on events that took the steps which they take on a host."""
    assert job.expectation is not None
    story = job.expectation.xfail or job.expectation.story
    return judge_walked(job, seen._replace(events=walked(story, seen.events)))
