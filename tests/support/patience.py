"""How long a test waits for what should happen."""

import asyncio
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds; what waits them out has failed. Long, for a machine may stand still for a while, and short of a hang."""


async def until(condition: Callable[[], object], what: str = "it did not happen", *, pause: float = 0.005) -> None:
    """Wait until a condition holds, with a pause in seconds between two looks; `what` is said where it does not."""
    end = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        assert asyncio.get_running_loop().time() < end, f"{what} (waited {PATIENCE} s)"
        await asyncio.sleep(pause)
