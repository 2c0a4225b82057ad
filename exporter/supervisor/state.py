"""What is known about relays, engine and drain, and what follows from it for health and readiness. Pure."""

from dataclasses import dataclass, field

from exporter.control import Facts, RelayStatus


@dataclass(slots=True)
class State:
    """Moments are monotonic seconds. ``relays`` has the last status of each relay that is alive and serves."""

    engine: str  # its URL, for people
    engine_up_for: float
    relays: dict[int, RelayStatus] = field(default_factory=dict)
    engine_seen: float | None = None  # the last TCP connect that succeeded
    draining: bool = False
    drained: bool = False
    restarts: dict[str, int] = field(default_factory=lambda: {"relay": 0, "observer": 0})

    def engine_up(self, now: float) -> bool:
        """Whether a connect succeeded lately."""
        return self.engine_seen is not None and now - self.engine_seen <= self.engine_up_for

    def unhealthy(self) -> str | None:
        """Why a restart of the whole would help, or ``None``. The engine is not ours, a drain is no illness."""
        return None if self.relays or self.draining else "no relay is alive"

    def unready(self, now: float) -> str | None:
        """Why no new request should come here, or ``None``."""
        if self.draining:
            return "drained" if self.drained else "draining"
        if not any(relay.accepting for relay in self.relays.values()):
            return "no relay is accepting"
        if self.engine_seen is None:
            return f"no engine at {self.engine} yet"
        if not self.engine_up(now):
            return f"no engine at {self.engine} for {now - self.engine_seen:.0f} s"
        return None

    def in_flight(self) -> int:
        """Requests in all relays, as far as they told."""
        return sum(relay.in_flight for relay in self.relays.values())

    def idle(self) -> bool:
        """Whether no relay accepts or has anything in flight."""
        return not any(relay.accepting or relay.in_flight for relay in self.relays.values())

    def facts(self, now: float) -> Facts:
        """What the observer mirrors."""
        return Facts(
            ready=self.unready(now) is None,
            healthy=self.unhealthy() is None,
            draining=self.draining,
            drained=self.drained,
            upstream_up=self.engine_up(now),
            restarts=dict(self.restarts),
        )
