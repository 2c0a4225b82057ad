"""Asking for usage: the body means what it meant, plus that."""

import json
import time
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from exporter.wire import openai
from exporter.wire.splice import include_usage

ASKED = {"include_usage": True}

texts = st.text(max_size=12) | st.sampled_from(
    ['"stream_options"', '{"stream_options":null}', "\\", '\\"', "}{][", ":null", "ключ 🔑", "\x00\x1f\x7f"]
)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(texts | st.sampled_from(["stream_options", "include_usage", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)
bodies = st.dictionaries(texts.filter(lambda name: name != "stream_options"), values, max_size=5)


@st.composite
def asked(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A streamed request that says nothing about usage, and one of the ways to write it."""
    members = list({"stream": True, **draw(bodies)}.items())
    if draw(st.booleans()):
        members.insert(draw(st.integers(0, 5)), ("stream_options", None))
    spacing = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n\t", " :\r\n ")]))
    text = json.dumps(dict(members), separators=spacing, ensure_ascii=draw(st.booleans()))
    return dict(members), (draw(st.sampled_from(["", " ", "\n\t"])) + text).encode()


def options(body: bytes) -> object:
    request = openai.read_request(body)
    assert request is not None
    return request.stream_options


@given(asked())
def test_a_spliced_body_decodes_to_the_original_and_usage(request: tuple[dict[str, Any], bytes]) -> None:
    members, body = request
    assume(body.count(b'"stream_options"') <= 8)
    spliced = include_usage(body, options(body))
    assert spliced is not None
    assert json.loads(spliced) == {**members, "stream_options": ASKED}
    assert len(spliced) <= len(body) + len('"stream_options":{"include_usage":true},')


@pytest.mark.parametrize(
    "said",
    ['{"include_usage":false}', '{"include_usage":true}', '{"include_usage":null}', "{}", "[]", "true", '"yes"', "0",
     '{"include_obfuscation":false}', '{"continuous_usage_stats":true}'],
)  # fmt: skip
def test_what_the_client_said_itself_is_left_alone(said: str) -> None:
    body = f'{{"stream":true,"stream_options":{said}}}'.encode()
    assert include_usage(body, options(body)) is None


def test_a_name_deeper_down_is_not_the_bodys() -> None:
    body = b'{"messages":[{"stream_options":null,"content":"{\\"stream_options\\":null}"}],"stream":true}'
    spliced = include_usage(body, None)
    assert spliced == b'{"stream_options":{"include_usage":true},' + body[1:]


def test_null_is_replaced_where_it_stands() -> None:
    body = b'{"stream_options" : null, "stream": true}'
    assert include_usage(body, None) == b'{"stream_options" : {"include_usage":true}, "stream": true}'


def test_of_many_nulls_deeper_down_the_bodys_is_found() -> None:
    deeper = b',"messages":[' + b",".join([b'{"stream_options":null}'] * 7) + b"]}"
    body = b'{"stream":true,"stream_options":null' + deeper
    assert include_usage(body, None) == b'{"stream":true,"stream_options":{"include_usage":true}' + deeper


@pytest.mark.parametrize(
    "body",
    [
        b'{"stream":true,"stream\\u005foptions":null}',
        b'{"stream_options":null,"messages":[' + b",".join([b'{"stream_options":null}'] * 8) + b"]}",
    ],
)
def test_a_body_that_is_too_strange_is_left_alone(body: bytes) -> None:
    assert options(body) is None
    assert include_usage(body, None) is None


@pytest.mark.parametrize("first", ["null", "{}", '{"include_usage":false}', "1"])
def test_of_a_name_that_stands_twice_the_last_counts(first: str) -> None:
    body = f'{{"stream_options":{first},"stream":true,"stream_options":null}}'.encode()
    spliced = include_usage(body, options(body))
    assert spliced is not None
    assert json.loads(spliced) == {"stream": True, "stream_options": ASKED}
    assert spliced.startswith(b'{"stream_options":' + first.encode())


@pytest.mark.parametrize("message", ["A" * 8_000_000, "a\\n " * 2_000_000, '","x":{},"y":"' * 500_000])
def test_a_long_body_costs_milliseconds(message: str) -> None:
    body = f'{{"message":"{message}","stream_options":null}}'.encode()
    began = time.process_time()
    spliced = include_usage(body, None)
    assert time.process_time() - began < 1.0
    assert spliced == body[: -len("null}")] + b'{"include_usage":true}}'
