"""The durable record of every file version and the queue of those still open."""

from tablefeed.ledger.ledger import Ledger
from tablefeed.ledger.transitions import Closing, Failure, Want

__all__ = ["Closing", "Failure", "Ledger", "Want"]
