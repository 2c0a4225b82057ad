"""A request header becomes a metric label, admitted and never more than a label."""

from support.raw import CHAT, RawClient, chat
from support.scripted_engine import ScriptedEngine
from support.sidecar import Sidecar
from support.waiting import until


def test_a_header_is_a_label_of_every_request_metric() -> None:
    with ScriptedEngine() as engine, Sidecar(engine.url, "--label-header", "tenant=X-Tenant") as sidecar:
        for tenant in ("acme", 'o"dd\\', "acme"):
            with RawClient(sidecar.port) as client:
                client.post(CHAT, chat({"tokens": 3}), f"X-Tenant: {tenant}")
                assert client.answer().status == 200
        name = "gen_ai_server_requests_total"
        found = until(lambda: _tenants(sidecar, name, 3), "three requests counted")
        assert found == {"acme": 2, 'o"dd\\': 1}
        ttft = _tenants(sidecar, "gen_ai_server_time_to_first_token_seconds_count", 3)
        assert ttft == {"acme": 2, 'o"dd\\': 1}


def _tenants(sidecar: Sidecar, name: str, total: int) -> dict[str, float] | None:
    """The values of one metric by tenant, once they sum to ``total``."""
    found = {sample.labels["tenant"]: sample.value for sample in sidecar.metrics().all(name)}
    return found if sum(found.values()) == total else None
