"""How names, values and help are written in both text formats."""

from exporter.catalog import BASE_LABELS, Kind, Metric


def escape(value: str) -> str:
    """A label value as it stands between quotes."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def label_names(metric: Metric, header_labels: tuple[str, ...]) -> tuple[str, ...]:
    """All label names of a metric, in the order in which series carry their values."""
    return (*BASE_LABELS, *header_labels, *metric.labels) if metric.base else metric.labels


def label_pairs(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    """Labels as they stand between braces: ``a="1",b="2"``."""
    return ",".join(f'{name}="{escape(value)}"' for name, value in zip(names, values, strict=True))


def family(metric: Metric) -> str:
    """The name of the metric's family: a counter's is without its ``_total``."""
    return metric.name.removesuffix("_total") if metric.kind is Kind.COUNTER else metric.name


def unit(metric: Metric) -> str:
    """The unit that OpenMetrics may state, which must be how the family's name ends; else empty."""
    word = metric.unit.replace(" ", "_")
    return word if word and family(metric).endswith(f"_{word}") else ""


def head(metric: Metric, *, openmetrics: bool) -> str:
    """The HELP, TYPE and, in OpenMetrics, UNIT lines of a histogram or gauge."""
    text = escape(metric.help) if openmetrics else metric.help.replace("\\", "\\\\").replace("\n", "\\n")
    lines = f"# HELP {metric.name} {text}\n# TYPE {metric.name} {metric.kind.value}\n"
    stated = unit(metric) if openmetrics else ""
    return f"{lines}# UNIT {metric.name} {stated}\n" if stated else lines
