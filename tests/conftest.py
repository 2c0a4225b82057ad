"""What holds for every test: shared peers, and no property judged by the time that an example takes."""

from collections.abc import Iterator

import pytest
from hypothesis import settings
from support.otlp import OtlpReceiver
from support.scripted_engine import ScriptedEngine
from support.transformers_serve import TransformersServe

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def scripted_engine() -> Iterator[ScriptedEngine]:
    """A fresh engine that answers as each request says."""
    with ScriptedEngine() as engine:
        yield engine


@pytest.fixture
def otlp() -> Iterator[OtlpReceiver]:
    """A fresh collector, OTLP over HTTP."""
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def serial_engine() -> Iterator[TransformersServe]:
    """`transformers serve`, one request after another: waiting is real, and invisible to clients."""
    with TransformersServe() as engine:
        yield engine


@pytest.fixture(scope="session")
def batching_engine() -> Iterator[TransformersServe]:
    """`transformers serve` with continuous batching."""
    with TransformersServe(continuous_batching=True) as engine:
        yield engine
