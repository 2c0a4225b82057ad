"""One measurement: a load through one candidate, and what its processes spent meanwhile."""

import json
import resource
import subprocess
from dataclasses import dataclass

from support.processes import Process
from support.waiting import until

from bench.candidates import OTHER_CPU, Candidate, built, pin
from bench.readings import cpu_ns, rss_kib

BUILD_UP = 60.0


@dataclass(frozen=True)
class Load:
    """What the client does; `tokens` 0 means unstreamed answers in a closed loop."""

    connections: int
    tokens: int = 0
    rate: float = 50.0
    """Tokens per second of each stream."""
    each: int = 1
    """Answers per connection, one after another."""

    def arguments(self, port: int) -> list[str]:
        """For the load program."""
        gap = round(1e6 / self.rate)
        return ["client", *(str(n) for n in (port, self.connections, self.tokens, gap, gap, self.each))]


@dataclass(frozen=True)
class Result:
    """CPU seconds by process over the load, and what the client saw (microseconds)."""

    units: int
    """Token events, or unstreamed requests."""
    seconds: float
    cpu: dict[str, float]
    first_p50: float
    first_p99: float
    transit_p50: float
    latency_p50: float
    errors: int

    def per_unit(self, who: str) -> float:
        """CPU microseconds per token event, or per request."""
        return self.cpu[who] * 1e6 / self.units


def processes(candidate: Candidate, engine: int) -> dict[str, int]:
    """Everything whose CPU is read, by name."""
    relay = {"relay": candidate.relay} if candidate.relay is not None else {}
    return {**relay, **candidate.others, "engine": engine}


def measure(candidate: Candidate, load: Load, engine: int) -> Result:
    """Run the load to its end through one candidate."""
    watched = processes(candidate, engine)
    before = {name: cpu_ns(pid) for name, pid in watched.items()}
    by_children = _children_cpu()
    client = subprocess.Popen(
        ["taskset", "-c", ",".join(map(str, OTHER_CPU)), built(), *load.arguments(candidate.port)],
        stdout=subprocess.PIPE,
        text=True,
    )
    said, _ = client.communicate(timeout=600)
    cpu = {name: (cpu_ns(pid) - before[name]) / 1e9 for name, pid in watched.items()}
    cpu["client"] = _children_cpu() - by_children
    seen = json.loads(said.splitlines()[-1])
    if seen["errors"]:
        raise RuntimeError(f"{candidate.name}: {seen['errors']} of {load.connections} connections failed: {seen}")
    return Result(
        units=seen["tokens"] if load.tokens else seen["answers"],
        seconds=seen["seconds"],
        cpu=cpu,
        first_p50=seen["first_us"]["p50"],
        first_p99=seen["first_us"]["p99"],
        transit_p50=seen["transit_us"]["p50"],
        latency_p50=seen["latency_us"]["p50"],
        errors=seen["errors"],
    )


def _children_cpu() -> float:
    """CPU seconds of every child that has ended: the load client, as nothing else ends meanwhile."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True)
class Memory:
    """Resident KiB of the relay idle and per open stream, and of its other processes then."""

    idle_kib: int
    stream_kib: float
    others_kib: dict[str, int]


def memory(candidate: Candidate, streams: int) -> Memory:
    """Hold so many slow streams open through a fresh relay and look at its size."""
    if candidate.relay is None:
        raise ValueError(f"{candidate.name} has no relay whose memory could be read")
    idle = rss_kib(candidate.relay)
    slow = Load(streams, tokens=600, rate=2.0)
    with Process([built(), *slow.arguments(candidate.port)], name="streams held open", cpus=OTHER_CPU) as client:
        pin(client.pid, OTHER_CPU)
        until(lambda: "open" in client.output, f"{streams} streams open through {candidate.name}", BUILD_UP)
        held = rss_kib(candidate.relay)
        others = {name: rss_kib(pid) for name, pid in candidate.others.items()}
    return Memory(idle, (held - idle) / streams, others)
