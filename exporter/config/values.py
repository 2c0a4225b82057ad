"""Text to values: each parser returns the value or raises ValueError with what would be accepted."""

import re
from collections.abc import Callable

from exporter.catalog import BASE_LABELS, METRICS
from exporter.config.model import Address, LabelHeader, Upstream

Parser = Callable[[str], object]

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]i?B|B)?", re.ASCII)
_BYTES = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
}  # fmt: skip
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?", re.ASCII)
_IPV6 = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?", re.ASCII)
_URL = re.compile(r"(https?)://([^/?#]*)(/[^?#]*)?", re.ASCII | re.IGNORECASE)
_VISIBLE = re.compile(r"[\x21-\x7e]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_MAX_PORT = 65535
_MAX_LABEL_VALUE = 256

RESERVED_LABELS = frozenset(
    {*BASE_LABELS, *(label for metric in METRICS for label in metric.labels), "le", "quantile", "job", "instance"}
)
SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key"})


def duration(minimum: float = 0.0, maximum: float = 7 * 86400.0) -> Parser:
    """A parser of durations to seconds, such as 500ms, 5s, 1h30m; 0 needs no unit."""

    def parse(text: str) -> float:
        accepted = f"a duration such as 500ms, 5s, 10m or 1h, from {_spoken(minimum)} to {_spoken(maximum)}"
        if text != "0" and not _DURATION.fullmatch(text):
            raise ValueError(accepted)
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
        if not minimum <= seconds <= maximum:
            raise ValueError(accepted)
        return seconds

    return parse


def _spoken(seconds: float) -> str:
    for unit in ("h", "m", "s"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds * 1000:.0f}ms" if seconds else "0"


def size(minimum: int = 0, maximum: int = 2**50) -> Parser:
    """A parser of sizes to bytes, such as 16MiB, 1GB, 4096."""

    def parse(text: str) -> int:
        accepted = f"a size such as 16MiB, 1GB or 4096 (bytes), from {_sized(minimum)} to {_sized(maximum)}"
        match = _SIZE.fullmatch(text)
        if match is None:
            raise ValueError(accepted)
        value = float(match[1]) * _BYTES[match[2] or "B"]
        if not minimum <= value <= maximum or value != int(value):
            raise ValueError(accepted)
        return int(value)

    return parse


def _sized(value: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if value and value % _BYTES[unit] == 0:
            return f"{value // _BYTES[unit]}{unit}"
    return str(value)


def whole(minimum: int, maximum: int) -> Parser:
    """A parser of whole numbers in a range."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not minimum <= int(text) <= maximum:
            raise ValueError(f"a whole number from {minimum} to {maximum}")
        return int(text)

    return parse


def choice(built: tuple[str, ...], planned: tuple[str, ...] = ()) -> Parser:
    """A parser of one of a closed set of words; ``planned`` ones are known and refused."""

    def parse(text: str) -> str:
        accepted = f"one of {', '.join(built)}" if len(built) > 1 else built[0]
        if text in planned:
            raise ValueError(f"{accepted}; {text} is not available yet")
        if text not in built:
            raise ValueError(accepted)
        return text

    return parse


def text(value: str) -> str:
    """Any text that fits on a line."""
    if not value or not value.isprintable() or len(value) > _MAX_LABEL_VALUE:
        raise ValueError(f"printable text of 1 to {_MAX_LABEL_VALUE} characters")
    return value


def path(value: str) -> str:
    """A file name."""
    if not value or "\0" in value:
        raise ValueError("the name of a file")
    return value


def address(value: str) -> Address:
    """HOST:PORT; an empty host is all IPv4 interfaces, an IPv6 host stands in brackets."""
    accepted = "HOST:PORT, such as 127.0.0.1:8080, [::1]:8080 or :8080, with a port from 1 to 65535"
    host, port = _host_and_port(value, accepted)
    if port is None:
        raise ValueError(accepted)
    return Address(host or "0.0.0.0", port)  # noqa: S104 - what an empty host means


def upstream(value: str) -> Upstream:
    """An http or https URL without credentials, query and fragment."""
    accepted = "a URL such as http://127.0.0.1:8000 or https://engine.example/prefix"
    match = _URL.fullmatch(value)
    if match is None or not _VISIBLE.fullmatch(value):
        raise ValueError(accepted)
    if "@" in match[2]:
        raise ValueError(f"{accepted}, without credentials")
    host, port = _host_and_port(match[2], accepted)
    if not host:
        raise ValueError(accepted)
    prefix = (match[3] or "").rstrip("/")
    if match[1].lower() == "https":
        return Upstream("https", host, port or 443, prefix)
    return Upstream("http", host, port or 80, prefix)


def _host_and_port(value: str, accepted: str) -> tuple[str, int | None]:
    bracketed = value.startswith("[")
    host, bracket, rest = value[1:].partition("]") if bracketed else ("", "", value)
    if bracketed and not (bracket and _IPV6.fullmatch(host) and (not rest or rest.startswith(":"))):
        raise ValueError(accepted)
    name, colon, port = rest.partition(":")
    if not bracketed:
        host = name
        if host and not _HOST.fullmatch(host):
            raise ValueError(accepted)
    if not colon:
        return host, None
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= _MAX_PORT):
        raise ValueError(accepted)
    return host, int(port)


def label_header(value: str) -> LabelHeader:
    """LABEL=HEADER, with a label that no metric of ours has and a header that carries no secret."""
    label, equals, header = value.partition("=")
    if not equals or not _LABEL.fullmatch(label) or not _HEADER.fullmatch(header):
        raise ValueError("LABEL=HEADER, such as tenant=X-Tenant: a Prometheus label name and an HTTP header name")
    if label in RESERVED_LABELS or label.startswith("__"):
        raise ValueError(f"a label name that is not taken; {label} is")
    if header.lower() in SECRET_HEADERS:
        raise ValueError(f"a header that holds no secret; {header} does, and metrics are read by many")
    return LabelHeader(label, header.lower())
