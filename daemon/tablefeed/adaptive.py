"""How many uploads one store takes at a time, found by trying: additive increase, multiplicative decrease. Pure.

What is measured. The time of a whole PUT says nothing: sizes differ a millionfold, and `bandwidth` may hold a body
back. What tells of the store is how long it takes to answer once it has all, and that can be seen for small bodies
alone: the last bytes of a larger one wait in the kernel's buffers for the link. So

- a small body gives the time from its last byte to the head of the answer, unless larger ones were under way: then
  small ones queue behind those on the link, and their times tell of the link
- a larger body says only that the store let it come. That makes room for `LARGE` of them: where those do not fill a
  link, the next ones hardly would, and where they do, more only make each slower
- a refusal for the number of requests (429, 503 and their kin) says the same whatever was sent

What follows. The times with at most `FEW` uploads in flight are the store's usual ones; where none were seen yet, the
limit goes down to that for a round. A round is judged by the median of as many times as there may be uploads, all begun
since the last change. Near the usual, the limit grows: to the double until the first sign of trouble, then by one. Well
above it, the limit falls by a tenth, but not below `FEW`, which overwhelm nobody. Between the two it stays. Where fewer
uploads ran than might, nothing was learnt and nothing changes. A refusal takes a tenth of what was in flight, or the
half when the last cut did not help, down to one upload. It counts only if its request was begun after the last cut, so
that one crowd makes one cut. Where the same height is refused again, growth rests a while, and the longer the more
often: that is what the store takes.

Vector's adaptive request concurrency compares with an average that follows what it measures, which on a store that
queues lets the limit creep upwards with its own delay. The usual times here do not follow: they are measured anew when
few uploads run, which is also where a limit ends up that fell for another reason than its own height.
"""

from dataclasses import dataclass
from enum import Enum
from statistics import fmean, median

SMALL = 64 * 2**10
"""Bytes up to which a body goes into the kernel's buffers at once, so that its last byte is soon on its way."""
START = 8
"""Uploads at a time to begin with."""
FEW = 4
"""Uploads at a time that crowd no store."""
LARGE = 16
"""Uploads of larger files at a time."""
SPARE = 4
"""Uploads that larger files leave to small ones."""
MOST = 64
"""Uploads at a time, at most: of small files the work of this process takes longer than the store's by then."""
GROW_BELOW = 1.25
FALL_ABOVE = 1.5
"""Multiples of the usual time."""
SLACK = 0.010
"""Seconds above the usual that are nothing: so long may other work of this process take."""
DEVIATIONS = 2.5
"""How many times its expected error a round's median may lie higher by chance."""
FEWEST = 8
"""Times that make a median."""
CUT = 0.9
DEEP_CUT = 0.5
REST = 0.5
LONGEST_REST = 30.0
"""Seconds for which the limit does not grow when it was refused where it had been before: at first, and at most."""
_WEIGHT = 0.3
"""Of what was measured last, in the usual time."""


class Outcome(Enum):
    """How an upload ended, or what has become of it so far."""

    COMES = "comes"
    """The store lets the body come."""
    ANSWERED = "answered"
    """The store took it."""
    REFUSED = "refused"
    """The store wants fewer at a time, and says so."""
    FAILED = "failed"
    """Any other end, which tells nothing of the number."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One upload, as it was when it began."""

    round: int
    cuts: int
    """How many rounds and cuts there had been."""
    in_flight: int
    """Uploads to this store, itself included."""
    small: bool
    alone: bool
    """No larger upload was under way, nor is it one."""


class Adaptive:
    """The limit for one store. Moments are seconds of a clock that only grows."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.limit = START
        """Uploads that may run at a time: at least 1, at most `MOST`."""
        self._usual: float | None = None
        """The median time with few uploads in flight, in seconds."""
        self._deviation = 0.0
        """How far single times lie from it, on the average."""
        self._calm: list[float] = []
        self._times: list[float] = []
        """Of this round."""
        self._coming = 0
        """Larger bodies that the store let come in this round."""
        self._round = 0
        self._cuts = 0
        self._answers = 0
        """Since the last cut, to uploads begun after it."""
        self._reached = False
        """As many ran in this round as might."""
        self._peak = 0
        """Uploads at a time in this round."""
        self._doubling = True
        self._rest = 0.0
        self._rest_until = 0.0
        self._refused_at = 0
        """The limit at the last cut."""
        self._larger = 0

    @property
    def has_room_for_larger(self) -> bool:
        """Whether another larger one may begin, as far as those are concerned."""
        return self._larger < LARGE

    def begin(self, size: int, in_flight: int) -> Trial:
        """An upload of `size` bytes begins; `in_flight` run now, itself included.

        `observe` must be told its end.
        """
        small = size <= SMALL
        self._larger += not small
        self._peak = max(self._peak, in_flight)
        self._reached |= in_flight >= self.limit
        return Trial(self._round, self._cuts, in_flight, small, alone=not self._larger)

    def observe(self, trial: Trial, outcome: Outcome, latency: float | None, now: float) -> None:
        """Learn from what has become of an upload.

        `latency`: seconds from the last byte of its body to the head of the answer; None where that is not known.
        """
        if outcome is not Outcome.COMES:
            self._larger -= not trial.small
        match outcome:
            case Outcome.REFUSED if trial.cuts == self._cuts:
                self._cut(trial, now)
            case Outcome.COMES:
                self._coming += not trial.small and trial.round == self._round
            case Outcome.ANSWERED:
                self._answers += trial.cuts == self._cuts
                if latency is not None and trial.alone and not self._larger:
                    self._time(trial, latency)
            case _:
                pass
        self._judge(now)

    def _cut(self, trial: Trial, now: float) -> None:
        height = min(self.limit, max(self._peak, trial.in_flight))
        again = height == self._refused_at and height > 1
        self._rest = min(max(REST, 2 * self._rest), LONGEST_REST) if again else 0.0
        self._rest_until = now + self._rest
        self._refused_at = height
        deep = self._doubling or self._answers < self.limit
        self.limit = max(1, int(height * (DEEP_CUT if deep else CUT)))
        self._doubling = height == 1  # it is not the number that is refused then
        self._cuts += 1
        self._answers = 0
        self._next_round()

    def _time(self, trial: Trial, latency: float) -> None:
        if trial.round == self._round:
            self._times.append(latency)
        if trial.in_flight > FEW:
            return
        self._calm.append(latency)
        if len(self._calm) == FEWEST:
            usual = median(self._calm)
            deviation = fmean(abs(each - usual) for each in self._calm)
            weight = 1.0 if self._usual is None else _WEIGHT
            self._usual = usual * weight + (self._usual or 0.0) * (1 - weight)
            self._deviation = deviation * weight + self._deviation * (1 - weight)
            self._calm.clear()

    def _judge(self, now: float) -> None:
        if len(self._times) >= max(FEWEST, self.limit):
            self._judge_times(now)
        elif self._coming >= max(1, self.limit // 2):
            if self._reached and now >= self._rest_until and self.limit < LARGE + SPARE:
                self._grow(LARGE + SPARE)
            self._next_round()

    def _judge_times(self, now: float) -> None:
        recent = median(self._times)
        if self._reached and self._usual is None:
            self.limit, self._doubling = FEW, True
            self._calm.clear()
        elif self._reached and self._usual is not None:
            chance = max(SLACK, DEVIATIONS * self._deviation / len(self._times) ** 0.5)
            if recent <= self._usual * GROW_BELOW + chance:
                self._usual += min(0.0, recent - self._usual) * _WEIGHT
                if now >= self._rest_until:
                    self._grow(MOST)
            elif self._doubling and self.limit > FEW:
                self._doubling = False
                self.limit = max(FEW, self.limit // 2)
            elif recent > self._usual * FALL_ABOVE + chance and self.limit > FEW:
                self.limit = max(FEW, int(self.limit * CUT))
                self._doubling = self.limit == FEW
        self._next_round()

    def _grow(self, most: int) -> None:
        wanted = self.limit * 2 if self._doubling else self.limit + 1
        self.limit = min(wanted, most)
        self._doubling &= wanted == self.limit

    def _next_round(self) -> None:
        self._times.clear()
        self._coming = 0
        self._reached = False
        self._peak = 0
        self._round += 1
