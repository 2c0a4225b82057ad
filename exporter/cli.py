"""The command line: ``inference-exporter sidecar|check|drain``, made from the option table."""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter import __version__, log
from exporter.config import COMMANDS, GROUPS, OPTIONS, Config, ConfigError, Option, Problem, Resolved, Tracing, resolve
from exporter.config.problems import suggest

PROGRAM = "inference-exporter"
USAGE = 2
_PLAIN = re.compile(r"[A-Za-z0-9./]([A-Za-z0-9./:=_,-]*[A-Za-z0-9./=_-])?", re.ASCII)  # YAML needs no quotes
_DRAIN_OPTIONS = ("health.listen-address", "config")


class UsageError(Exception):
    """What was typed cannot be run; the message says all that is wrong."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code. Errors are on stderr, 2 is wrong usage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(words)
    except UsageError as error:
        _complain(f"{PROGRAM}: {error}")
        return USAGE


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        (_say if words else _complain)(_overview())
        return 0 if words else USAGE
    if words[0] in ("-V", "--version"):
        _say(f"{PROGRAM} {__version__}")
        return 0
    command = words[0]
    if command not in COMMANDS:
        raise UsageError(f"unknown command {command!r}{suggest(command, COMMANDS)} (known: {', '.join(COMMANDS)})")
    if COMMANDS[command] is None:
        raise UsageError(f"the command {command!r} is not available yet")
    return _RUN[command](_typed(command, words[1:]))


def _overview() -> str:
    lines = [f"usage: {PROGRAM} COMMAND [options]", "", "The observability sidecar for LLM inference servers.", ""]
    lines += [f"  {name:9} {text}" for name, text in COMMANDS.items() if text]
    planned = ", ".join(name for name, text in COMMANDS.items() if not text)
    lines += ["", f"Not available yet: {planned}.", "", f"{PROGRAM} COMMAND --help shows a command's options,"]
    return "\n".join([*lines, f"{PROGRAM} --version the version."])


@dataclass(frozen=True, slots=True)
class _Typed:
    """What was typed after the command: texts by option, and what belongs to no option."""

    flags: dict[str, list[str]]
    problems: list[Problem]


def _typed(command: str, words: list[str]) -> _Typed:
    known, rest = _parser(command).parse_known_args(words)
    flags = {name: texts for name, texts in vars(known).items() if texts is not None}
    return _Typed(flags, list(_unknown(command, rest)))


def _unknown(command: str, rest: list[str]) -> Iterator[Problem]:
    flags = [option.flag for option in _options(command) if not option.planned]
    value_of_unknown = False
    for word in rest:
        if word.startswith("-"):
            name, equals, _ = word.partition("=")
            yield Problem("", f"unknown option {name}{suggest(name, flags)}")
            value_of_unknown = not equals
        elif value_of_unknown:
            value_of_unknown = False
        else:
            yield Problem("", f"{word!r} belongs to no option")


def _options(command: str) -> tuple[Option, ...]:
    return tuple(option for option in OPTIONS if command != "drain" or option.name in _DRAIN_OPTIONS)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(message)


def _parser(command: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"{PROGRAM} {command}",
        description=f"{COMMANDS[command]}.",
        epilog="Each option can also be set by a key in the file and by a variable: "
        "--web.listen-address by INFERENCE_EXPORTER_WEB_LISTEN_ADDRESS. Spans are set by the standard OTEL_* "
        "variables. docs/configuration.md has it all.",
        usage=f"{PROGRAM} {command} [options]",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28, width=79),
    )
    groups = {group: parser.add_argument_group(title) for group, title in GROUPS.items() if group != "planned"}
    for option in OPTIONS:
        if command != "drain" or option.name in _DRAIN_OPTIONS:
            target = groups.get(option.group, parser)
            target.add_argument(
                option.flag, dest=option.name, action="append", metavar=option.metavar, help=_help(option)
            )
    return parser


def _help(option: Option) -> str:
    if option.planned:
        return argparse.SUPPRESS
    default = "required" if option.required else option.default
    return (f"{option.help} ({default})" if default else option.help).replace("%", "%%")


def _resolve(typed: _Typed) -> Resolved:
    """All sources together; a file that cannot be read is one of the problems."""
    name = typed.flags.get("config", [os.environ.get("INFERENCE_EXPORTER_CONFIG", "")])[-1]
    problems = list(typed.problems)
    text: str | None = None
    if name:
        try:
            text = Path(name).read_text("utf-8")
        except (OSError, ValueError) as error:
            problems.append(Problem("config", f"--config: {name} cannot be read: {error}"))
    resolved = resolve(os.environ, text, typed.flags, name)
    resolved.problems[:0] = problems
    return resolved


def _checked(typed: _Typed) -> Resolved:
    """As ``_resolve``, and the files that the configuration names can be used."""
    resolved = _resolve(typed)
    web = resolved.values.get("web_config_file")
    if web is not None:
        from exporter.observer.webconfig import WebConfigError, load

        try:
            load(Path(web))
        except WebConfigError as error:
            resolved.problems.append(Problem("web.config.file", f"--web.config.file: {error}"))
    return resolved


def _sidecar(typed: _Typed) -> int:
    from exporter.supervisor import ListenError, run

    resolved = _checked(typed)
    config = _config(resolved)
    log.setup("supervisor")
    for warning in resolved.warnings:
        log.warning(warning)
    try:
        return run(config)
    except ListenError as error:
        log.error(str(error))
        return 1


def _config(resolved: Resolved) -> Config:
    try:
        return resolved.config()
    except ConfigError as error:
        raise UsageError(str(error)) from None


def _check(typed: _Typed) -> int:
    """Print the configuration so that it could be used as a file, and what is wrong with it."""
    resolved = _checked(typed)
    for setting in resolved.settings.values():
        if setting.texts and not setting.option.planned:
            source = "" if setting.source == "default" else f"  # {setting.source}"
            text = setting.text if _PLAIN.fullmatch(setting.text) else json.dumps(setting.text)
            _say(f"{setting.option.name}: {text}{source}")
    _say(f"# spans: {_spans(resolved.values['tracing'])}")
    if not resolved.problems:
        _say(f"# ends within {_ends_within(resolved):.0f} s of SIGTERM; terminationGracePeriodSeconds has to be more")
    for warning in resolved.warnings:
        _complain(f"warning: {warning}")
    for problem in resolved.problems:
        _complain(f"wrong: {problem}")
    return USAGE if resolved.problems else 0


def _ends_within(resolved: Resolved) -> float:
    from exporter.supervisor import Rhythm

    return Rhythm().ends_within(resolved.config())


def _spans(tracing: Tracing) -> str:
    if not tracing.enabled:
        return "off; they are exported when OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_TRACES_EXPORTER is set"
    share = f"{tracing.ratio:.6g} of all requests"
    sampled = f"as the caller decided, else {share}" if tracing.parent_based else share
    return f"to {', '.join(tracing.exporters)}, sampled: {sampled}"


def _drain(typed: _Typed) -> int:
    from exporter.supervisor.ask import drain

    resolved = _resolve(typed)
    wrong = [problem for problem in resolved.problems if problem in typed.problems or problem.option in _DRAIN_OPTIONS]
    if wrong:
        raise UsageError(str(ConfigError(wrong)))
    refusal = drain(resolved.values["health_listen_address"])
    if refusal is not None:
        _complain(f"{PROGRAM} drain: {refusal}")
        return 1
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _complain(text: str) -> None:
    sys.stderr.write(f"{text}\n")


_RUN: dict[str, Callable[[_Typed], int]] = {"sidecar": _sidecar, "check": _check, "drain": _drain}
