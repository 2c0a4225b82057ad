"""A relay that loses patience soon and holds little, so that a test of its limits is over soon too."""

import runpy

from exporter.relay import client, turn

HEAD_TIMEOUT = 0.5
"""Seconds; 30 in a real relay."""
IDLE_TIMEOUT = 1.0
"""Seconds; 75 in a real relay."""
BUFFER_LIMIT = 32 * 1024 * 1024
"""Bytes of all bodies held at once; 256 MiB in a real relay."""

if __name__ == "__main__":
    client.HEAD_TIMEOUT = HEAD_TIMEOUT
    client.IDLE_TIMEOUT = IDLE_TIMEOUT
    turn.BUFFER_LIMIT = BUFFER_LIMIT  # type: ignore[attr-defined]  # the name by which it is looked up
    runpy.run_module("exporter.relay", run_name="__main__")
