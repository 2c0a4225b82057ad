"""The closed sets of ways in which a request can end and of reasons for a bad end."""

from enum import StrEnum


class Outcome(StrEnum):
    """How a request ended; every request ends in exactly one of these."""

    COMPLETED = "completed"  # the model stopped by itself: stop, tool_calls, content_filter, ...
    LENGTH = "length"  # the token limit was reached
    CANCELLED = "cancelled"  # the client left
    REJECTED = "rejected"  # 429 or 503 before work began, or our own queue said no
    TIMED_OUT = "timed_out"  # our timeouts, 408, 504
    FAILED = "failed"  # 5xx, reset, error event, abort, an end without a finish reason, a relay that died
    INVALID = "invalid"  # any other 4xx: the client's fault


class ErrorType(StrEnum):
    """Why a request ended badly; empty when it did not."""

    NONE = ""
    CONNECT = "connect"
    RESET = "reset"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    UPSTREAM_4XX = "upstream_4xx"
    UPSTREAM_5XX = "upstream_5xx"
    ENGINE_ERROR = "engine_error"
    PROTOCOL = "protocol"
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    RELAY_DIED = "relay_died"


Ending = tuple[Outcome, ErrorType]

_BY_STATUS: dict[int, Outcome] = {
    408: Outcome.TIMED_OUT,
    429: Outcome.REJECTED,
    503: Outcome.REJECTED,
    504: Outcome.TIMED_OUT,
}


def of_status(status: int) -> Ending | None:
    """The ending that an HTTP status alone decides; ``None`` for 1xx to 3xx, where the body decides."""
    if status < 400:  # noqa: PLR2004 - the first error status of RFC 9110
        return None
    if status < 500:  # noqa: PLR2004 - the first server error of RFC 9110
        return _BY_STATUS.get(status, Outcome.INVALID), ErrorType.UPSTREAM_4XX
    return _BY_STATUS.get(status, Outcome.FAILED), ErrorType.UPSTREAM_5XX


def of_finish_reasons(reasons: tuple[str, ...]) -> Ending:
    """The ending that the engine's own finish reasons decide.

    None at all means that the answer stopped without being finished; ``abort`` is SGLang's and vLLM's word for a
    request that the engine gave up.
    """
    if not reasons:
        return Outcome.FAILED, ErrorType.PROTOCOL
    if "abort" in reasons or "error" in reasons:
        return Outcome.FAILED, ErrorType.ENGINE_ERROR
    if "length" in reasons:
        return Outcome.LENGTH, ErrorType.NONE
    return Outcome.COMPLETED, ErrorType.NONE
