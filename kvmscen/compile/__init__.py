"""From a case as written to what a host is told and what must be seen.

`plans(scenario, cases)` lays out every case of a file, `plan(case)` one: image, symbols and layout,
whatever the host. `ready(case, plan, facts)` once a host: its conditions and capabilities. None of
them knows a host beyond its Facts.
"""

from kvmscen.compile.cases import plan, plans
from kvmscen.compile.plan import Plan
from kvmscen.compile.ready import ready

__all__ = ["Plan", "plan", "plans", "ready"]
