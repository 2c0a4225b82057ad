"""What all turns of a relay share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.config import Config
from exporter.exchange import Settings
from exporter.relay.pool import Pool
from exporter.relay.reporter import Reporter

if TYPE_CHECKING:
    from exporter.relay.turn import Turn

BUFFER_LIMIT = 256 * 1024 * 1024
"""Bytes of bodies that may be held for inspection; above it they are sent on unread."""


@dataclass(slots=True)
class Services:
    """Configuration, connections and memory; ``buffered`` is the bytes of bodies held for inspection now."""

    config: Config
    settings: Settings
    pool: Pool
    reporter: Reporter
    turns: "set[Turn]"
    prefix: bytes = b""  # put before every target
    buffered: int = 0
    draining: bool = False
