"""The real Prometheus scrapes a page, answers queries and keeps exemplars."""

import http.server
import threading
from collections.abc import Iterator

import pytest
from support.exposition import Page
from support.processes import Process, command_line
from support.prometheus import Prometheus

PAGE = """# HELP waited_seconds w
# TYPE waited_seconds histogram
waited_seconds_bucket{le="1.0"} 2 # {trace_id="abc"} 0.5
waited_seconds_bucket{le="+Inf"} 3
waited_seconds_count 3
waited_seconds_sum 4.5
# EOF
"""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def target() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_scraped_series_can_be_queried_with_its_exemplars(target: str) -> None:
    with Prometheus(target) as prometheus:
        assert prometheus.wait_for("waited_seconds_count") == 3
        assert prometheus.value('waited_seconds_bucket{le="1.0"}') == 2
        assert prometheus.value("nothing") is None
        assert prometheus.targets()[0]["health"] == "up"
        (exemplar,) = prometheus.exemplars("waited_seconds_bucket")
    assert exemplar["labels"] == {"trace_id": "abc"}


def test_a_page_is_read_by_name_and_labels(target: str) -> None:
    page = Page.scrape(f"http://{target}/metrics", openmetrics=True)
    assert page.get("waited_seconds_bucket", le="1.0") == 2
    assert page.get("waited_seconds_sum", le="1.0") is None
    assert page.all("waited_seconds_bucket", le="1.0")[0].exemplar is not None


def test_a_process_that_ends_early_says_what_it_wrote() -> None:
    with Process(["sh", "-c", "echo no such flag; exit 3"]) as process, pytest.raises(AssertionError) as said:
        process.wait_http("http://127.0.0.1:9/", within=10)
    assert "exited with 3" in str(said.value)
    assert "no such flag" in str(said.value)


def test_stopping_a_process_ends_what_it_left_behind() -> None:
    with Process(["sh", "-c", "trap 'exit 0' TERM; sleep 300 & echo started $!; wait"]) as process:
        process.wait_output("started")
        left_behind = int(process.output.split()[-1])
    assert command_line(left_behind) == []
