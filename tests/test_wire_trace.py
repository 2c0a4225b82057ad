"""W3C trace context: what is valid is passed on, what is not is as if it were not there."""

import pytest

from exporter.wire import trace
from exporter.wire.trace import Parent

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [(f"00-{TRACE}-{SPAN}-01", True), (f"00-{TRACE}-{SPAN}-00", False), (f" 00-{TRACE}-{SPAN}-03\t", True),
     (f"cc-{TRACE}-{SPAN}-01", True), (f"cc-{TRACE}-{SPAN}-01-what-comes-later", True)],
)  # fmt: skip
def test_a_caller_is_read(header: str, sampled: bool) -> None:
    assert trace.read(header.encode()) == Parent(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"00",
        b"\xff\x00",
        f"00-{TRACE}-{SPAN}".encode(),
        f"ff-{TRACE}-{SPAN}-01".encode(),
        f"0-{TRACE}-{SPAN}-01".encode(),
        f"00-{TRACE}-{SPAN}-01-more".encode(),
        f"00-{TRACE.upper()}-{SPAN}-01".encode(),
        f"00-{TRACE[1:]}-{SPAN}-01".encode(),
        f"00-{'0' * 32}-{SPAN}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
    ],
)
def test_what_is_not_valid_is_no_caller(header: bytes | None) -> None:
    assert trace.read(header) is None


@pytest.mark.parametrize("sampled", [True, False])
def test_what_is_written_is_read_again(sampled: bool) -> None:
    assert trace.read(trace.write(TRACE, SPAN, sampled=sampled)) == Parent(TRACE, SPAN, sampled)
