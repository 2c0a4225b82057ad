#!/usr/bin/env python3
"""What a scrape and a record cost the observer: CPU of one core, best of several tries.

Run as ``python tests/bench/exposition.py [--series 10000]``; the goal is 20 ms for 10,000 series.
"""

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from sys import path as module_path
from time import perf_counter, process_time

import msgspec
from msgspec.structs import replace

module_path.insert(0, str(Path(__file__).resolve().parent.parent))

from samples import STREAMED, who

from exporter import catalog, counting
from exporter.core.phases import Phase, Source
from exporter.core.tally import Tally
from exporter.sinks.prometheus import PrometheusSink


def lines(output: bytes) -> int:
    """Samples in an exposition."""
    return sum(not line.startswith(b"#") for line in output.splitlines())


def record(sink: PrometheusSink, at: int, chance: random.Random) -> None:
    """One request of the ``at``-th label set, and a pulse of its gaps."""
    ttft = chance.lognormvariate(-1, 1)
    timeline = replace(
        STREAMED,
        identity=who(f"model-{at}", trace_id=f"{chance.getrandbits(128):032x}"),
        first_token=100 + ttft,
        queueing=Phase(ttft / 4, Source.DERIVED),
        prefill=Phase(ttft * 3 / 4, Source.REPORTED),
    )
    sink.record(timeline, 1_700_000_000.0)
    pulse = Tally()
    gaps = [chance.lognormvariate(-4, 0.5) for _ in range(40)]
    pulse.observe_all(catalog.ITL, counting.base_labels(timeline.identity), catalog.grid(catalog.ITL), gaps)
    sink.merge(pulse)


def best(act: Callable[[], object], tries: int = 15) -> tuple[float, float]:
    """CPU and wall-clock seconds of the fastest try."""
    found = []
    for _ in range(tries):
        cpu, wall = process_time(), perf_counter()
        act()
        found.append((process_time() - cpu, perf_counter() - wall))
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=10_000)
    wanted = parser.parse_args().series
    sink, chance, sets = PrometheusSink(), random.Random(7), 0
    while lines(sink.render({}, openmetrics=False)) < wanted:
        for _ in range(20):
            record(sink, sets, chance)
        sets += 1
    for name, openmetrics in (("text", False), ("OpenMetrics", True)):
        output = sink.render({}, openmetrics=openmetrics)
        cpu, wall = best(lambda om=openmetrics: sink.render({}, openmetrics=om))  # type: ignore[misc]  # bound now
        size = f"{lines(output):,} series, {len(output) / 1e6:.1f} MB"
        print(f"{name:12} {size}: {cpu * 1e3:.1f} ms CPU, {wall * 1e3:.1f} ms wall")
    encode = msgspec.msgpack.Encoder().encode
    cpu, _ = best(lambda: encode(sink.dump()))
    print(f"{'checkpoint':12} {len(encode(sink.dump())) / 1e6:.2f} MB: {cpu * 1e3:.1f} ms CPU")
    cpu, _ = best(lambda: sink.record(STREAMED, 1_700_000_000.0), tries=500)
    print(f"{'record':12} {cpu * 1e6:.0f} us CPU")


if __name__ == "__main__":
    main()
