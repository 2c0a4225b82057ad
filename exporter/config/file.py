"""The YAML file as texts by key: one flat mapping whose keys are the options without dashes.

Every scalar is taken as it is written, as on the command line: YAML's own guesses would turn a bare ``off`` into false
and a model named 1.10 into 1.1.
"""

from collections.abc import Hashable
from typing import Any

import yaml


class FileError(ValueError):
    """The file is not a flat YAML mapping."""


class _Loader(yaml.BaseLoader):
    """Refuses a key given twice, of which YAML itself silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - as PyYAML
        """The mapping, if its keys are different."""
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise FileError(f"line {key.start_mark.line + 1}: {name!r} is given twice")
            seen.add(name)
        return super().construct_mapping(node, deep)


def read(text: str) -> dict[str, str | list[str]]:
    """The entries; an empty value is left out, as if it were not there."""
    try:
        loaded = yaml.load(text, _Loader)  # noqa: S506 - a BaseLoader makes nothing but texts, lists and mappings
    except (yaml.YAMLError, RecursionError) as error:
        raise FileError(f"not YAML: {' '.join(str(error).split())}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise FileError(f"a mapping of options is expected, not a {_KINDS[type(loaded)]}")
    return {str(key): _texts(str(key), value) for key, value in loaded.items() if value}


_KINDS: dict[type, str] = {str: "text", list: "list"}


def _texts(key: str, value: object) -> str | list[str]:
    if isinstance(value, list):
        return [_text(key, each) for each in value]
    if isinstance(value, dict):
        return [f"{name}={_text(key, each)}" for name, each in value.items()]
    return _text(key, value)


def _text(key: str, value: object) -> str:
    if isinstance(value, str):
        return value
    raise FileError(f"{key}: a text, a number or a flat list of them is expected")
