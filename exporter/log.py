"""What every process says on stderr: one logfmt line per event, ``ts level process msg key=value``."""

import json
import logging
import re
import sys
from datetime import UTC, datetime

_logger = logging.getLogger("exporter")
_BARE = re.compile(r"[!#-<>-~]+")  # visible ASCII without space, quote and equals sign

Field = str | float | bool | None


class _Logfmt(logging.Formatter):
    """One line, whatever is in the values; what is ``None`` is left out."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields: dict[str, Field] = {
            "ts": moment,
            "level": record.levelname.lower(),
            "process": self._process,
            "msg": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return " ".join(f"{key}={_value(value)}" for key, value in fields.items() if value is not None)


def _value(value: Field) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text)


def setup(process: str) -> None:
    """Send everything from INFO on, of this package and of libraries, to stderr in the name of ``process``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Logfmt(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _logger.setLevel(logging.INFO)


def info(message: str, **fields: Field) -> None:
    """Something that an operator may want to know."""
    _logger.info("%s", message, extra={"fields": fields})


def warning(message: str, **fields: Field) -> None:
    """Something that went wrong and was coped with."""
    _logger.warning("%s", message, extra={"fields": fields})


def error(message: str, **fields: Field) -> None:
    """Something that an operator has to see."""
    _logger.error("%s", message, extra={"fields": fields})
