"""What the pipeline remembers of its tries, beyond what the ledger keeps. A restart begins anew, on the safe side."""

from collections import Counter

from tablefeed.model import Entry


class Tries:
    """Of feeds, how often they delivered; of open entries, what has been tried."""

    def __init__(self) -> None:
        """Nothing was tried."""
        self._deliveries: Counter[str] = Counter()
        self._deliveries_before: dict[int, int] = {}
        self._refusals: Counter[int] = Counter()
        self._untouched: set[int] = set()

    def granted(self, entry: Entry) -> None:
        """It has got a grant that nobody has used."""
        self._untouched.add(entry.id)

    def sending(self, entry: Entry) -> bool:
        """Its grant is used from now on; returns whether it had not been before."""
        was_untouched = entry.id in self._untouched
        self._untouched.discard(entry.id)
        return was_untouched

    def refused(self, entry: Entry) -> None:
        """It was refused by what may be its own fault."""
        self._refusals[entry.id] += 1

    def failed(self, entry: Entry) -> None:
        """It is to be tried again."""
        self._deliveries_before[entry.id] = self._deliveries[entry.version.feed]

    def delivered(self, entry: Entry) -> None:
        """It was delivered."""
        self._deliveries[entry.version.feed] += 1
        self.closed(entry)

    def closed(self, entry: Entry) -> None:
        """It is not tried any more."""
        self._refusals.pop(entry.id, None)
        self._deliveries_before.pop(entry.id, None)
        self._untouched.discard(entry.id)

    def refusals(self, entry: Entry) -> int:
        """How often it was refused by what may be its own fault."""
        return self._refusals[entry.id]

    def is_untouched(self, entry: Entry) -> bool:
        """Whether no request can have reached the store with its grant."""
        return entry.id in self._untouched

    def feed_works(self, entry: Entry) -> bool:
        """Whether another file of its feed has been delivered since it failed last: counted, as clocks may be set."""
        so_far = self._deliveries[entry.version.feed]
        return so_far > self._deliveries_before.get(entry.id, so_far)
