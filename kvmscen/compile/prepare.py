"""Prepares one file at a time: to jobs for the hosts that the request names, or to its problems.

It is called in a worker, so that an input which brings the assembler or the YAML parser down names
its file and takes nothing else with it; and so that the main process needs none of their libraries.
"""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import kvmscen
from kvmscen.asm import absent
from kvmscen.asm.gnu import targets
from kvmscen.compile import Plan, budget, plan, ready
from kvmscen.compile.cases import each, laid_out, resolve
from kvmscen.compile.effects import forbidden
from kvmscen.compile.loose import loose
from kvmscen.compile.measure import Sampling
from kvmscen.compile.plan import misassembled
from kvmscen.compile.ready import Ready
from kvmscen.disk import scratch
from kvmscen.errors import Problem, once
from kvmscen.job.job import Job, Target, Wanted, elsewhere
from kvmscen.job.legend import Legend
from kvmscen.load import Loaded, read, read_bytes
from kvmscen.scenario import Case, Scenario
from kvmscen.sent.codec import decode, encode
from kvmscen.sent.machine import Machine
from kvmscen.sent.sandbox import effects_allowed, landlock

Json = dict[str, Any]


class Made(NamedTuple):
    """A job, with its Machine as it is before it is sealed."""

    job: Job
    machine: Machine | None

    def sealed(self) -> Job:
        """The job as it crosses a border."""
        job = self.job
        if self.machine is None:
            return job
        return job._replace(machine=self.machine.seal(f"{job.scenario}:{job.case}"))


class Prepared(NamedTuple):
    """What a file comes to: jobs of the cases that are selected and right, `problems` of what else
    is, the `names` of all cases, and how many `cases` are selected in all; `beside` as of Loaded.
    """

    jobs: list[Made]
    problems: list[Problem]
    names: Sequence[str]
    cases: int
    beside: Mapping[str, tuple[str, bytes]] = {}


class Preparer:
    """Answers requests: `targets` once, then files."""

    def __init__(self) -> None:
        self.targets: tuple[Target, ...] = ()
        self.each = False
        self.assembler: str | None = None
        self.timing: Sampling | None = None
        self._budget = budget.Budget("")
        self._last: tuple[tuple[str, bytes], Loaded] | None = None

    def handle(self, request: Json) -> Json:
        """`{"targets": [...], "each": bool, "assembler", "timing"}`, `{"run": FILE, "text",
        "cases"}`, `{"check": FILE, "assembler"}` or `{"show": FILE, "case", "assembler"}`."""
        if "targets" in request:
            self.targets = tuple(decode(Target, target) for target in request["targets"])
            self.each, self.assembler = request["each"], request["assembler"]
            self.timing = decode(Sampling, request["timing"]) if "timing" in request else None
            return {}
        if "check" in request:
            return _check(request["check"], request["assembler"])
        if "show" in request:
            from kvmscen.compile.show import show

            shown = show(request["show"], request["case"], request["assembler"])
            return {**shown, "problems": told(shown["problems"])}
        return self._run(request)

    def prepare(self, request: Json, raw: bytes | None = None) -> Prepared:
        """The cases of a file that are selected; of these `most` (None: all) from number `first`
        on. `raw` are the file's bytes where they were read already.
        """
        found = self._read(request["run"], raw)
        scenario = found.scenario.assembled_by(self.assembler)

        def wanted(case: Case) -> bool:
            timed = self.timing is None or bool(case.measure)
            return timed and selected(scenario, case, request["text"], request["cases"])

        selected_cases = [case for case in scenario.cases if wanted(case)]
        first, most = request.get("first", 0), request.get("most")
        cases = selected_cases[first : None if most is None else first + most]
        if len(cases) == len(selected_cases):
            self._last = None
        self._budget = budget.Budget(scenario.file)
        jobs, problems = each(scenario.file, cases, lambda case: self._of(scenario, case))
        if first == 0:
            # A case that nobody asked for may be wrong.
            left = {case.name for case in found.wrong if not wanted(case)} | (
                set(found.names) - set(request["cases"] or found.names)
            )
            problems += [
                p for p in _all(found, self.assembler) if not p.cases or not set(p.cases) <= left
            ]
        return Prepared(
            [job for several in jobs for job in several],
            once(problems),
            found.names,
            len(selected_cases),
            found.beside,
        )

    def _run(self, request: Json) -> Json:
        prepared = self.prepare(request)
        return {
            "jobs": [encode(made.sealed()) for made in prepared.jobs],
            "problems": told(prepared.problems),
            "names": prepared.names,
        }

    def _read(self, file: str, raw: bytes | None) -> Loaded:
        """A file as it is read; of one with so many cases that they are asked for in parts, the
        same for each part.
        """
        if raw is None:
            return read(file)
        if self._last is None or self._last[0] != (file, raw):
            self._last = ((file, raw), read_bytes(raw, file))
        return self._last[1]

    def _of(self, scenario: Scenario, case: Case) -> list[Made]:
        targets = list(self._targets(case))
        elsewhere = all(target.of(case.arch) is None for target in targets)
        if elsewhere and case.asm is not None and absent(case.arch, case.assembler):
            # Nobody runs it here, so nobody needs to install an assembler for it.
            return [_job(scenario, case, None, target, self.timing) for target in targets]
        planned = plan(scenario.file, case)
        self._budget.take(case, len(targets) * budget.size(planned))
        if elsewhere:
            resolve(scenario, case, planned)
        made = [_job(scenario, case, planned, target, self.timing) for target in targets]
        # What is expected takes about as much as the script that is in the Machine.
        self._budget.take(case, sum(2 * budget.script(one.machine) for one in made if one.machine))
        return made

    def _targets(self, case: Case) -> Iterable[Target]:
        if self.each:
            return self.targets
        fitting = (target for target in self.targets if target.of(case.arch) is not None)
        return [next(fitting, self.targets[-1])]


def _all(found: Loaded, assembler: str | None) -> list[Problem]:
    """What is wrong in a file, with what is in the programs of cases that could be read although
    other keys are wrong.
    """
    problems = list(found.problems)
    file = found.scenario.file
    places = {(problem.line, problem.column) for problem in found.problems}
    for case in found.wrong:
        if case.asm is not None and (case.asm.place.line, case.asm.place.column) not in places:
            more = misassembled(file, case.assembled_by(assembler))
            # One that right cases share is theirs too, and told with them.
            problems += [problem._replace(cases=(case.name,)) for problem in more]
    return once(problems)


def told(problems: Iterable[Problem]) -> list[Json]:
    """Problems as they go to the main process: each once."""
    return [encode(problem) for problem in once(problems)]


def selected(scenario: Scenario, case: Case, text: str | None, names: Iterable[str]) -> bool:
    """Whether -k and --case take this case: `text` in its file, name, summary or tags; `names` its
    exact name.
    """
    names = list(names)
    if names and case.name not in names:
        return False
    if not text:
        return True
    where = (scenario.file, case.name, case.summary, *case.tags)
    return any(text.lower() in part.lower() for part in where)


def _check(file: str, assembler: str | None) -> Json:
    """`cases`: how many there are, right or wrong, `problems`, and `notes` on what is right and not
    wise.
    """
    found = read(file)
    scenario = found.scenario.assembled_by(assembler)
    made, problems = laid_out(scenario, scenario.cases)
    notes = [note for case, planned in made for note in loose(scenario.file, case, planned)]
    for case, planned in made:
        place = case.program_place
        if planned.legend.note:
            notes.append(
                Problem(scenario.file, place.line, place.column, f"note: {planned.legend.note}")
            )
    notes = list(dict.fromkeys(notes))
    return {
        "cases": len(found.names),
        "problems": told([*problems, *_all(found, assembler)]),
        "notes": told(notes),
    }


def _job(
    scenario: Scenario, case: Case, planned: Plan | None, target: Target, timing: Sampling | None
) -> Made:
    facts = target.of(case.arch)
    skip, machine, expectation = None, None, None
    wanted: tuple[Wanted, ...] = ()
    if facts is None or planned is None:
        skip = elsewhere(case.arch, [known.arch for known in target.facts])
    else:
        made = ready(scenario.file, case, planned, facts, facts.kind, timing)
        if not effects_allowed() and made.skip is None and (why := forbidden(case, facts.kind)):
            made = Ready(why)
        skip, expectation, wanted = made.skip, made.expectation, made.wanted
        machine = made.machine
    job = Job(
        file=scenario.file,
        scenario=scenario.name,
        case=case.name,
        line=case.place.line,
        summary=case.summary,
        arch=case.arch,
        host=target.name,
        kernel=facts.kernel if facts is not None else None,
        flavour=facts.flavour if facts is not None else None,
        predicted=facts is not None and facts.predicted,
        skip=skip,
        machine=None,
        expectation=expectation,
        legend=planned.legend if planned is not None else Legend({}, ()),
        wanted=wanted,
    )
    return Made(job, machine)


def rules(files: Iterable[str], own: Iterable[str]) -> list[landlock.Rule]:
    """What preparing may open: Python, as and ld, the folders of the scenarios and what lies below,
    its own folders.
    """
    kept = [(folder, landlock.OWN) for folder in own]
    # That its own can go at the end, it may remove folders beside them that are empty.
    kept += [(os.path.dirname(folder), landlock.REMOVE_DIR) for folder in own]
    kept += [(os.devnull, landlock.READ_FILE | landlock.WRITE_FILE)]
    root = os.path.dirname(os.path.dirname(os.path.abspath(kvmscen.__file__)))
    paths = sysconfig.get_paths()
    for folder in (
        *sys.path,
        paths["stdlib"],
        paths["platstdlib"],
        paths["purelib"],
        paths["platlib"],
    ):
        # Where kvmscen runs from a checkout, what lies beside its sources is none of its business.
        kept += [(folder, landlock.READ)] if folder and folder != root else []
    kept += [(os.path.join(root, part), landlock.READ) for part in ("kvmscen", "schema")]
    kept += [(folder, landlock.READ_FILE) for folder in targets.FOLDERS]
    for found in filter(None, map(targets.find, targets.TARGETS)):
        kept += targets.rules(found.assembler) + targets.rules(found.linker)
    there: dict[str, None] = {}
    for file in files:
        # A scenario that is a link is read where it points; what lies beside it is looked for where
        # the link lies.
        there[os.path.realpath(os.path.dirname(file) or ".")] = None
        there[os.path.realpath(file)] = None
    return kept + [(path, landlock.READ) for path in there]


def leave() -> None:
    """Whoever asked is dead: end the assembler that runs, and this process, and leave no folder."""
    group = os.getpgrp()
    if group == os.getpid() and os.fork() == 0:
        # Out of the group that it ends.
        os.setsid()
        os.killpg(group, signal.SIGKILL)
        scratch.remove_own()
    os._exit(1)
