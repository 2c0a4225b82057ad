"""`--web.config.file`: TLS and basic auth of the web port, in the format of the Prometheus exporter toolkit.

tls_server_config:            files are relative to the directory of this one
  cert_file: server.crt
  key_file: server.key
basic_auth_users:
  prometheus: $2y$10$...      a bcrypt hash
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

_HASH = re.compile(r"\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}")
_TOP = ("basic_auth_users", "tls_server_config")
_TLS = ("cert_file", "key_file")


class WebConfigError(ValueError):
    """The file cannot be used; the message names the place, the value and what would be accepted."""


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What protects the web port: nothing, where both are empty. ``users`` are bcrypt hashes by name."""

    cert_file: Path | None = None
    key_file: Path | None = None
    users: Mapping[str, bytes] = field(default_factory=dict)


def load(path: Path) -> WebConfig:
    """Read the file and make sure that everything it names can be used."""
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise WebConfigError(f"{path}: {error}") from error
    top = _mapping(f"{path}", found, _TOP)
    cert, key = _tls(path, top.get("tls_server_config"))
    return WebConfig(cert, key, _users(path, top.get("basic_auth_users")))


def _tls(path: Path, found: object) -> tuple[Path | None, Path | None]:
    if found is None:
        return None, None
    section = _mapping(f"{path}: tls_server_config", found, _TLS)
    files: list[Path] = []
    for name in _TLS:
        value = section.get(name)
        if not isinstance(value, str) or not value:
            raise WebConfigError(f"{path}: tls_server_config.{name}: {value!r}, expected the name of a PEM file")
        files.append(path.parent / value)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files[0], files[1], password="")
    except (OSError, ValueError) as error:
        raise WebConfigError(f"{path}: tls_server_config: {files[0]} with {files[1]}: {error}") from error
    return files[0], files[1]


def _users(path: Path, found: object) -> dict[str, bytes]:
    where = f"{path}: basic_auth_users"
    users: dict[str, bytes] = {}
    for name, value in _mapping(where, found).items():
        if not isinstance(value, str) or not _HASH.fullmatch(value):
            # what stands there may be a password in clear: it must not reach a log
            raise WebConfigError(f"{where}.{name}: not a bcrypt hash, expected the like of $2y$10$ and 53 characters")
        users[name] = value.encode()
    return users


def _mapping(where: str, found: object, keys: tuple[str, ...] | None = None) -> dict[str, object]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise WebConfigError(f"{where}: {type(found).__name__}, expected a mapping")
    for key in found:
        if not isinstance(key, str) or (keys is not None and key not in keys):
            raise WebConfigError(f"{where}: {key!r} is not known, accepted: {', '.join(keys or ('names',))}")
    return found
