"""What each tenant has got of one rank."""

from collections.abc import Iterable

from simpod.engine.sequence import Sequence


class Service:
    """Prompt and output tokens by tenant; those of running decodes are added when asked for."""

    def __init__(self) -> None:
        self._served: dict[int, list[int]] = {}

    def add(self, tenant: int, prompt: int, output: int) -> None:
        """A tenant has got tokens."""
        served = self._served.setdefault(tenant, [0, 0])
        served[0] += prompt
        served[1] += output

    def so_far(self, running: Iterable[Sequence], clock: int) -> dict[int, tuple[int, int]]:
        """Tenant -> prompt and output tokens up to the token clock of the rank's group."""
        total = {tenant: list(tokens) for tenant, tokens in self._served.items()}
        for seq in running:
            if seq.join_clock >= 0:
                total.setdefault(seq.tenant, [0, 0])[1] += clock - seq.join_clock
        return {tenant: (prompt, output) for tenant, (prompt, output) in total.items()}
