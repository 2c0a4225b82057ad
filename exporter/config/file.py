"""The YAML file as texts by key: one flat mapping whose keys are the options without dashes."""

from collections.abc import Hashable
from typing import Any

import yaml


class FileError(ValueError):
    """The file is not a flat YAML mapping."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, of which YAML itself silently keeps the last."""

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
    """The entries; a null value is left out, as if it were not there."""
    try:
        loaded = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise FileError(f"not YAML: {' '.join(str(error).split())}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise FileError(f"a mapping of options is expected, not a {type(loaded).__name__}")
    return {str(key): _texts(str(key), value) for key, value in loaded.items() if value is not None}


def _texts(key: str, value: object) -> str | list[str]:
    if isinstance(value, list):
        return [_text(key, each) for each in value]
    if isinstance(value, dict):
        return [f"{name}={_text(key, each)}" for name, each in value.items()]
    return _text(key, value)


def _text(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"  # YAML 1.1 reads a bare off as false
    if isinstance(value, str | int | float):
        return str(value)
    raise FileError(f"{key}: a text, a number or a list of them is expected, not {value!r}")
