"""The relay's cost beside nginx and a direct connection: interleaved rounds, figures in microseconds and KiB.

What runs where: the relay that is measured (nginx's worker, the sidecar's relay) on CPU 0; everything else, the engine,
the load client, the sidecar's observer and supervisor and the OTLP collector, on CPU 1. nginx measures nothing; the
sidecar has everything on, spans of every request exported included. Compare figures of one run only: another machine
or a busier hour moves all of them together.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import random
import resource
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from bench.candidates import Candidate, engine, nginx, sidecar
from bench.rounds import Load, Memory, Result, measure, memory

Runs = dict[str, list[Result]]


@dataclasses.dataclass(frozen=True)
class Spread:
    """A figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Median and range."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 1) -> str:
        """`median (low..high)`."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}..{self.high:.{digits}f})"


@dataclasses.dataclass(frozen=True)
class Goal:
    """A figure and the most it may be."""

    name: str
    value: float
    limit: float

    @property
    def met(self) -> bool:
        return self.value <= self.limit


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench-relay", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--rate", type=float, default=50.0, help="tokens per second of each stream")
    parser.add_argument("--tokens", type=int, default=100, help="tokens of each streamed answer")
    parser.add_argument("--held", type=int, default=1000, help="open streams when memory is read")
    parser.add_argument("--quick", action="store_true", help="2 short rounds: is it working, roughly how much")
    parser.add_argument("--goals", action="store_true", help="exit with 1 when a goal is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure of every round")
    parser.add_argument("--flag", action="append", default=[], help="a further flag for the sidecar (repeatable)")
    return parser.parse_args()


def loads(chosen: argparse.Namespace) -> dict[str, Load]:
    """The three loads of a round."""
    each, requests, short = (2, 250, 4) if chosen.quick else (5, 1000, 12)
    return {
        "chunk": Load(chosen.streams, chosen.tokens, chosen.rate, each),
        "request": Load(16, each=requests),
        "first": Load(64, 16, chosen.rate, short),
    }


def run(chosen: argparse.Namespace) -> tuple[dict[str, Runs], dict[str, Memory]]:
    """Every load through every candidate, in a new order each round; memory first, on fresh processes."""
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(engine())
        port = int(upstream.name)
        relays = [stack.enter_context(nginx(port)), stack.enter_context(sidecar(port, tuple(chosen.flag)))]
        everyone = [Candidate("direct", port, None), *relays]
        sizes = {one.name: memory(one, chosen.held) for one in relays}
        wanted = loads(chosen)
        results: dict[str, Runs] = {name: {one.name: [] for one in everyone} for name in wanted}
        for turn in range(2 if chosen.quick else chosen.rounds):
            for name, load in wanted.items():
                for one in random.sample(everyone, len(everyone)):
                    results[name][one.name].append(measure(one, load, upstream.pid))
            print(f"round {turn + 1} done", file=sys.stderr)
        return results, sizes


def ratios(runs: Runs, figure: Callable[[Result], float]) -> Spread:
    """The sidecar's figure over nginx's, round by round."""
    pairs = zip(runs["sidecar"], runs["nginx"], strict=True)
    return Spread.of([figure(ours) / figure(theirs) for ours, theirs in pairs])


def added(runs: Runs) -> Spread:
    """What the sidecar adds to the first token over nginx, round by round, microseconds."""
    return Spread.of([a.first_p50 - b.first_p50 for a, b in zip(runs["sidecar"], runs["nginx"], strict=True)])


def spread(runs: list[Result], figure: Callable[[Result], float]) -> Spread:
    """One candidate's figure over the rounds."""
    return Spread.of([figure(one) for one in runs])


def relay_cpu(result: Result) -> float:
    """CPU microseconds of the relay per unit of the load."""
    return result.per_unit("relay")


def table(results: dict[str, Runs], sizes: dict[str, Memory], chosen: argparse.Namespace) -> str:
    """The figures as Markdown."""
    chunk, request, first = results["chunk"], results["request"], results["first"]
    ours, theirs = sizes["sidecar"], sizes["nginx"]

    def row(what: str, of_nginx: str, of_sidecar: str, against: str) -> str:
        return f"| {what} | {of_nginx} | {of_sidecar} | {against} |"

    def cpu_row(what: str, runs: Runs) -> str:
        of_nginx, of_sidecar = (spread(runs[name], relay_cpu).text() for name in ("nginx", "sidecar"))
        return row(what, of_nginx, of_sidecar, f"{ratios(runs, relay_cpu).text(2)} x")

    first_texts = {name: spread(runs, lambda one: one.first_p50).text(0) for name, runs in first.items()}
    lines = [
        row("figure, median (range) of the rounds", "nginx", "sidecar", "sidecar against nginx"),
        "|---|---|---|---|",
        cpu_row(f"relay CPU per streamed chunk, us ({chosen.streams} streams x {chosen.rate:g}/s)", chunk),
        cpu_row("relay CPU per unstreamed request, us", request),
        row(
            f"added to the first token, p50, us (direct: {first_texts['direct']})",
            first_texts["nginx"],
            first_texts["sidecar"],
            f"{added(first).text(0)} us",
        ),
        row("relay idle, MiB", f"{theirs.idle_kib / 1024:.1f}", f"{ours.idle_kib / 1024:.1f}", ""),
        row(f"KiB per open stream ({chosen.held} open)", f"{theirs.stream_kib:.1f}", f"{ours.stream_kib:.1f}", ""),
    ]
    for name, kib in ours.others_kib.items():
        per_chunk = spread(chunk["sidecar"], lambda one, name=name: one.per_unit(name))  # type: ignore[misc]
        per_request = spread(request["sidecar"], lambda one, name=name: one.per_unit(name))  # type: ignore[misc]
        cost = f"{per_chunk.text(2)} us per chunk, {per_request.text(0)} us per request, {kib / 1024:.0f} MiB"
        lines.append(row(f"{name} (another process, CPU 1)", "", cost, ""))
    return "\n".join(lines)


def pace(results: dict[str, Runs]) -> str:
    """Whether the load kept its pace: CPU 1, with engine, client and the rest, must not have been full."""
    return "\n".join(f"- {name}: {_pace_of(runs)}" for name, runs in results["chunk"].items())


def _pace_of(runs: list[Result]) -> str:
    rate = spread(runs, lambda one: one.units / one.seconds).median
    busy = spread(runs, lambda one: sum(cpu for name, cpu in one.cpu.items() if name != "relay") / one.seconds * 100)
    transit = spread(runs, lambda one: one.transit_p50)
    return f"{rate:,.0f} chunks/s, CPU 1 {busy.text(0)} % busy with it, a chunk's way p50 {transit.text(0)} us"


def goals(results: dict[str, Runs], sizes: dict[str, Memory]) -> list[Goal]:
    """What the sidecar is held to."""
    return [
        Goal("relay CPU per chunk, x nginx", ratios(results["chunk"], relay_cpu).median, 1.25),
        Goal("relay CPU per request, x nginx", ratios(results["request"], relay_cpu).median, 4.0),
        Goal("added to the first token over nginx, us", added(results["first"]).median, 60.0),
        Goal("relay idle, MiB", sizes["sidecar"].idle_kib / 1024, 40.0),
        Goal("KiB per open stream", sizes["sidecar"].stream_kib, 12.0),
    ]


def main() -> int:
    """Measure, print, judge."""
    chosen = options()
    if (os.cpu_count() or 1) < 2:
        print("this benchmark needs two CPUs: one for the relay alone, one for everything else", file=sys.stderr)
        return 2
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    results, sizes = run(chosen)
    print(f"\nPython {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} CPUs\n")
    print(table(results, sizes, chosen))
    print(f"\nthe load's pace:\n{pace(results)}\n")
    judged = goals(results, sizes)
    for goal in judged:
        print(f"{'met   ' if goal.met else 'MISSED'} {goal.name}: {goal.value:.2f} (at most {goal.limit:g})")
    if chosen.json:
        plain = {
            name: {who: [dataclasses.asdict(r) for r in runs] for who, runs in by.items()}
            for name, by in results.items()
        }
        memories = {name: dataclasses.asdict(one) for name, one in sizes.items()}
        goals_ = [dataclasses.asdict(goal) | {"met": goal.met} for goal in judged]
        chosen.json.write_text(json.dumps({"rounds": plain, "memory": memories, "goals": goals_}, indent=1) + "\n")
    return 1 if chosen.goals and not all(goal.met for goal in judged) else 0


if __name__ == "__main__":
    sys.exit(main())
