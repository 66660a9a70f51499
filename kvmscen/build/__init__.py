"""From a case as written to what a host is told and what must be seen.

`plan(case)` once: the image, symbols and layout, whatever the host. `ready(case, plan, host)` once a host: its conditions and
capabilities. Neither knows a host beyond its Facts.
"""

from kvmscen.build.plan import Plan, plan
from kvmscen.build.ready import ready

__all__ = ["Plan", "plan", "ready"]
