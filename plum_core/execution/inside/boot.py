"""Entry of a worker process: ``python boot.py '{"channel": fd, "parent": pid, ...}'`` under a clean interpreter.

The zygote is forked first, from an interpreter that has read no job; only then does this process become the judge.
The package's own ``__init__`` files are passed over, because they import what a worker must not carry.
"""

from __future__ import annotations

import json
import os
import sys
import types


def _bare_packages() -> None:
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for name, path in (("plum_core", os.path.dirname(here)), ("plum_core.execution", here)):
        module = types.ModuleType(name)
        module.__path__ = [path]
        sys.modules[name] = module


if __name__ == "__main__":
    _bare_packages()
    from plum_core.execution.inside import worker

    worker.main(json.loads(sys.argv[1]))
