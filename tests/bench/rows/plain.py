"""Row 3: CPU seconds per GiB over plain HTTP."""

from bench.model import Plan, Row
from bench.rows.streams import cpu_per_gib

NUMBERS = (3,)


async def measure(plan: Plan) -> list[Row]:
    """Verified and not, beside curl."""
    return [await cpu_per_gib(plan, 3, tls=False, unverified_limit=1.15, verified_limit=2.6)]
