"""A group's sleep while it has nothing to do, and the KV that it holds meanwhile."""

from simpod.engine.clock import PLAN, Alarm, Clock


class Idleness:
    """Asleep until somebody pokes; prompts that wait to be pulled are held all the same."""

    __slots__ = ("_alarm", "_clock", "_since_s", "kv_token_s")

    def __init__(self, clock: Clock) -> None:
        self.kv_token_s = 0.0
        """Integral of the KV in use over idle time."""
        self._clock = clock
        self._since_s = 0.0
        self._alarm: Alarm | None = None

    @property
    def is_asleep(self) -> bool:
        """It has nothing to do."""
        return self._alarm is not None

    def begin(self) -> Alarm:
        """Fall asleep; the alarm goes off when the group is woken."""
        self._alarm = Alarm()
        self._since_s = self._clock.now
        return self._alarm

    def tally(self, kv_tokens: int) -> None:
        """Before `kv_tokens` change: add up what was held until now."""
        if self._alarm is not None:
            now_s = self._clock.now
            self.kv_token_s += (now_s - self._since_s) * kv_tokens
            self._since_s = now_s

    def wake(self, kv_tokens: int) -> bool:
        """Plan at this instant; False if it is not asleep."""
        alarm = self._alarm
        if alarm is None:
            return False
        self.tally(kv_tokens)
        self._alarm = None
        self._clock.arm(alarm, self._clock.now, PLAN)
        return True
