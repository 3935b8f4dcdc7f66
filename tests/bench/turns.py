"""Contenders take turns, so that what disturbs the machine for a while disturbs them all."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from bench.model import Plan, Scale

T = TypeVar("T")


def tell(text: str) -> None:
    """Say how far the benchmark is, to whoever watches it."""
    print(text, file=sys.stderr, flush=True)


async def in_turn(row: int, plan: Plan, contenders: Mapping[str, Callable[[], Awaitable[T]]]) -> dict[str, list[T]]:
    """Measure each contender as often as the plan says, all of them once before any is measured again.

    Each run begins with another one. What the one before has written is on the disk before the next one begins.
    """
    names = list(contenders)
    results: dict[str, list[T]] = {name: [] for name in names}
    for number in range(plan.runs):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            tell(f"row {row}, run {number + 1} of {plan.runs}: {name}")
            if plan.scale is Scale.FULL:
                await asyncio.to_thread(os.sync)
            results[name].append(await contenders[name]())
    return results
