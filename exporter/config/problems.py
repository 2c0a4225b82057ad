"""What can be wrong with a configuration, told with the option, the value, its source and what would be accepted."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong; ``option`` is its name without dashes, empty where the name itself is unknown."""

    option: str
    text: str

    def __str__(self) -> str:
        return self.text


class ConfigError(ValueError):
    """Everything that is wrong with a configuration, all at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """At least one problem."""
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def suggest(name: str, known: Iterable[str]) -> str:
    """``; did you mean X?`` where a known name is near, else nothing."""
    from difflib import get_close_matches  # only when something is wrong

    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
