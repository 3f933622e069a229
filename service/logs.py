"""Structured logs on standard error: readable on a terminal, JSON lines elsewhere. Standard output is for `ready` lines."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import msgspec
import structlog

__all__ = ["LogConfig", "configure", "get_logger"]

get_logger = structlog.get_logger
"""`log = get_logger(); log.info("call ended", call="rtc_…", reason="hangup")`: an event in words, then fields."""


class LogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The `[log]` section."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


def configure(config: LogConfig, process: str) -> None:
    """Set up logging for this process; every line carries `process`."""
    console = config.format == "console" or (config.format == "auto" and sys.stderr.isatty())
    structlog.contextvars.bind_contextvars(process=process)
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if console else structlog.processors.JSONRenderer()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        *([] if console else [structlog.processors.format_exc_info]),
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, config.level.upper())),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),  # one write a line: processes share the terminal
        cache_logger_on_first_use=True,
    )
    # Libraries that log by the standard module (hypercorn, trio-websocket): warnings and worse, as they are.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
