"""The demo: a real engine, the sidecar before it, a gentle load, and what the sidecar says of it, as it happens."""

import argparse
import contextlib
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import openai
from support.exposition import Page
from support.otlp import OtlpReceiver, Span
from support.sidecar import Sidecar
from support.transformers_serve import TransformersServe

MODEL_NAME = re.compile(r"\S*/\.cache/")
WORDS = ["def", "class", "return", "self", "import", "config", "model", "token", "cache", "layer", "queue", "batch"]
KINDS = ["short", "short", "short", "long prompt", "unstreamed", "cancelled"]
USERS = 3
TREES = 3
"""Span trees shown each time."""


def seconds(text: str) -> float:
    """`60s`, `2m` or `1h` in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h|)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; accepted are 60s, 2m, 1h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def prompt(words: int) -> str:
    return " ".join(random.choices(WORDS, k=words))  # noqa: S311 load, not secrets


def ask(client: openai.OpenAI, model: str, kind: str, leaving: threading.Event) -> None:
    """One request of that kind; a cancelled one is left after a few tokens."""
    text = prompt(1500 if kind == "long prompt" else 30)
    length = 400 if kind == "cancelled" else random.randint(20, 80)  # noqa: S311
    messages: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": text}]
    if kind == "unstreamed":
        client.chat.completions.create(model=model, messages=messages, max_tokens=length)
        return
    with client.chat.completions.create(model=model, messages=messages, max_tokens=length, stream=True) as stream:
        for turn, _ in enumerate(stream):
            if leaving.is_set() or (kind == "cancelled" and turn == 8):  # noqa: PLR2004 the ninth event
                return


def use(url: str, model: str, leaving: threading.Event, failures: list[str]) -> None:
    """One user: a request, a pause, the next; what fails is kept, to be shown."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        while not leaving.wait(random.uniform(0.1, 0.8)):  # noqa: S311
            try:
                ask(client, model, random.choice(KINDS), leaving)  # noqa: S311
            except openai.APIError as failed:
                failures.append(repr(failed))


@contextlib.contextmanager
def load(url: str, model: str) -> Iterator[list[str]]:
    """A few users until the end of the block; yields what failed for them."""
    leaving, failures = threading.Event(), list[str]()
    users = [threading.Thread(target=use, args=(url, model, leaving, failures), daemon=True) for _ in range(USERS)]
    for user in users:
        user.start()
    try:
        yield failures
    finally:
        leaving.set()
        for user in users:
            user.join(20)


def mean(page: Page, name: str) -> str:
    """A histogram's mean in milliseconds, over everything so far."""
    count, total = page.get(f"{name}_count"), page.get(f"{name}_sum")
    return f"{total / count * 1000:8.1f} ms" if count and total is not None else "       -   "


def report(page: Page) -> str:
    """The short table of what /metrics says."""
    rows = [
        ("TTFT, mean", mean(page, "gen_ai_server_time_to_first_token_seconds")),
        ("TPOT, mean", mean(page, "gen_ai_server_time_per_output_token_seconds")),
        ("in queue, mean", mean(page, "gen_ai_server_time_in_queue_seconds")),
        ("in prefill, mean", mean(page, "gen_ai_server_time_in_prefill_seconds")),
        ("in decode, mean", mean(page, "gen_ai_server_time_in_decode_seconds")),
        ("output tokens/s, now", f"{page.get('gen_ai_server_output_tokens_per_second') or 0.0:8.1f}"),
        ("active requests, now", f"{page.get('gen_ai_server_active_requests') or 0.0:8.0f}"),
    ]
    outcomes: dict[str, float] = {}
    for sample in page.all("gen_ai_server_requests_total"):
        outcomes[sample.labels["outcome"]] = outcomes.get(sample.labels["outcome"], 0.0) + sample.value
    counted = ", ".join(f"{name} {count:.0f}" for name, count in sorted(outcomes.items()))
    return "\n".join(f"  {name:22} {value}" for name, value in rows) + f"\n  requests: {counted}"


def trees(spans: list[Span]) -> str:
    """The last requests as trees: each span's start after its root's, and its duration."""
    lines = []
    for root in [span for span in spans if not span.parent_id][-TREES:]:
        name = MODEL_NAME.sub("", root.name)
        ended = root.attributes.get("gen_ai.response.finish_reasons") or root.status
        lines.append(f"  {name:22} {root.seconds * 1000:8.1f} ms   {ended}")
        children = [span for span in spans if span.parent_id == root.span_id]
        for span in sorted(children, key=lambda one: one.start_ns):
            start = (span.start_ns - root.start_ns) / 1e6
            source = span.attributes.get("inference.phase.source", "")
            lines.append(f"    {span.name:20} {span.seconds * 1000:8.1f} ms   from {start:.1f} ms  {source}")
    return "\n".join(lines)


def show(sidecar: Sidecar, collector: OtlpReceiver, failures: list[str]) -> None:
    """One look at everything."""
    print(f"\n/metrics\n{report(sidecar.metrics())}")
    if failures:
        print(f"  the load saw {len(failures)} failures, the last: {failures[-1]}")
    print(f"the last requests, as spans\n{trees(collector.spans)}", flush=True)


def watch(look: Callable[[], None], lasting: float, every: float) -> None:
    """Look every so often until the time is over."""
    end = time.monotonic() + lasting
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(every, left))
        look()


def demonstrate(lasting: float, every: float) -> None:
    """Start everything, watch, and stop everything that was started."""
    with contextlib.ExitStack() as started:
        print("starting transformers serve with a tiny model, continuous batching (some seconds)", flush=True)
        engine = started.enter_context(TransformersServe(continuous_batching=True))
        collector = started.enter_context(OtlpReceiver())
        sidecar = started.enter_context(Sidecar(engine.url, env=collector.environment))
        print(f"engine   {engine.url}\nsidecar  {sidecar.url}   (use it as the engine: {sidecar.url}/v1)")
        print(f"metrics  {sidecar.web}/metrics\nstatus   {sidecar.web}/\nhealth   {sidecar.health}/-/ready", flush=True)
        failures = started.enter_context(load(sidecar.url, engine.model))
        with contextlib.suppress(KeyboardInterrupt):
            watch(lambda: show(sidecar, collector, failures), lasting, every)
        print("\nstopping", flush=True)
    print("stopped: engine, sidecar, collector")


def main() -> None:
    """Read the command line and go."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    default = "24h" if sys.stdout.isatty() else "30s"
    parser.add_argument("--for", dest="lasting", type=seconds, default=default, metavar="60s", help="how long it runs")
    parser.add_argument("--every", type=seconds, default="5s", metavar="5s", help="pause between two looks")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    demonstrate(options.lasting, options.every)


if __name__ == "__main__":
    main()
