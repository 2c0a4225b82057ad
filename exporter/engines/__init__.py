"""What is particular to one engine, as frozen values with a few pure functions; one file for each engine.

So far there is one: ``generic``, any server that speaks OpenAI's API and says nothing about its own phases.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine: the value of its provider label, and whether usage may be asked for in the client's stead."""

    name: str
    asks_usage: bool = True


GENERIC = Engine("generic")

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (GENERIC,)}
