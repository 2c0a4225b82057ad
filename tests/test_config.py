"""Configuration: layers, values, refusals told all at once, and the OpenTelemetry variables with the SDK's sampling."""

import random
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import sampling
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from exporter import config
from exporter.config import Address, Config, ConfigError, LabelHeader, Tracing, Upstream, load, sample
from exporter.config.values import RESERVED_LABELS

ENGINE = {"upstream": "http://127.0.0.1:8000"}
ANY = "0.0.0.0"  # noqa: S104 - compared with, not bound


def refused(environ: Mapping[str, str] | None = None, text: str | None = None, **flags: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(environ or {}, text, {**ENGINE, **{name.replace("_", "-"): value for name, value in flags.items()}})
    return [str(problem) for problem in caught.value.problems]


def test_only_the_upstream_is_needed() -> None:
    loaded = load({}, None, ENGINE)
    assert loaded == Config(
        upstream=Upstream("http", "127.0.0.1", 8000), listen=Address(ANY, 8080),
        web_listen_address=Address(ANY, 9464), health_listen_address=Address(ANY, 9465),
        web_config_file=None, engine="generic", connect_timeout=5.0, first_token_timeout=3600.0, idle_timeout=600.0,
        upstream_keepalive=2.0, inspect_limit=16 * 2**20, max_body=0, models=(), label_headers=(), access_log="bad",
        slow_threshold=30.0, workers=1, observer_memory=256 * 2**20, drain_delay=5.0, drain_timeout=30.0,
        tracing=Tracing(enabled=False),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="--upstream is required"):
        load({}, None, {})


def test_a_later_source_wins_and_each_value_knows_its_own() -> None:
    environ = {
        "INFERENCE_EXPORTER_IDLE_TIMEOUT": "2s",
        "INFERENCE_EXPORTER_WORKERS": "2",
        "INFERENCE_EXPORTER_MODELS": "",
    }
    text = "idle-timeout: 1s\nworkers: 1\nmodels: [a]\nconnect-timeout: 1s\n"
    resolved = config.resolve(environ, text, {**ENGINE, "workers": "3"}, "sidecar.yaml")
    loaded = resolved.config()
    assert (loaded.connect_timeout, loaded.idle_timeout, loaded.workers, loaded.models) == (1.0, 2.0, 3, ("a",))
    sources = {
        name: resolved.settings[name].source for name in ("connect-timeout", "idle-timeout", "workers", "listen")
    }
    assert sources == {
        "connect-timeout": "connect-timeout in sidecar.yaml",
        "idle-timeout": "INFERENCE_EXPORTER_IDLE_TIMEOUT",
        "workers": "--workers",
        "listen": "default",
    }


def test_every_option_has_its_field_and_every_field_its_option() -> None:
    built = {option.key for option in config.OPTIONS if not option.planned} - {"config", "engine_metrics"}
    assert built | {"tracing"} == {field.name for field in fields(Config)}


def test_the_configuration_survives_the_control_channel() -> None:
    loaded = load({"OTEL_TRACES_EXPORTER": "otlp"}, None, {**ENGINE, "label-header": "a=X-A", "models": "x,y"})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(loaded), type=Config) == loaded


def test_a_file_may_use_lists_mappings_numbers_and_a_bare_off() -> None:
    text = "access-log: off\nmodels: [a, b/c, 1.10]\nlabel-header: {tenant: X-Tenant, team: X-Team}\nmax-body: 4096\n"
    loaded = load({}, text + "workers:\n", ENGINE)
    assert loaded.access_log == "off"
    assert loaded.models == ("a", "b/c", "1.10")
    assert loaded.label_headers == (LabelHeader("tenant", "x-tenant"), LabelHeader("team", "x-team"))
    assert loaded.max_body == 4096
    assert loaded.workers == 1
    assert load({}, "", ENGINE) == load({}, None, ENGINE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workers: 1\nworkers: 2", "line 2: 'workers' is given twice"),
        ("- a", "a mapping of options is expected, not a list"),
        ("a: [", "not YAML"),
        ("models: [[a]]", "a text, a number or a flat list"),
        ("just text", "a mapping of options is expected, not a text"),
        ("listen: 2020-01-01", ""),
        ("<<: {workers: 2}", "unknown key '<<'"),
        ("config: other.yaml", "unknown key 'config'"),
        ("web-listen-address: a", "did you mean web.listen-address?"),
        ("&a x: *a", ""),
        ("{[a]: 1}", ""),
        ("!!python/object/apply:os.system [x]", "not a list"),
        ("[" * 2000, "not YAML"),
    ],
)
def test_a_file_that_is_not_understood_is_refused(text: str, said: str) -> None:
    (problem,) = refused(text=text)
    assert said in problem
    assert "the file" in problem


def test_everything_wrong_is_told_at_once_with_value_source_and_what_would_do() -> None:
    problems = refused(
        {"INFERENCE_EXPORTER_LISTN": ":1", "INFERENCE_EXPORTER_WORKERS": "0"},
        "lisen: 1\nengine: vllm\n",
        idle_timeout="10",
        slo="x",
        lissen="x",
    )
    assert problems == [
        "the file: unknown key 'lisen'; did you mean listen?",
        "unknown variable INFERENCE_EXPORTER_LISTN; did you mean INFERENCE_EXPORTER_LISTEN?",
        "unknown option --lissen; did you mean --listen?",
        "--engine: 'vllm' (set by engine in the file) is refused; accepted: generic; vllm is not available yet",
        "--idle-timeout: '10' (set by --idle-timeout) is refused; accepted: a duration such as 500ms, 5s, 10m or 1h, from 1ms to 168h",  # noqa: E501 - as it is told
        "--workers: '0' (set by INFERENCE_EXPORTER_WORKERS) is refused; accepted: a whole number from 1 to 256",
        "--slo (set by --slo) is not available yet",
    ]


def test_what_kubernetes_puts_in_for_a_service_of_our_name_is_no_typing_error() -> None:
    environ = {
        "INFERENCE_EXPORTER_SERVICE_HOST": "10.0.0.1",
        "INFERENCE_EXPORTER_SERVICE_PORT": "9464",
        "INFERENCE_EXPORTER_SERVICE_PORT_METRICS": "9464",
        "INFERENCE_EXPORTER_PORT": "tcp://10.0.0.1:9464",
        "INFERENCE_EXPORTER_PORT_9464_TCP": "tcp://10.0.0.1:9464",
        "INFERENCE_EXPORTER_PORT_9464_TCP_PROTO": "tcp",
        "INFERENCE_EXPORTER_CANARY_SERVICE_HOST": "10.0.0.2",
    }
    load(environ, None, ENGINE)
    assert refused({"INFERENCE_EXPORTER_LISTEN_PORT": "8080"})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("5s", 5.0), ("1.5s", 1.5), ("10m", 600.0), ("1h", 3600.0), ("1h30m", 5400.0), ("1ms", 0.001)],
)
def test_durations(text: str, seconds: float) -> None:
    assert load({}, None, {**ENGINE, "idle-timeout": text}).idle_timeout == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["10", "0", "0s", "-5s", "5", "s", "5 s", "5sec", "1e3s", "inf", "1000h", "\u0665s", ""]
)
def test_what_is_no_timeout_is_refused(text: str) -> None:
    (problem,) = refused(idle_timeout=text)
    assert "a duration such as" in problem


def test_zero_needs_no_unit_where_it_has_a_meaning() -> None:
    loaded = load({}, None, {**ENGINE, "drain-delay": "0", "upstream-keepalive": "0s", "slow-threshold": "0"})
    assert (loaded.drain_delay, loaded.upstream_keepalive, loaded.slow_threshold) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("16MiB", 16 * 2**20), ("1GB", 10**9), ("1.5KiB", 1536), ("7 MB", 7 * 10**6)],
)
def test_sizes(text: str, size: int) -> None:
    assert load({}, None, {**ENGINE, "max-body": text}).max_body == size


@pytest.mark.parametrize("text", ["-1", "16M", "16mib", "1.5", "0.1B", "MiB", "1TiB", ""])
def test_what_is_no_size_is_refused(text: str) -> None:
    assert "a size such as" in refused(max_body=text)[0]


def test_sizes_have_bounds_where_beyond_makes_no_sense() -> None:
    assert "from 0 to 256MiB" in refused(inspect_limit="257MiB")[0]
    assert "from 64MiB to" in refused(observer_memory="1MiB")[0]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        ("[::1]:8080", Address("::1", 8080)),
        ("[fe80::1%eth0]:8080", Address("fe80::1%eth0", 8080)),
        ("localhost:8080", Address("localhost", 8080)),
        (":8080", Address(ANY, 8080)),
        ("*:8080", None),
        ("8080", None),
        ("host", None),
        ("host:", None),
        ("host:0", None),
        ("host:65536", None),
        ("host:\u0668", None),
        ("::1:8080", None),
        ("[::1]8080", None),
        ("[::1", None),
        ("[host]:80", None),
        ("a b:80", None),
        ("-a:80", None),
    ],
)
def test_addresses(text: str, address: Address | None) -> None:
    if address is None:
        assert "HOST:PORT" in refused(listen=text)[0]
        return
    assert load({}, None, {**ENGINE, "listen": text}).listen == address
    assert load({}, None, {**ENGINE, "listen": str(address)}).listen == address


@pytest.mark.parametrize(
    ("text", "upstream"),
    [
        ("http://127.0.0.1:8000", Upstream("http", "127.0.0.1", 8000)),
        ("http://engine", Upstream("http", "engine", 80)),
        ("HTTPS://engine.example/", Upstream("https", "engine.example", 443)),
        ("http://[::1]:8000/a/b/", Upstream("http", "::1", 8000, "/a/b")),
        ("127.0.0.1:8000", None),
        ("ftp://engine", None),
        ("http://", None),
        ("http://:8000", None),
        ("http://user:secret@engine", None),
        ("http://engine?x=1", None),
        ("http://engine/#a", None),
        ("http://engine/a b", None),
        ("http://engine/\r\nX: y", None),
        ("http://en\ngine", None),
    ],
)
def test_upstreams(text: str, upstream: Upstream | None) -> None:
    if upstream is None:
        assert "a URL such as" in refused(upstream=text)[0]
        return
    assert load({}, None, {"upstream": text}).upstream == upstream
    assert load({}, None, {"upstream": str(upstream)}).upstream == upstream


@pytest.mark.parametrize("label", ["1a", "a-b", "le", "outcome", "gen_ai_request_model", "__name__", "job", "ä", ""])
def test_a_label_that_is_none_or_taken_is_refused(label: str) -> None:
    assert "label" in refused(label_header=f"{label}=X-Tenant")[0]


@pytest.mark.parametrize(
    "header", ["", "X Tenant", "X:Tenant", "X-Ten\r\nant", "é", "Authorization", "cookie", "X-API-Key"]
)
def test_a_header_that_is_none_or_secret_is_refused(header: str) -> None:
    assert "header" in refused(label_header=f"tenant={header}")[0]


def test_a_label_given_twice_is_refused() -> None:
    assert refused(label_header="a=X-A,a=X-B") == ["--label-header: a is given twice; each label takes one header"]


def test_labels_of_every_metric_are_reserved() -> None:
    assert {"le", "source", "phase", "outcome", "error_type", "gen_ai_operation_name"} <= RESERVED_LABELS


def test_ports_that_exclude_each_other_are_refused() -> None:
    assert "is taken by --listen" in refused({"INFERENCE_EXPORTER_WEB_LISTEN_ADDRESS": "127.0.0.1:8080"})[0]
    load({}, None, {**ENGINE, "listen": "127.0.0.1:9000", "web.listen-address": "127.0.0.2:9000"})
    assert "is the sidecar itself" in refused(upstream="http://localhost:8080")[0]


@pytest.mark.parametrize(
    "option", [option for option in config.OPTIONS if option.planned], ids=lambda option: option.name
)
def test_an_option_of_a_part_that_is_not_built_is_refused_not_ignored(option: config.Option) -> None:
    assert refused({option.variable: "1"}) == [f"{option.flag} (set by {option.variable}) is not available yet"]


def test_engines_and_modes_that_are_not_built_are_refused_by_name() -> None:
    assert "sglang is not available yet" in refused(engine="sglang")[0]
    assert refused(engine="vlm")[0].endswith("accepted: generic")
    assert "passthrough is not available yet" in refused(engine_metrics="passthrough")[0]
    load({}, None, {**ENGINE, "engine-metrics": "off"})


def test_a_single_value_is_taken_once() -> None:
    with pytest.raises(ConfigError, match="one only"):
        load({}, None, {"upstream": ["http://a", "http://b"]})


@given(st.dictionaries(st.sampled_from([option.name for option in config.OPTIONS]), st.text(max_size=30)))
def test_no_text_at_all_makes_it_fail_otherwise(flags: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        load({}, None, {**flags, "upstream": "nonsense"})


@given(st.text(max_size=200))
def test_no_file_at_all_makes_it_fail_otherwise(text: str) -> None:
    resolved = config.resolve({}, text, ENGINE)
    assert resolved.problems or resolved.config()


def test_the_reference_names_every_option_with_its_variable_and_default() -> None:
    page = config.reference_markdown()
    for option in config.OPTIONS:
        (row,) = re.findall(rf"^\| `{re.escape(option.flag)} .*$", page, re.MULTILINE)
        assert f"`{option.variable}`" in row
        assert option.default is None or f"`{option.default}`" in row


def test_relays_load_no_yaml_with_it() -> None:
    code = "import sys, exporter.control; sys.exit(bool({'yaml', 'pydantic', 'difflib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def tracing(**environ: str) -> Tracing:
    return load({f"OTEL_{name}": value for name, value in environ.items()}, None, ENGINE).tracing


def test_spans_are_exported_only_where_somebody_asks_for_them() -> None:
    assert not tracing().enabled
    assert tracing(EXPORTER_OTLP_ENDPOINT="http://c:4317").exporters == ("otlp",)
    assert tracing(EXPORTER_OTLP_TRACES_ENDPOINT="http://c:4317").enabled
    assert tracing(TRACES_EXPORTER="otlp").enabled
    assert tracing(TRACES_EXPORTER="console,otlp").exporters == ("console", "otlp")
    assert not tracing(TRACES_EXPORTER="none", EXPORTER_OTLP_ENDPOINT="http://c:4317").enabled
    assert not tracing(TRACES_EXPORTER="otlp", SDK_DISABLED="True").enabled
    assert tracing(TRACES_EXPORTER="otlp", SDK_DISABLED="1").enabled  # only true is true
    assert not tracing(TRACES_EXPORTER="", EXPORTER_OTLP_ENDPOINT="").enabled


def test_what_opentelemetry_does_not_know_is_warned_about_and_ignored() -> None:
    environ = {
        "OTEL_TRACES_EXPORTER": "zipkin,otlp",
        "OTEL_TRACES_SAMPLER": "jaeger_remote",
        "OTEL_TRACES_SAMPLER_ARG": "x",
    }
    resolved = config.resolve(environ, None, ENGINE)
    assert resolved.config().tracing == Tracing(enabled=True, exporters=("otlp",))
    assert [warning.partition("=")[0] for warning in resolved.warnings] == [
        "OTEL_TRACES_EXPORTER",
        "OTEL_TRACES_SAMPLER",
    ]
    ratio = config.resolve({**environ, "OTEL_TRACES_SAMPLER": "traceidratio"}, None, ENGINE)
    assert ratio.config().tracing.ratio == 1.0
    assert "OTEL_TRACES_SAMPLER_ARG" in ratio.warnings[1]


SAMPLERS = ["always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off",
            "parentbased_traceidratio"]  # fmt: skip


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("ratio", ["0", "0.001", "0.25", "0.5", "0.999", "1", ""])
def test_sampling_is_the_sdks_own(name: str, ratio: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", ratio or "1.0")
    theirs = sampling._get_from_env_or_default()
    ours = tracing(TRACES_EXPORTER="otlp", TRACES_SAMPLER=name, TRACES_SAMPLER_ARG=ratio)
    source = random.Random(ratio)  # noqa: S311 - the same ids in every run
    ids = [source.getrandbits(128) for _ in range(400)] + [1, 2**64 - 1, 2**64, 2**128 - 1, 2**63, 2**63 - 1]
    for trace_id in ids:
        for parent in (None, True, False):
            context = None
            if parent is not None:
                span = SpanContext(trace_id, 1, is_remote=True, trace_flags=TraceFlags(int(parent)))
                context = set_span_in_context(NonRecordingSpan(span))
            decision = theirs.should_sample(context, trace_id, "x").decision
            assert sample(trace_id, parent, ours) == (decision is sampling.Decision.RECORD_AND_SAMPLE)


def test_without_tracing_the_callers_decision_goes_on_and_nothing_of_ours_is_sampled() -> None:
    off = tracing()
    assert [sample(1, parent, off) for parent in (None, True, False)] == [False, True, False]
