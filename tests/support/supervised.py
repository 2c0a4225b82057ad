"""Runs the real supervisor over given commands, with short intervals: ``supervised.py JSON``."""

import ctypes
import json
import os
import sys

from exporter import config, log
from exporter.supervisor.fleet import Commands
from exporter.supervisor.rhythm import Rhythm
from exporter.supervisor.run import run

PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    given = json.loads(sys.argv[1])
    if given["subreaper"]:  # orphans come to it, as to PID 1
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    log.setup("supervisor")
    loaded = config.load(os.environ, None, given["flags"])
    return run(loaded, Commands(given["relay"], given["observer"]), Rhythm(**given["rhythm"]))


if __name__ == "__main__":
    sys.exit(main())
