"""Every interval that the supervisor lives by and that is no option, in seconds."""

from dataclasses import dataclass

from exporter.config import Config


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Intervals in seconds; tests make them short."""

    probe_every: float = 2.0  # a TCP connect to the engine
    probe_within: float = 1.0
    engine_up_for: float = 10.0  # after the last connect that succeeded
    backoff_first: float = 0.1  # before a child is started again; doubles
    backoff_last: float = 5.0
    settled_after: float = 30.0  # a life this long starts the backoff anew
    reconnect_after: float = 1.0  # a relay's channel ended and the observer lives
    ready_within: float = 30.0  # from a start to Ready, else the child is killed
    first_starts: int = 5  # a child that never was Ready after so many is given up, and everything with it
    drain_begins_within: float = 10.0  # how long /-/drained waits for a drain to begin
    abort_within: float = 2.0  # from Abort to the last request gone
    relay_ends_within: float = 3.0  # from Finish to its exit
    observer_ends_within: float = 6.0  # it gives its spans 5 s
    hurried_within: float = 1.0  # instead of the last three after a second signal
    killed_within: float = 5.0  # from SIGKILL to reaped

    def ends_within(self, config: Config) -> float:
        """The longest time from SIGTERM to the exit, in seconds, as long as what is killed dies at once."""
        waits = config.drain_delay + config.drain_timeout
        return waits + self.abort_within + self.relay_ends_within + self.observer_ends_within
