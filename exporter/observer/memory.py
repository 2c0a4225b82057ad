"""The observer's own memory ceiling: what to do at which size, and how large the process is."""

import os
from enum import Enum
from pathlib import Path

_SHED = 0.8
_GRACE = 60.0  # seconds: a process that is too large from the start would only be restarted for ever
_STATM = Path("/proc/self/statm")


class Advice(Enum):
    """What the size of the process demands."""

    NOTHING = "nothing"
    SHED = "shed"
    RESTART = "restart"


def advise(size: int, ceiling: int, uptime: float) -> Advice:
    """What to do at ``size`` bytes of at most ``ceiling`` (0 is no ceiling), ``uptime`` seconds after the start."""
    if ceiling <= 0 or size <= _SHED * ceiling:
        return Advice.NOTHING
    return Advice.RESTART if size > ceiling and uptime >= _GRACE else Advice.SHED


def resident(statm: Path = _STATM) -> int | None:
    """The resident memory of this process in bytes; ``None`` where the system does not tell."""
    try:
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
