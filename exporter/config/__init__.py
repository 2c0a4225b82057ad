"""One typed configuration, from defaults, a YAML file, the environment and flags, in this order.

``load`` is pure: environment and file content are given, never fetched. The option table (``options.OPTIONS``) is the
only place that knows flags, variables, file keys, defaults and help; the command line and docs/configuration.md are
made from it. Relays import this package, so nothing here loads yaml before a file is really read.
"""

from exporter.config.loading import Resolved, Setting, load, resolve
from exporter.config.model import Address, Config, LabelHeader, Upstream
from exporter.config.options import COMMANDS, GROUPS, OPTIONS, Option
from exporter.config.problems import ConfigError, Problem
from exporter.config.reference import reference_markdown
from exporter.config.tracing import Tracing, sample

__all__ = [
    "COMMANDS",
    "GROUPS",
    "OPTIONS",
    "Address",
    "Config",
    "ConfigError",
    "LabelHeader",
    "Option",
    "Problem",
    "Resolved",
    "Setting",
    "Tracing",
    "Upstream",
    "load",
    "reference_markdown",
    "resolve",
    "sample",
]
