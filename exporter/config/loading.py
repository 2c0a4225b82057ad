"""Defaults, file, environment and flags laid over each other, with everything that is wrong told at once."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from exporter.config import tracing
from exporter.config.model import Address, Config, LabelHeader, Upstream
from exporter.config.options import BY_NAME, BY_VARIABLE, ENV_PREFIX, NOT_IN_CONFIG, OPTIONS, Option
from exporter.config.problems import ConfigError, Problem, suggest

Texts = str | Sequence[str]

# A Service named inference-exporter puts such variables into every pod beside it; they are nobody's typing error.
_SERVICE_LINK = re.compile(
    r"INFERENCE_EXPORTER(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://.*")
_ANY_HOST = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound
_LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost", *_ANY_HOST)


@dataclass(frozen=True, slots=True)
class Setting:
    """One option's value as text, and where it came from: ``default``, or the flag, variable or file key itself."""

    option: Option
    texts: tuple[str, ...] | None
    source: str

    @property
    def text(self) -> str:
        """As it could be written again; empty where unset."""
        return ",".join(self.texts or ())


@dataclass(slots=True)
class Resolved:
    """A configuration on its way: settings by option name, parsed values by field, and what is wrong."""

    settings: dict[str, Setting] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def config(self) -> Config:
        """The finished configuration; ConfigError with every problem where there is one."""
        if self.problems:
            raise ConfigError(self.problems)
        return Config(**self.values)


def load(environ: Mapping[str, str], file_text: str | None, flags: Mapping[str, Texts]) -> Config:
    """The configuration, or ConfigError with everything that is wrong with it. Flags are named without dashes."""
    return resolve(environ, file_text, flags).config()


def resolve(
    environ: Mapping[str, str], file_text: str | None, flags: Mapping[str, Texts], file_name: str = "the file"
) -> Resolved:
    """As ``load``, but with the sources of all values, problems and warnings as a value."""
    resolved = Resolved()
    resolved.settings = {option.name: Setting(option, _split(option, option.default), "default") for option in OPTIONS}
    for setting in (*_from_file(file_text, file_name, resolved), *_from_environ(environ, resolved)):
        resolved.settings[setting.option.name] = setting
    for setting in _from_flags(flags, resolved):
        resolved.settings[setting.option.name] = setting
    for setting in resolved.settings.values():
        _parse(setting, resolved)
    resolved.problems += _contradictions(resolved)
    resolved.values["tracing"], warnings = tracing.read(environ)
    resolved.warnings += warnings
    return resolved


def _split(option: Option, texts: Texts | None) -> tuple[str, ...] | None:
    if texts is None:
        return None
    given = (texts,) if isinstance(texts, str) else tuple(texts)
    if not option.many:
        return given
    return tuple(part.strip() for text in given for part in text.split(",") if part.strip())


def _from_file(file_text: str | None, name: str, resolved: Resolved) -> Iterator[Setting]:
    if file_text is None:
        return
    from exporter.config.file import FileError, read  # yaml is loaded only where there is a file

    try:
        entries = read(file_text)
    except FileError as error:
        resolved.problems.append(Problem("config", f"{name}: {error}"))
        return
    for key, texts in entries.items():
        option = BY_NAME.get(key)
        if option is None or key == "config":
            near = suggest(key, (known for known in BY_NAME if known != "config"))
            resolved.problems.append(Problem("", f"{name}: unknown key {key!r}{near}"))
        else:
            yield Setting(option, _split(option, texts), f"{key} in {name}")


def _from_environ(environ: Mapping[str, str], resolved: Resolved) -> Iterator[Setting]:
    for name in sorted(environ):
        value = environ[name]
        if not name.startswith(ENV_PREFIX) or not value:
            continue
        option = BY_VARIABLE.get(name)
        if option is not None:
            yield Setting(option, _split(option, value), name)
        elif not (_SERVICE_LINK.fullmatch(name) or (name.endswith("_PORT") and _SERVICE_URL.fullmatch(value))):
            resolved.problems.append(Problem("", f"unknown variable {name}{suggest(name, BY_VARIABLE)}"))


def _from_flags(flags: Mapping[str, Texts], resolved: Resolved) -> Iterator[Setting]:
    for name, texts in flags.items():
        option = BY_NAME.get(name)
        if option is None:
            near = suggest(f"--{name}", (known.flag for known in OPTIONS))
            resolved.problems.append(Problem("", f"unknown option --{name}{near}"))
        else:
            yield Setting(option, _split(option, texts), option.flag)


def _parse(setting: Setting, resolved: Resolved) -> None:
    option, source = setting.option, setting.source
    parsed: list[object] = []
    if option.planned:
        if setting.texts is not None:
            resolved.problems.append(Problem(option.name, f"{option.flag} (set by {source}) is not available yet"))
        return
    if option.required and not setting.texts:
        resolved.problems.append(Problem(option.name, f"{option.flag} is required: {option.help}"))
        return
    texts = setting.texts or ()
    if len(texts) > 1 and not option.many:
        resolved.problems.append(Problem(option.name, f"{option.flag}: {', '.join(texts)} (set by {source}): one only"))
        return
    for text in texts:
        try:
            parsed.append(option.parse(text))
        except ValueError as error:
            problem = f"{option.flag}: {text!r} (set by {source}) is refused; accepted: {error}"
            resolved.problems.append(Problem(option.name, problem))
    if option.name not in NOT_IN_CONFIG and len(parsed) == len(texts):
        resolved.values[option.key] = tuple(parsed) if option.many else parsed[0] if parsed else None


def _contradictions(resolved: Resolved) -> Iterator[Problem]:
    yield from _shared_addresses(resolved)
    labels: Iterable[LabelHeader] = resolved.values.get("label_headers", ())
    names = [each.label for each in labels]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Problem("label-header", f"--label-header: {name} is given twice; each label takes one header")


def _shared_addresses(resolved: Resolved) -> Iterator[Problem]:
    names = ("listen", "web.listen-address", "health.listen-address")
    given: list[tuple[str, Address]] = [
        (name, resolved.values[BY_NAME[name].key]) for name in names if BY_NAME[name].key in resolved.values
    ]
    for index, (name, here) in enumerate(given):
        for other, there in given[:index]:
            if here.port == there.port and (here.host == there.host or {here.host, there.host} & {*_ANY_HOST}):
                yield Problem(name, f"--{name}: {here} is taken by --{other} ({there}); each needs a port of its own")
    upstream: Upstream | None = resolved.values.get("upstream")
    for name, here in given:
        if upstream is not None and upstream.port == here.port and _same_host(upstream.host, here.host):
            yield Problem("upstream", f"--upstream: {upstream} is the sidecar itself (--{name} {here})")


def _same_host(host: str, listening: str) -> bool:
    return host == listening or (host in _LOCAL_HOSTS and listening in _LOCAL_HOSTS)
