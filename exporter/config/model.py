"""What a configuration is once it is understood: frozen values, durations in seconds, sizes in bytes."""

from dataclasses import dataclass
from typing import Literal

from exporter.config.tracing import Tracing

AccessLog = Literal["off", "bad", "all"]


@dataclass(frozen=True, slots=True)
class Address:
    """A host (name, IPv4 or IPv6 without brackets) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the engine is. ``prefix`` is put before every path: empty, or ``/like/this`` without a final slash."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    prefix: str = ""

    @property
    def address(self) -> Address:
        """The host and port to connect to."""
        return Address(self.host, self.port)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}{self.prefix}"


@dataclass(frozen=True, slots=True)
class LabelHeader:
    """A metric label whose value is taken from a request header (lower case)."""

    label: str
    header: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration of a sidecar.

    ``max_body`` 0 is no limit. ``slow_threshold`` is the time to first token (of an answer that is not streamed: the
    latency) from which on the access log calls a request slow; 0 is never. ``models`` empty: admitted as they prove
    themselves.
    """

    upstream: Upstream
    listen: Address
    web_listen_address: Address
    health_listen_address: Address
    web_config_file: str | None
    engine: str
    connect_timeout: float
    first_token_timeout: float
    idle_timeout: float
    upstream_keepalive: float
    inspect_limit: int
    max_body: int
    models: tuple[str, ...]
    label_headers: tuple[LabelHeader, ...]
    access_log: AccessLog
    slow_threshold: float
    workers: int
    observer_memory: int
    drain_delay: float
    drain_timeout: float
    tracing: Tracing
