"""A real engine: `transformers serve` with the tiny model, one request after another or in continuous batches."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Self

from support.ports import free_port
from support.processes import REPOSITORY, Process
from support.tiny_model import MODEL

COMMAND = REPOSITORY / ".venv/bin/transformers"
HUB = REPOSITORY / ".cache/huggingface/hub"
OFFLINE = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_CACHE": str(HUB),
}
START_UP = 120.0
"""Seconds; importing torch takes 4 to 10 of them, a busy machine more."""


class TransformersServe:
    """A running `transformers serve`; `model` is the name that requests must carry."""

    def __init__(self, *, continuous_batching: bool = False, port: int | None = None) -> None:
        self.model = str(ensure_tiny_model())
        HUB.mkdir(parents=True, exist_ok=True)  # without it /v1/models answers 500
        self.port = port or free_port()
        batching = ["--continuous-batching", "--cb-num-blocks", "64", "--cb-max-batch-tokens", "512"]
        self.process = Process(
            [
                *(COMMAND, "serve", self.model, "--device", "cpu"),
                *("--host", "127.0.0.1", "--port", str(self.port)),
                *(batching if continuous_batching else []),
            ],
            name="transformers serve",
            env=OFFLINE,
        )
        try:
            self.process.wait_http(f"{self.url}/health", START_UP)
        except AssertionError:
            self.process.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return f"http://127.0.0.1:{self.port}"


def ensure_tiny_model() -> Path:
    """The tiny model's folder; made in a process of its own, so that torch stays out of this one."""
    if not (MODEL / "config.json").exists():
        subprocess.run(
            [sys.executable, "-m", "support.tiny_model"],
            cwd=REPOSITORY / "tests",
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **OFFLINE},
        )
    return MODEL
