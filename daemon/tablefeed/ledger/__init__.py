"""The durable record of every file version and the queue of those still open."""

from tablefeed.ledger.changes import Closing, Failure
from tablefeed.ledger.claim import Want, comes_first
from tablefeed.ledger.ledger import Ledger
from tablefeed.ledger.queries import Cursor, Kept
from tablefeed.ledger.upkeep import Purge

__all__ = ["Closing", "Cursor", "Failure", "Kept", "Ledger", "Purge", "Want", "comes_first"]
