"""Configuration: one TOML file for all processes, overridden by the environment, validated before anything starts.

1. Each process names the sections it reads and the msgspec Struct of each (`[relay]`, `[routing]`, `[log]` …).
2. `ANTIPHON_CONFIG` or `--config` names the file; without one, defaults apply.
3. `ANTIPHON_<SECTION>_<KEY>` overrides a key: `ANTIPHON_RELAY_LISTEN=127.0.0.1:3478,[::1]:3478`. Lists are separated by commas.
4. Unknown sections, unknown keys and wrong values are refused with one line that names the key; the process exits with 2.
"""

from __future__ import annotations

import difflib
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

import msgspec

__all__ = ["EXIT_CONFIG", "SECTIONS", "Config", "ConfigError", "exit_for", "given_keys", "load", "overriding"]

Section = TypeVar("Section", bound=msgspec.Struct)

SECTIONS = ("agent", "log", "relay", "routing", "stack", "transceiver")
"""Every section a configuration file may have: one file serves all processes, each reads its own sections of it."""

PREFIX = "ANTIPHON_"
NOT_KEYS = frozenset({PREFIX + "CONFIG", PREFIX + "LOAD_KEY"})  # the latter is the load generator's, and a secret
EXIT_CONFIG = 2


class ConfigError(Exception):
    """A configuration that cannot be used; `key` names the place (`relay.listen`, `ANTIPHON_RELAY_LISTEN`)."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key


class Config:
    """The validated sections of one process: `config[RelayConfig]` is its `[relay]`."""

    __slots__ = ("_by_type",)

    def __init__(self, sections: Mapping[type[msgspec.Struct], msgspec.Struct]) -> None:
        self._by_type = sections

    def __getitem__(self, kind: type[Section]) -> Section:
        section = self._by_type[kind]
        assert isinstance(section, kind)
        return section


def load(sections: Mapping[str, type[msgspec.Struct]], file: Path | None, environ: Mapping[str, str]) -> Config:
    """Read and validate `sections` (name → Struct). Raises ConfigError.

    A Struct may raise ValueError from `__post_init__` with a sentence that begins with the key's name.
    """
    tables = _read(_named(file, environ))
    _overlay(tables, sections, environ)
    return Config({kind: _convert(name, tables.get(name, {}), kind) for name, kind in sections.items()})


def given_keys(section: str, file: Path | None, environ: Mapping[str, str]) -> set[str]:
    """The keys of a section that the file or the environment sets, for those who fill in only the rest."""
    prefix = f"{PREFIX}{section.upper()}_"
    named = {variable.removeprefix(prefix).lower() for variable in environ if variable.startswith(prefix)}
    return named | set(_read(_named(file, environ)).get(section, {}))


def overriding(section: str, values: Mapping[str, object]) -> dict[str, str]:
    """Environment variables that hand `values` to a child process's `[section]`; None leaves a key alone."""
    return {
        f"{PREFIX}{section.upper()}_{key.upper()}": ",".join(map(str, value))
        if isinstance(value, list | tuple)
        else str(value)
        for key, value in values.items()
        if value is not None
    }


def exit_for(error: ConfigError) -> NoReturn:
    """One line that names the key, exit 2."""
    print(f"config: {error}", file=sys.stderr)
    sys.exit(EXIT_CONFIG)


def _named(file: Path | None, environ: Mapping[str, str]) -> Path | None:
    return file or (Path(environ[PREFIX + "CONFIG"]) if environ.get(PREFIX + "CONFIG") else None)


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        tables = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(str(file), error.strerror or "cannot be read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), f"not TOML: {error}") from None
    for name, table in tables.items():
        if name not in SECTIONS:
            raise ConfigError(name, f"unknown section{_nearest(name, SECTIONS)}")
        if not isinstance(table, dict):
            raise ConfigError(name, "must be a table")
    return tables


def _overlay(tables: dict[str, Any], sections: Mapping[str, type[msgspec.Struct]], environ: Mapping[str, str]) -> None:
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in NOT_KEYS:
            continue
        section, _, key = variable[len(PREFIX) :].lower().partition("_")
        if section not in SECTIONS or not key:
            known = [PREFIX + name.upper() + "_" for name in SECTIONS]
            raise ConfigError(variable, f"unknown variable; they begin with one of {', '.join(known)}")
        if section not in sections:
            continue  # another process's
        table = tables.setdefault(section, {})
        kind: Any = sections[section]
        while name := _table_of(key, kind):  # `[transceiver.timeouts]`: …_TIMEOUTS_DRAIN
            table, kind, key = table.setdefault(name, {}), _fields(kind)[name].type, key.removeprefix(name + "_")
        if key not in _fields(kind):
            raise ConfigError(variable, f"unknown key{_nearest(key, _fields(kind))}")
        information = msgspec.inspect.type_info(_fields(kind)[key].type)
        listed = isinstance(information, msgspec.inspect.ListType | msgspec.inspect.VarTupleType)
        table[key] = [part.strip() for part in text.split(",") if part.strip()] if listed else text


def _table_of(key: str, kind: Any) -> str | None:  # noqa: ANN401
    """The field of `kind` that is a table, and that the key of a variable leads into."""
    fields = _fields(kind)
    tables = (name for name, field in fields.items() if key.startswith(name + "_") and _is_struct(field.type))
    return next(tables, None) if key not in fields else None


def _fields(kind: Any) -> dict[str, msgspec.structs.FieldInfo]:  # noqa: ANN401
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def _is_struct(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _convert(section: str, table: dict[str, Any], kind: type[Section]) -> Section:
    _refuse_unknown(section, table, kind)
    try:
        return msgspec.convert(table, kind, strict=False)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        place = section + where.rstrip("`")
        key, colon, sentence = message.partition(": ")
        if colon and key.isidentifier():  # from __post_init__: the sentence begins with the key
            place, message = f"{place}.{key}", sentence
        elif message.startswith("Invalid enum value"):
            message = f"must be {_choices(kind, where.rstrip('`'))}, not{message.removeprefix('Invalid enum value')}"
        raise ConfigError(place, message) from None


def _choices(kind: Any, where: str) -> str:  # noqa: ANN401
    """The words that the key at `where` (`.setup`, `.timeouts.drain`) may be."""
    for name in where.split(".")[1:]:
        kind = _fields(kind)[name].type
    return " or ".join(map(str, get_args(kind)))


def _refuse_unknown(place: str, table: dict[str, Any], kind: type[msgspec.Struct]) -> None:
    fields = _fields(kind)
    for key, value in table.items():
        if key not in fields:
            raise ConfigError(f"{place}.{key}", f"unknown key{_nearest(key, fields)}")
        if _is_struct(fields[key].type) and isinstance(value, dict):
            _refuse_unknown(f"{place}.{key}", value, fields[key].type)


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
