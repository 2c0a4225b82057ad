"""``python -m exporter.relay --control-fd N``: started by the supervisor only."""

import argparse
import resource

import uvloop

from exporter import control
from exporter.relay.process import run


def main() -> None:
    """Adopt the control channel and serve."""
    parser = argparse.ArgumentParser(prog="exporter.relay")
    parser.add_argument("--control-fd", type=int, required=True)
    sock = control.adopt(parser.parse_args().control_fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(run(sock))


main()
