"""The story of one file, where the whole daemon would have to be too lucky to meet it."""

from pathlib import Path
from typing import Any, cast

from support.ledgers import GRANT, Clock, opened, version
from tablefeed.ledger import Want
from tablefeed.model import Order
from tablefeed.pipeline import Pipeline


async def test_a_file_whose_feed_was_removed_after_its_claim_goes_back_as_it_was(tmp_path: Path) -> None:
    """No attempt is counted and its grant stays, for the day on which the feed is there again."""
    unused = cast("Any", None)
    want = [Want("orders", Order.OLDEST, 1)]
    async with opened(tmp_path / "ledger.db") as ledger:
        pipeline = Pipeline(
            {}, ledger, unused, unused, unused, unused, unused, unused, unused,
            wall=Clock(), random=lambda: 0.5, steady=Clock(),
        )  # fmt: skip
        await ledger.enqueue([version()])
        [entry] = await ledger.claim(want)
        await ledger.granted(entry.id, GRANT)
        await pipeline.deliver(entry)
        [again] = await ledger.claim(want)
    assert (again.id, again.attempts, again.grant) == (entry.id, 0, GRANT)
