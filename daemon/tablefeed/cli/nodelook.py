"""What a fleet's ledger tells of the node that a configuration is for."""

from tablefeed.cli.whereabouts import Whereabouts
from tablefeed.ledger.muster import Standing
from tablefeed.ledger.records import opened


def standing_of(place: Whereabouts) -> Standing | None:
    """The node and whether it lives; None: none of that name ever registered. Raises LedgerUnusable."""
    with opened(place.url) as records:
        return records.standing(place.node)
