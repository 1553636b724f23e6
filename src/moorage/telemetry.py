"""Structured logs: one JSON line each, with the ids of the request or run they belong to, and without secrets."""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import orjson
import structlog
from structlog.typing import Processor

_SECRET_WORDS = ("password", "secret", "token", "api_key", "apikey", "authorization", "cookie", "database_url")
_REDACTED = "***"


def _redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    for key in event:
        if any(word in key.lower() for word in _SECRET_WORDS):
            event[key] = _REDACTED
    return event


def _dump(event: Any, **_kwargs: Any) -> str:
    return orjson.dumps(event, default=repr).decode()


_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _redact,
]
_PROCESSORS: list[Processor] = [*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter]


def set_up_logging(*, level: str = "INFO", human: bool | None = None) -> None:
    """Send all logs, ours and the libraries', to stderr. `human`: coloured lines, not JSON (default: on a tty)."""
    human = sys.stderr.isatty() if human is None else human
    structlog.configure(
        processors=_PROCESSORS,  # always this list: loggers keep the one that they began with
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    tail: list[Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if human
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_dump)]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("httpx", "httpx2", "httpcore", "openai", "docker", "urllib3", "alembic", "psycopg.pool"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose first argument is an event name and whose keywords are its fields."""
    return structlog.stdlib.get_logger(name)
