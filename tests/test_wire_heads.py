"""Heads: what a proxy passes on, and what it writes."""

import json

from exporter.wire import heads


def test_the_first_of_several_headers_is_the_value() -> None:
    assert heads.value([(b"x", b"0"), (b"content-type", b"a"), (b"content-type", b"b")], b"content-type") == b"a"
    assert heads.value([], b"content-type") is None


def test_hop_by_hop_headers_and_those_that_connection_names_stay_behind() -> None:
    headers = [
        (b"host", b"h"),
        (b"connection", b"keep-alive, X-Hop"),
        (b"connection", b"X-Other"),
        (b"keep-alive", b"timeout=5"),
        (b"x-hop", b"1"),
        (b"x-other", b"2"),
        (b"transfer-encoding", b"chunked"),
        (b"x-kept", b"3"),
        (b"dropped", b"4"),
    ]
    assert heads.end_to_end(headers, heads.HOP_BY_HOP | {b"dropped"}) == [(b"host", b"h"), (b"x-kept", b"3")]
    assert heads.end_to_end([(b"connection", b"close"), (b"host", b"h")]) == [(b"host", b"h")]


def test_connection_cannot_take_away_what_frames_or_addresses_a_message() -> None:
    headers = [
        (b"host", b"h"),
        (b"content-length", b"3"),
        (b"connection", b"host, content-length, x-hop"),
        (b"x-hop", b"1"),
    ]
    assert heads.end_to_end(headers) == [(b"host", b"h"), (b"content-length", b"3")]


def test_an_error_to_a_head_request_is_a_head_alone() -> None:
    head = heads.error(502, "m", "k", close=False, body=False)
    assert head.endswith(b"\r\n\r\n")
    assert b"content-length" in head


def test_heads_are_written_byte_for_byte() -> None:
    assert (
        heads.write_request(b"POST", b"/v1?a=b", [(b"X-A", b"\xe9")]) == b"POST /v1?a=b HTTP/1.1\r\nX-A: \xe9\r\n\r\n"
    )
    assert heads.write_response(200, b"Fine", []) == b"HTTP/1.1 200 Fine\r\n\r\n"
    assert heads.write_response(429, b"", []) == b"HTTP/1.1 429 Too Many Requests\r\n\r\n"
    assert heads.write_response(499, b"", []) == b"HTTP/1.1 499 \r\n\r\n"


def test_an_error_has_the_shape_of_openais() -> None:
    answer = heads.error(503, 'a "reason"', "upstream_error", close=True, extra=[(b"retry-after", b"1")])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 503 Service Unavailable",
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"retry-after: 1",
        b"connection: close",
    ]
    error = {"message": 'a "reason"', "type": "upstream_error", "param": None, "code": 503}
    assert json.loads(body) == {"error": error}
    assert b"connection" not in heads.error(400, "m", "k", close=False)
