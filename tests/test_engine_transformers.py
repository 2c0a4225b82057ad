"""The sidecar before a real engine, driven by the official client: what it tells is what the client saw.

The client's TTFT goes from its whole request sent, as its transport says, to the first chunk with content in its hands,
so it is longer than the sidecar's by the client's own work on that chunk: about half a millisecond, and for clients
that share an interpreter and get their tokens in the same batch, as much for each of them. The median is asserted,
because whatever else runs on the machine can hold up one request by any time; the mean is printed beside it.
"""

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

import openai
import pytest
from support.otlp import OtlpReceiver, Span
from support.raw import CHAT, RawClient
from support.sidecar import Sidecar
from support.transformers_serve import TransformersServe
from tokenizers import Tokenizer

from exporter import catalog

pytestmark = pytest.mark.engine

COMPLETIONS = "/v1/completions"
PROMPT = "def hello():"
REQUESTS = 24
CLIENTS = 4
TTFT_ERROR = 0.002


@dataclass
class Served:
    """An engine, the sidecar before it, and the collector behind that."""

    engine: TransformersServe
    sidecar: Sidecar
    otlp: OtlpReceiver

    def server_span(self, trace_id: str) -> Span:
        """The SERVER span of one request, once it is here with its children."""

        def here(spans: list[Span]) -> bool:
            return any(span.trace_id == trace_id and span.kind == "server" for span in spans)

        return next(span for span in self.otlp.wait_for(here) if span.trace_id == trace_id and span.kind == "server")


@pytest.fixture(scope="module", params=["serial_engine", "batching_engine"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    engine: TransformersServe = request.getfixturevalue(request.param)
    with OtlpReceiver() as otlp, Sidecar(engine.url, env=otlp.environment) as sidecar:
        yield Served(engine, sidecar, otlp)


@dataclass
class Seen:
    """One request as its client saw it; moments are monotonic seconds."""

    trace_id: str
    text: str = ""
    sent: float = 0.0
    first_content: float | None = None
    ended: float = 0.0
    output: int | None = None
    finish: str | None = None


class Client:
    """The official client, each thread's requests stamped when their last byte was sent."""

    def __init__(self, url: str) -> None:
        self._stamp = threading.local()
        transport = openai.DefaultHttpxClient(event_hooks={"request": [self._sending]})
        self._api = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=transport)

    def close(self) -> None:
        self._api.close()

    def ask(self, model: str, trace_id: str, *, chat: bool, stream: bool, tokens: int, **more: Any) -> Seen:
        seen = Seen(trace_id)
        common: dict[str, Any] = {
            "model": model,
            "max_tokens": tokens,
            "stream": stream,
            "extra_headers": {"traceparent": f"00-{trace_id}-{1:016x}-01"},
            **more,
        }
        answer: Any
        if chat:
            answer = self._api.chat.completions.create(messages=[{"role": "user", "content": PROMPT}], **common)
        else:
            answer = self._api.completions.create(prompt=PROMPT, **common)
        for part in answer if stream else [answer]:
            self._take(seen, part)
        seen.sent, seen.ended = self._stamp.sent, time.monotonic()
        return seen

    def _sending(self, request: Any) -> None:
        request.extensions = {**request.extensions, "trace": self._trace}

    def _trace(self, name: str, _: object) -> None:
        if name == "http11.send_request_body.complete":
            self._stamp.sent = time.monotonic()

    @staticmethod
    def _take(seen: Seen, part: Any) -> None:
        choice = part.choices[0]
        text = choice.text if hasattr(choice, "text") else getattr(choice, "delta", None) or choice.message
        text = text if isinstance(text, str) else text.content
        if text and seen.first_content is None:
            seen.first_content = time.monotonic()
        seen.text += text or ""
        seen.finish = choice.finish_reason or seen.finish
        seen.output = part.usage.completion_tokens if part.usage else seen.output


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Client]:
    found = Client(served.sidecar.url)
    yield found
    found.close()


def trace_ids() -> Callable[[], str]:
    base = time.monotonic_ns()
    numbers = iter(range(1_000_000))
    return lambda: f"{(base << 24) + next(numbers) + 1:032x}"


new_trace = trace_ids()


def check(span: Span, seen: Seen, *, outcome: str) -> None:
    """A span against what the client saw; TTFT is judged elsewhere."""
    told = span.attributes
    assert told["gen_ai.usage.output_tokens"] == seen.output
    assert told["gen_ai.response.finish_reasons"] == [seen.finish]
    assert told["inference.outcome"] == outcome
    assert told["inference.tokens.estimated"] is False
    assert told["http.response.status_code"] == 200
    assert span.status == "unset"


@pytest.mark.parametrize("clients", [1, CLIENTS])
def test_streams(served: Served, client: Client, clients: int, capsys: pytest.CaptureFixture[str]) -> None:
    def ask(number: int) -> Seen:
        chat, usage = [*product([True, False], repeat=2)][number % 4]
        more = {"stream_options": {"include_usage": True}} if usage else {}
        tokens = 3 + number % 20
        return client.ask(served.engine.model, new_trace(), chat=chat, stream=True, tokens=tokens, **more)

    before = served.sidecar.metrics()
    with ThreadPoolExecutor(clients) as pool:
        all_seen = list(pool.map(ask, range(REQUESTS)))
    errors = []
    for seen in all_seen:
        span = served.server_span(seen.trace_id)
        check(span, seen, outcome="length")
        ttft = span.attributes["gen_ai.latency.time_to_first_token"]
        assert isinstance(ttft, float)
        assert seen.first_content is not None
        errors.append(ttft - (seen.first_content - seen.sent))
    report(capsys, served, clients, errors)
    assert statistics.median(map(abs, errors)) <= TTFT_ERROR * clients
    output = sum(seen.output or 0 for seen in all_seen)
    counted = served.sidecar.wait_metric(catalog.REQUESTS, (before.get(catalog.REQUESTS) or 0) + REQUESTS)
    for name, labels, more in (
        (catalog.TOKENS, {"gen_ai_token_type": "output"}, output),
        (catalog.REQUESTS, {"outcome": "length", "stream": "true"}, REQUESTS),
        (f"{catalog.TTFT}_count", {}, REQUESTS),
        (catalog.ESTIMATED, {}, 0),
        (catalog.UNINSPECTED, {}, 0),
        (catalog.OVERCOUNT, {}, 0),
    ):
        assert (counted.get(name, **labels) or 0) - (before.get(name, **labels) or 0) == more, name


def report(capsys: pytest.CaptureFixture[str], served: Served, clients: int, errors: list[float]) -> None:
    with capsys.disabled():
        print(  # noqa: T201 - the figures are what this test is run for
            f"\n{served.engine.process.name}, {clients} clients: TTFT against the openai client's over {len(errors)} "
            f"requests: mean {statistics.mean(errors) * 1e6:.0f} us, median {statistics.median(errors) * 1e6:.0f} us, "
            f"worst {max(errors, key=abs) * 1e6:.0f} us; allowed {TTFT_ERROR * clients * 1e6:.0f} us"
        )


@pytest.mark.parametrize("chat", [True, False])
def test_answers_that_are_not_streamed(served: Served, client: Client, chat: bool) -> None:
    seen = client.ask(served.engine.model, new_trace(), chat=chat, stream=False, tokens=9)
    assert seen.output == 9
    span = served.server_span(seen.trace_id)
    check(span, seen, outcome="length")
    assert "gen_ai.latency.time_to_first_token" not in span.attributes
    latency = span.attributes["gen_ai.latency.e2e"]
    assert isinstance(latency, float)
    assert 0 < latency < seen.ended - seen.sent


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_ends_by_itself_is_completed(served: Served, client: Client, stream: bool) -> None:
    whole = client.ask(served.engine.model, new_trace(), chat=True, stream=False, tokens=6)
    tokenizer = Tokenizer.from_file(f"{served.engine.model}/tokenizer.json")
    last = tokenizer.encode(whole.text).ids[-1]
    more = {"extra_body": {"generation_config": json.dumps({"eos_token_id": last, "do_sample": False})}}
    seen = client.ask(served.engine.model, new_trace(), chat=True, stream=stream, tokens=50, **more)
    assert seen.finish == "stop"
    check(served.server_span(seen.trace_id), seen, outcome="completed")


def test_a_refusal_is_the_engines_own_and_the_clients_fault(served: Served, client: Client) -> None:
    trace_id = new_trace()
    with pytest.raises(openai.BadRequestError) as refused:
        client.ask("no-such-model", trace_id, chat=True, stream=True, tokens=3)
    assert isinstance(refused.value.body, dict)
    assert "pinned" in refused.value.body["detail"]
    told = served.server_span(trace_id).attributes
    assert (told["inference.outcome"], told["http.response.status_code"]) == ("invalid", 400)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    "options", [{"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}, {"stream": False}]
)
def test_the_client_sees_what_it_sees_without_a_sidecar(served: Served, path: str, options: dict[str, object]) -> None:
    asked = {"messages": [{"role": "user", "content": PROMPT}]} if path == CHAT else {"prompt": PROMPT}
    body = {"model": served.engine.model, "max_tokens": 12, **asked, **options}
    through, direct = (said(port, path, body) for port in (served.sidecar.port, served.engine.port))
    assert through == direct
    assert len(direct) >= (12 if options["stream"] else 1)


def said(port: int, path: str, body: dict[str, Any]) -> list[object]:
    """The events of a stream, or the one answer, without what differs from request to request."""
    with RawClient(port) as client:
        client.post(path, body)
        answer = client.answer()
    assert (answer.status, answer.complete) == (200, True)
    text = answer.body.decode()
    blocks = text.split("\n\n") if body["stream"] else [text]
    return [plain(block) for block in blocks]


def plain(block: str) -> object:
    _, _, data = block.rpartition("data: ")
    try:
        found: dict[str, Any] = json.loads(data)
    except ValueError:
        return block
    return block.startswith("data: "), {key: found[key] for key in sorted(found) if key not in {"id", "created"}}
