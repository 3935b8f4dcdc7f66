"""Row 4: CPU seconds per GiB over TLS."""

from bench.model import Plan, Row
from bench.rows.streams import cpu_per_gib

NUMBERS = (4,)


async def measure(plan: Plan) -> list[Row]:
    """Verified and not, beside curl."""
    return [await cpu_per_gib(plan, 4, tls=True, unverified_limit=1.3, verified_limit=2.4)]
