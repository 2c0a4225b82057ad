"""docs/configuration.md, written from the option table."""

from collections.abc import Iterator

from exporter.config.options import COMMANDS, GROUPS, OPTIONS, Option

_INTRODUCTION = """\
# Configuration

Only `--upstream` is needed. Every option can be set three ways; a later one wins: the default, a key in the YAML file
named by `--config`, an environment variable, a flag. An empty variable is an unset one.

Durations are written `500ms`, `5s`, `10m`, `1h`, sizes `16MiB`, `1GB` or plain bytes. Lists are separated by commas; a
flag that takes a list can be given several times, and the file takes a YAML list. Unknown options, variables and keys
are refused, all of them at once, with the nearest known name. `inference-exporter check` takes the same options and
prints every value with its source and everything that is wrong.

```yaml
# inference-exporter sidecar --config sidecar.yaml
upstream: http://127.0.0.1:8000
web.listen-address: 0.0.0.0:9464
label-header:
  tenant: X-Tenant
```
"""

_TRACING = """\
## Spans

Spans are set by the standard OpenTelemetry variables. They are exported when `OTEL_TRACES_EXPORTER` (`otlp`, `console`,
`none`), `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set, and not at all otherwise or with
`OTEL_SDK_DISABLED=true`. `OTEL_TRACES_SAMPLER` takes all six standard names (`always_on`, `always_off`, `traceidratio`,
`parentbased_always_on` (the default), `parentbased_always_off`, `parentbased_traceidratio`), the ratio is in
`OTEL_TRACES_SAMPLER_ARG`. Everything else (headers, protocol, batching, resource) is read by the OpenTelemetry SDK.
As its specification asks, a value that is not understood is warned about and ignored.
"""


def reference_markdown() -> str:
    """The whole page."""
    return "\n".join((_INTRODUCTION, *_commands(), *_groups(), _TRACING))


def _commands() -> Iterator[str]:
    yield "## Commands\n"
    for name, text in COMMANDS.items():
        yield f"- `inference-exporter {name}`: {text or 'not available yet'}"
    yield ""


def _groups() -> Iterator[str]:
    for group, title in GROUPS.items():
        yield f"## {title}\n"
        yield "| flag | variable | default | |"
        yield "|---|---|---|---|"
        yield from (_row(option) for option in OPTIONS if option.group == group)
        yield ""


def _row(option: Option) -> str:
    default = "required" if option.required else f"`{option.default}`" if option.default else ""
    return f"| `{option.flag} {option.metavar}` | `{option.variable}` | {default} | {option.help} |"
