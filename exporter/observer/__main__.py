"""``python -m exporter.observer --control-fd N``: started by the supervisor only."""

import argparse
import logging
import sys
import time

import uvloop

from exporter import control, log
from exporter.observer.process import run
from exporter.observer.quiet import OncePerMinute


def main() -> int:
    """Adopt the control channel and serve; the exit code."""
    parser = argparse.ArgumentParser(prog="exporter.observer")
    parser.add_argument("--control-fd", type=int, required=True)
    sock = control.adopt(parser.parse_args().control_fd)
    log.setup("observer")
    for handler in logging.getLogger().handlers:
        handler.addFilter(OncePerMinute(time.monotonic))
    return uvloop.run(run(sock))


sys.exit(main())
