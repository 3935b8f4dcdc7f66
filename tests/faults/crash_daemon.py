"""The real daemon, started so that it can be killed at a step: `python -m faults.crash_daemon [STEP NTH] run …`.

`hasty`, as the step, kills nothing. In both cases what it waits for after failures is cut short, so that a test sees
many tries in little time. Nothing else differs from `python -m tablefeed`.
"""

import os
import sys
from pathlib import Path
from typing import Any

from faults.crash_steps import STEPS, arm
from tablefeed import http, retry
from tablefeed.cli.app import main

HASTY = "hasty"
LONGEST_DELAY = 3.0
ANSWER_TIMEOUT = 3.0


def started(step: str = HASTY, nth: int = 1, *, environ: dict[str, str] | None = None) -> dict[str, Any]:
    """What `running_daemon` needs to start this program."""
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
    return {
        "program": ("-m", "faults.crash_daemon", step, str(nth)),
        "environ": {"PYTHONPATH": path} | (environ or {}),
    }


def _main() -> None:
    step, nth = sys.argv[1:3]
    del sys.argv[1:3]
    retry.LONGEST_DELAY = LONGEST_DELAY
    http.ANSWER_TIMEOUT = ANSWER_TIMEOUT
    if step != HASTY:
        arm(STEPS[step], int(nth))
    main()


if __name__ == "__main__":
    _main()
