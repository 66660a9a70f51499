"""What the cases of one file, or of one part of a long file, may take together: each case carries
its own program, with its lines, and its own steps.
"""

from __future__ import annotations

from kvmscen.compile.plan import Plan
from kvmscen.errors import Problem, ScenarioError
from kvmscen.scenario import Case
from kvmscen.sent.machine import Machine, Step

# Bytes, about, as the JSON that goes to the main process: two for each of a program.
MOST = 192 << 20
_LINE, _SYMBOL, _STEP = 60, 40, 100


class Budget:
    """What is left of it for the cases that come."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._left = MOST
        self._told: Problem | None = None

    def take(self, case: Case, size: int) -> None:
        """Take so much for a case. Raises ScenarioError where it is too much; of all later cases
        with the same problem.
        """
        self._left -= size
        if self._left < 0 and self._told is None:
            message = (
                f"the programs, lines and steps of the cases up to here take more than "
                f"{MOST >> 20} MiB: write several files"
            )
            self._told = Problem(self._file, case.place.line, case.place.column, message)
        if self._told is not None:
            raise ScenarioError([self._told])


def size(planned: Plan) -> int:
    """Bytes of memory that a planned case needs, without its steps."""
    legend = planned.legend
    bytes_ = sum(len(part.data) for part in (*planned.image, *planned.devices))
    lines = sum(len(line.text) for line in legend.lines) + _LINE * (
        len(legend.lines) + len(legend.debug)
    )
    return 2 * bytes_ + lines + _SYMBOL * len(planned.symbols)


def script(machine: Machine) -> int:
    """What the steps of a Machine take, about."""
    return sum(_weight(step) for vcpu in machine.vcpus for step in vcpu.script or ())


def _weight(step: Step) -> int:
    told = sum(len(str(part)) for part in (step.where, step.reply, step.then) if part)
    return _STEP + told + sum(map(_weight, step.steps))
