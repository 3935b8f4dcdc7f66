"""PostgreSQL in the model. All times are seconds."""

from heapq import heapreplace


class Postgres:
    """Cores that take transactions in the order of their arrival, and a log that is flushed for many of them at once.

    Both are worked out at the arrival, so that a transaction needs no event of its own.
    """

    def __init__(self, cores: int, flush: float, wal_rate: float) -> None:
        self._free = [0.0] * cores
        self._flush = flush
        self._wal_rate = wal_rate
        self._begins = self._ends = -1.0
        """Of the last flush."""
        self._assigned = 0.0
        self.transactions = 0
        self.wal = 0.0

    def work(self, now: float, cpu: float) -> float:
        """One transaction that only reads; returns when it has ended."""
        end = max(now, self._free[0]) + cpu
        heapreplace(self._free, end)
        self._assigned += cpu
        self.transactions += 1
        return end

    def commit(self, now: float, cpu: float, wal: float) -> float:
        """One transaction with so many bytes of log; returns when it is durable."""
        ready = self.work(now, cpu)
        self.wal += wal
        if ready > self._begins:
            self._begins = max(ready, self._ends)
            self._ends = self._begins + self._flush
        self._ends += wal / self._wal_rate
        return self._ends

    def busy(self, now: float) -> float:
        """CPU seconds spent until now."""
        return self._assigned - sum(max(0.0, free - now) for free in self._free)
