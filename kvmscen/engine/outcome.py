"""What came of one job, as it is told: by a worker to the main process, and by that to whoever
prints and keeps it.
"""

from __future__ import annotations

from typing import NamedTuple

from kvmscen.job.job import Job
from kvmscen.results.result import Result
from kvmscen.sent.facts import Facts


class Telling(NamedTuple):
    """What is wanted of a result besides its line and what differs.

    `whole`: all that was seen, for reports and recordings. `rows`: the story side by side also
    where nothing differs. `observed`: what happened as YAML.
    """

    whole: bool = True
    rows: bool = False
    observed: bool = False


ALL = Telling()


class Outcome(NamedTuple):
    """A result, and what happened as YAML where that is wanted; the facts of its host (None where
    no host fits).
    """

    result: Result
    observed: str | None = None
    facts: Facts | None = None


def outcome(job: Job, result: Result, telling: Telling) -> Outcome:
    """A result as it is told."""
    text = None
    if telling.observed and job.legend is not None and job.expectation is not None:
        from kvmscen.author.observed import observed  # here, since few ask for it

        text = observed(result, job.legend, job.expectation)
    if telling.rows:
        from kvmscen.judge.verdict import told  # here, since most runs do not ask for it

        result = told(job, result)
    if not telling.whole and (seen := result.observation) is not None:
        bare = seen._replace(events=(), regs={}, memory={}, exception=None)
        result = result._replace(observation=bare, sources=(), memory={})
    return Outcome(result, text)
