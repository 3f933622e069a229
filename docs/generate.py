"""Writes docs/generated: states from their tables, the configuration reference from the Structs.

`python -m docs.generate`; a test fails when a file is stale.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

import msgspec

from agent.config import AgentConfig
from docs.states import draw_call, draw_realtime, draw_upstream
from protocol.routing.config import RoutingConfig
from relay.config import RelayConfig
from service.logs import LogConfig
from stack.config import StackConfig
from transceiver.config import TransceiverConfig

GENERATED = Path(__file__).parent / "generated"

SECTIONS: tuple[tuple[str, type[msgspec.Struct], str], ...] = (
    ("stack", StackConfig, "`just up` alone reads it."),
    ("relay", RelayConfig, "Read by relays."),
    ("transceiver", TransceiverConfig, "Read by transceivers."),
    ("agent", AgentConfig, "Read by agents."),
    ("routing", RoutingConfig, "Read by relays and transceivers, which must agree on it."),
    ("log", LogConfig, "Read by every process."),
)

CONFIGURATION_HEAD = """# Configuration

Generated from the configuration Structs by `./just docs`. Do not edit.

One TOML file serves all processes; each reads its own sections. `--config FILE` or `ANTIPHON_CONFIG` names it. Every key can be
set by the environment instead, as `ANTIPHON_<SECTION>_<KEY>` (lists separated by commas), which wins over the file. Unknown
sections, keys and variables are refused: one line that names the key, exit status 2.
"""


def pages() -> dict[Path, str]:
    """Every generated file with its contents."""
    return {
        GENERATED / "session-states.md": draw_call(),
        GENERATED / "realtime-states.md": draw_realtime(),
        GENERATED / "upstream-states.md": draw_upstream(),
        GENERATED / "configuration.md": configuration(),
    }


def configuration() -> str:
    parts = [CONFIGURATION_HEAD]
    for name, kind, note in SECTIONS:
        parts += [f"## `[{name}]`\n", note + "\n", *_table(name, kind)]
    return "\n".join(parts).rstrip() + "\n"


def _table(section: str, kind: type[msgspec.Struct]) -> Iterator[str]:
    notes = _notes(kind)
    rows = []
    nested: list[tuple[str, type[msgspec.Struct]]] = []
    for field in msgspec.structs.fields(kind):
        if _is_table(field):
            nested.append((f"{section}.{field.name}", field.type))
            continue
        rows.append(f"| `{field.name}` | {_type(field.type)} | {_default(field)} | {notes.get(field.name, '')} |")
    if rows:
        yield "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""])
    for name, inner in nested:
        if any(not _is_table(field) for field in msgspec.structs.fields(inner)):
            yield f"### `[{name}]`\n"
        yield from _table(name, inner)


def _is_table(field: msgspec.structs.FieldInfo) -> bool:
    return isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)


def _type(kind: object) -> str:
    text = kind.__name__ if isinstance(kind, type) and "[" not in str(kind) else str(kind)
    return text.replace("typing.", "").replace("|", "or").replace("NoneType", "None")


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, tuple | list):
        value = ", ".join(map(str, value))
    return f"`{value}`" if value not in ("", None, {}) else ""


def _notes(kind: type[msgspec.Struct]) -> dict[str, str]:
    """The string below each field is its note."""
    base = kind.__base__
    notes = _notes(base) if base not in (None, msgspec.Struct) else {}
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    for statement, following in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            notes[statement.target.id] = " ".join(str(following.value.value).split()).replace("|", "\\|")
    return notes


def main() -> None:
    GENERATED.mkdir(exist_ok=True)
    for file, text in pages().items():
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
