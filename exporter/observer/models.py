"""Asks the engine which models it has, so that their names are admitted before anyone was answered."""

import http.client
import json
import ssl
from collections.abc import Iterator

from exporter.config import Upstream

TIMEOUT = 2.0  # seconds
_LIMIT = 1024 * 1024


def fetch(upstream: Upstream) -> list[str]:
    """The names in the engine's ``/v1/models``; OSError or ValueError where it does not tell. Blocks up to seconds."""
    connection = _connection(upstream)
    try:
        connection.request("GET", f"{upstream.prefix}/v1/models", headers={"Accept": "application/json"})
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise ValueError(f"/v1/models answered {answer.status}, expected 200")
        return list(names(answer.read(_LIMIT)))
    except http.client.HTTPException as error:
        raise ValueError(f"/v1/models answered no HTTP: {type(error).__name__}") from error
    finally:
        connection.close()


def names(body: bytes) -> Iterator[str]:
    """The ids in an OpenAI list of models."""
    listed = json.loads(body)
    models = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(models, list):
        raise ValueError(  # noqa: TRY004 - it is what came that is wrong, no argument
            f"/v1/models answered {type(listed).__name__} without a list under data"
        )
    for model in models:
        name = model.get("id") if isinstance(model, dict) else None
        if isinstance(name, str) and name:
            yield name


def _connection(upstream: Upstream) -> http.client.HTTPConnection:
    if upstream.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(upstream.host, upstream.port, timeout=TIMEOUT, context=context)
    return http.client.HTTPConnection(upstream.host, upstream.port, timeout=TIMEOUT)
