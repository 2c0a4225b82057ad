"""Which requests become spans: the standard OTEL_* variables as one value, and the SDK's own sampling rule on it.

As the OpenTelemetry specification asks, an empty variable is an unset one, and a value that is not understood is
warned about and ignored rather than refused. Endpoints, headers and batch settings stay in the environment, where the
exporters themselves read them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

_IDS = 1 << 64
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_EXPORTERS = ("otlp", "console")
_SAMPLERS: dict[str, tuple[bool, float | None]] = {  # parent based?, ratio (None: from OTEL_TRACES_SAMPLER_ARG)
    "always_on": (False, 1.0),
    "always_off": (False, 0.0),
    "traceidratio": (False, None),
    "parentbased_always_on": (True, 1.0),
    "parentbased_always_off": (True, 0.0),
    "parentbased_traceidratio": (True, None),
}
_DEFAULT_SAMPLER = "parentbased_always_on"


@dataclass(frozen=True, slots=True)
class Tracing:
    """Whether spans are exported, by what, and which; ``ratio`` is the share of sampled roots, from 0 to 1."""

    enabled: bool = False
    parent_based: bool = True
    ratio: float = 1.0
    exporters: tuple[str, ...] = ()  # of "otlp" and "console"


def sample(trace_id: int, parent_sampled: bool | None, tracing: Tracing) -> bool:  # noqa: FBT001 - a flag off the wire
    """Whether a request is sampled, exactly as TraceIdRatioBased and ParentBased of the SDK decide.

    ``parent_sampled`` is the flag of the incoming traceparent, ``None`` without one. While tracing is off the caller's
    decision is passed on and nothing of our own is sampled.
    """
    if parent_sampled is not None and (tracing.parent_based or not tracing.enabled):
        return parent_sampled
    return tracing.enabled and trace_id % _IDS < round(tracing.ratio * _IDS)


def read(environ: Mapping[str, str]) -> tuple[Tracing, list[str]]:
    """The tracing that the environment asks for, and warnings about what was not understood."""
    warnings: list[str] = []
    exporters = _exporters(environ, warnings)
    parent_based, ratio = _sampler(environ, warnings)
    disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    enabled = bool(exporters) and not disabled
    return Tracing(enabled, parent_based, ratio, exporters if enabled else ()), warnings


def _exporters(environ: Mapping[str, str], warnings: list[str]) -> tuple[str, ...]:
    text = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if not text:
        return ("otlp",) if any(environ.get(name, "").strip() for name in _ENDPOINTS) else ()
    names = list(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in (*_EXPORTERS, "none")]
    if unknown:
        warnings.append(f"OTEL_TRACES_EXPORTER={text!r}: {', '.join(unknown)} ignored; otlp, console, none are known")
    return tuple(name for name in names if name in _EXPORTERS)


def _sampler(environ: Mapping[str, str], warnings: list[str]) -> tuple[bool, float]:
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower() or _DEFAULT_SAMPLER
    if name not in _SAMPLERS:
        warnings.append(f"OTEL_TRACES_SAMPLER={name!r} ignored; known are {', '.join(_SAMPLERS)}")
        name = _DEFAULT_SAMPLER
    parent_based, ratio = _SAMPLERS[name]
    return parent_based, _ratio(environ, warnings) if ratio is None else ratio


def _ratio(environ: Mapping[str, str], warnings: list[str]) -> float:
    text = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    try:
        ratio = float(text) if text else 1.0
    except ValueError:
        ratio = -1.0
    if 0.0 <= ratio <= 1.0:
        return ratio
    warnings.append(
        f"OTEL_TRACES_SAMPLER_ARG={text!r} ignored, everything is sampled; a number from 0 to 1 is accepted"
    )
    return 1.0
