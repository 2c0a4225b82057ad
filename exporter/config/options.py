"""The option table: every option once, with its flag, variable, file key, default and help."""

from dataclasses import dataclass

from exporter.config import values
from exporter.config.values import Parser

ENV_PREFIX = "INFERENCE_EXPORTER_"

GROUPS = {
    "engine": "The engine",
    "addresses": "Where the sidecar listens",
    "requests": "Requests and what is told about them",
    "processes": "Processes and their end",
    "planned": "Known, not available yet",
}

COMMANDS = {
    "sidecar": "stand between clients and an engine and follow every request",
    "check": "print the effective configuration, say what is wrong with it",
    "drain": "begin draining the running sidecar and wait (for preStop)",
    "serve": None,
    "demo": None,
    "measure": None,
    "slo": None,
}
"""Every command with its help; ``None``: known, not available yet."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option. ``default`` is text like any other source's; ``None``: unset. ``many``: a list, commas separate."""

    name: str
    metavar: str
    default: str | None
    help: str
    group: str
    parse: Parser = values.text
    many: bool = False
    required: bool = False
    field: str = ""

    @property
    def key(self) -> str:
        """The field of Config that it sets."""
        return self.field or self.name.replace("-", "_").replace(".", "_")

    @property
    def flag(self) -> str:
        """As on the command line."""
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """As in the environment."""
        return ENV_PREFIX + self.name.upper().replace("-", "_").replace(".", "_")

    @property
    def planned(self) -> bool:
        """Known, but its part is not built yet: refused, not ignored."""
        return self.group == "planned"


_ENGINES = ("auto", "vllm", "sglang", "tgi", "tensorrt-llm", "llamacpp", "ollama", "transformers", "dynamo", "embedded")
_MS = 0.001
_MIB = 2**20

OPTIONS: tuple[Option, ...] = (
    Option("upstream", "URL", None, "where the engine is, such as http://127.0.0.1:8000", "engine",
           values.upstream, required=True),
    Option("engine", "NAME", "generic", "what the engine is", "engine", values.choice(("generic",), _ENGINES)),
    Option("engine-metrics", "HOW", "off", "what to do with the engine's own metrics", "engine",
           values.choice(("off",), ("normalised", "passthrough"))),
    Option("connect-timeout", "TIME", "5s", "for a connection to the engine", "engine", values.duration(_MS)),
    Option("first-token-timeout", "TIME", "1h",
           "from the request sent to the first token, or the first byte of an answer that is not streamed", "engine",
           values.duration(_MS)),
    Option("idle-timeout", "TIME", "10m", "without a byte from the engine once its answer began", "engine",
           values.duration(_MS)),
    Option("upstream-keepalive", "TIME", "2s",
           "how long an idle connection to the engine is kept for the next request; 0: never", "engine",
           values.duration(0, 3600)),
    Option("listen", "HOST:PORT", "0.0.0.0:8080", "where clients connect", "addresses", values.address),
    Option("web.listen-address", "HOST:PORT", "0.0.0.0:9464", "metrics and the status page", "addresses",
           values.address),
    Option("web.config.file", "FILE", None, "TLS and basic authentication of the web port, in the format of the "
           "Prometheus exporters", "addresses", values.path),
    Option("health.listen-address", "HOST:PORT", "0.0.0.0:9465", "health, readiness and drain, never authenticated",
           "addresses", values.address),
    Option("inspect-limit", "SIZE", "16MiB", "request bodies up to this size are looked into; larger ones are relayed "
           "as they come and followed from the answer", "requests", values.size(0, 256 * _MIB)),
    Option("max-body", "SIZE", "0", "request bodies above this size are refused; 0: no limit", "requests",
           values.size()),
    Option("models", "NAME,...", None, "model names admitted as label values from the start, beside those that a "
           "successful answer proves", "requests", many=True),
    Option("label-header", "LABEL=HEADER", None, "a metric label taken from a request header, such as "
           "tenant=X-Tenant", "requests", values.label_header, many=True, field="label_headers"),
    Option("access-log", "WHAT", "bad", "which requests get a log line: off, bad (failed or slow), all", "requests",
           values.choice(("off", "bad", "all"))),
    Option("slow-threshold", "TIME", "30s", "a time to first token (not streamed: a latency) from which on the access "
           "log calls a request slow; 0: never", "requests", values.duration()),
    Option("workers", "N", "1", "relay processes, all accepting from one socket", "processes", values.whole(1, 256)),
    Option("observer-memory", "SIZE", "256MiB", "memory at which the observer sheds spans, then restarts itself",
           "processes", values.size(64 * _MIB)),
    Option("drain-delay", "TIME", "5s", "after SIGTERM: not ready, but still accepting, so that load balancers notice",
           "processes", values.duration(0, 3600)),
    Option("drain-timeout", "TIME", "30s", "after the delay: how long running answers may take to finish", "processes",
           values.duration(0, 86400)),
    Option("config", "FILE", None, "a YAML file with these options as keys, without the dashes", "processes",
           values.path),
    Option("max-concurrency", "N", None, "requests at the engine at once", "planned"),
    Option("max-queue", "N", None, "requests waiting in the sidecar", "planned"),
    Option("queue-timeout", "TIME", None, "how long a request may wait in the sidecar", "planned"),
    Option("priority-header", "NAME", None, "a header that orders the queue", "planned"),
    Option("slo", "FILE", None, "objectives", "planned"),
    Option("otlp.listen-address", "HOST:PORT", None, "where the engine's spans come in by gRPC", "planned"),
)  # fmt: skip

BY_NAME = {option.name: option for option in OPTIONS}
BY_VARIABLE = {option.variable: option for option in OPTIONS}
NOT_IN_CONFIG = frozenset({"config", "engine-metrics"})
"""Options that are read or refused on the way and leave no field behind."""
