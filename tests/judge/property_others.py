"""Random known wrong outcomes, and recordings that are held against an edited story: property.py
tries these too.
"""

from __future__ import annotations

import random

import oracle
from random_guests import ending, guest, machine, observed, plain, tampered
from random_stories import loosened, rewritten, story

from kvmscen.errors import HostError
from kvmscen.hosts.retrace import retraced
from kvmscen.job.expectation import Expectation, Story
from kvmscen.job.job import Job
from kvmscen.job.legend import Legend
from kvmscen.judge.trial import Trial
from kvmscen.judge.verdict import judge
from kvmscen.sent.observation import Observation

_LEGEND = Legend({}, ())


def known(seed: int) -> tuple[str, str]:
    """The status of a case with a known wrong outcome, and what is wrong with it ("" if
    nothing).
    """
    choose = random.Random(seed)
    base = story(choose)
    wrong = loosened(choose, base)
    # The host goes by the known wrong outcome; the guest does what one of the two says.
    doing = choose.choice([base, wrong])
    seen = observed(choose, wrong, guest(choose, doing), ending(choose, doing))
    if choose.random() < 0.1:
        seen = tampered(choose, seen)
    job = Job(
        "a.yaml",
        "a",
        "default",
        1,
        "",
        "x86_64",
        "kvm",
        "6.1",
        None,
        False,
        None,
        None,
        Expectation(base, wrong, "so"),
        _LEGEND,
    )
    status = judge(job, seen).status
    told, run = plain(base, seen)
    known_, _ = plain(wrong, seen)
    due = "XPASS" if oracle.passes(told, run) else "XFAIL" if oracle.passes(known_, run) else "FAIL"
    if due in ("XPASS", "XFAIL") and oracle.untried(told, known_, run):
        due = "ERROR" if oracle.passes(known_, run) else "FAIL"
    same = status == due or (status == "ERROR" and due == "FAIL")
    return status, "" if same else f"the judge says {status}, the oracle {due}"


def replayed(seed: int) -> tuple[str, str]:
    """What became of a recording under an edited story (`error`: it cannot be used), and what is
    wrong with that.
    """
    choose = random.Random(seed)
    first = story(choose)
    second = rewritten(choose, first)
    events, final = guest(choose, first), ending(choose, first)
    recorded = observed(choose, first, events, final, 0)
    again = retraced(machine(first), recorded)
    if again != recorded:
        return "same", "a recording is another one under its own story"
    live = observed(choose, second, events, final, 0)
    try:
        found = retraced(machine(second), recorded)
    except HostError:
        return "error", ""
    says, due = _says(second, found), _says(second, live)
    if says == "astray" or (
        says != due and machine(first).seal("a").digest != machine(second).seal("a").digest
    ):
        # A recording of another digest is not taken in the first place.
        return "error", ""
    return says, "" if says == due else f"the replay says {says}, a run {due}"


def _says(told: Story, seen: Observation) -> str:
    trial = Trial(told, seen, _LEGEND, "x86_64", None)
    return "astray" if trial.astray else "pass" if trial.holds() else "not"
