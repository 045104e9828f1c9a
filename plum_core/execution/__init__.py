"""Stage 2b: untrusted programs against their tests, under confinement; the README here tells how and against whom.

with Executor(workers=2) as executor:
    for verdict in executor.run(programs):
        print(verdict.id, verdict.outcome)
"""

from __future__ import annotations

from plum_core.execution.cache import MemoryCache
from plum_core.execution.cores import share_of_cores
from plum_core.execution.executor import Executor
from plum_core.execution.limits import Limits, SandboxUnavailable
from plum_core.execution.sharing import Counts

__all__ = ["Counts", "Executor", "Limits", "MemoryCache", "SandboxUnavailable", "share_of_cores"]
