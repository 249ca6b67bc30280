"""A group's sleep while it has nothing to do, and the KV that it holds meanwhile."""

from simpod.engine.clock import PLAN, Alarm, Clock


class Idleness:
    """Asleep until somebody pokes; prompts that wait to be pulled are held all the same."""

    __slots__ = ("_clock", "_since_s", "alarm", "kv_token_s")

    def __init__(self, clock: Clock) -> None:
        self.alarm: Alarm | None = None
        """While it is asleep."""
        self.kv_token_s = 0.0
        """Integral of the KV in use over idle time."""
        self._clock = clock
        self._since_s = 0.0

    def begin(self) -> Alarm:
        """Fall asleep; the alarm goes off when the group is woken."""
        self.alarm = Alarm()
        self._since_s = self._clock.now
        return self.alarm

    def tally(self, kv_tokens: int) -> None:
        """Before `kv_tokens` change: add up what was held until now."""
        if self.alarm is not None:
            now_s = self._clock.now
            self.kv_token_s += (now_s - self._since_s) * kv_tokens
            self._since_s = now_s

    def wake(self, kv_tokens: int) -> None:
        """Plan at this instant."""
        alarm = self.alarm
        if alarm is not None:
            self.tally(kv_tokens)
            self.alarm = None
            self._clock.arm(alarm, self._clock.now, PLAN)
