"""The real daemon, which ails on cue: `python -m support.ailing_daemon run …`.

SIGUSR1 blocks its event loop for `BLOCK` seconds. Once the file $AILING_INTAKE exists, intakes end. What counts as a
block, and for how long, is short, so that a test sees an illness come and go. Nothing else differs from
`python -m tablefeed`.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

from tablefeed import pulse
from tablefeed.cli.app import main
from tablefeed.intake import Intake

BLOCK = 0.6


def started(intake: Path) -> dict[str, Any]:
    """What `running_daemon` needs to start this program; intakes end when the file `intake` is there."""
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
    return {
        "program": ("-m", "support.ailing_daemon"),
        "environ": {"PYTHONPATH": path, "AILING_INTAKE": str(intake)},
    }


def _main() -> None:
    pulse.BEAT, pulse.SLOW, pulse.WINDOW, pulse.OVERDUE = 0.05, 0.3, 4.0, 1.0
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(BLOCK))
    sleep, cue = Intake._sleep, Path(os.environ["AILING_INTAKE"])

    async def sleep_or_end(self: Intake, longest: float) -> None:
        await sleep(self, min(longest, 0.05))
        if cue.exists():
            raise EndUnnoticedError

    run = Intake.run

    async def run_until_cue(self: Intake) -> None:
        try:
            await run(self)
        except* EndUnnoticedError:
            pass

    Intake._sleep = sleep_or_end  # type: ignore[method-assign]
    Intake.run = run_until_cue  # type: ignore[method-assign]
    main()


class EndUnnoticedError(Exception):
    """Ends an intake as a fault in its own code could: without a word."""


if __name__ == "__main__":
    _main()
