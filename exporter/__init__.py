"""inference-exporter: the observability sidecar for LLM inference servers.

A relay follows every live request between clients and an OpenAI-compatible engine; an observer turns what was
seen into Prometheus metrics and OpenTelemetry spans; a supervisor owns the sockets and keeps both alive.
docs/architecture.md has the map.
"""

__version__ = "0.1.0"
