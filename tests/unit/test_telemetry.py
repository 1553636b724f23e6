"""Logs: one JSON line per event, without secrets, whatever was said."""

import io
import json
import logging
from collections.abc import Generator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from moorage.telemetry import get_logger, set_up_logging


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Generator[io.StringIO]:
    """What is logged as JSON; the tests' own logging comes back afterwards."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    root = logging.getLogger()
    handlers, level, configuration = root.handlers[:], root.level, structlog.get_config()
    set_up_logging(human=False)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configuration)


def logged(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


@pytest.mark.parametrize("key", ["password", "access_token", "api_key", "Authorization", "cookie", "database_url"])
def test_a_secret_field_is_redacted(lines: io.StringIO, key: str):
    get_logger("test").info("something", **{key: "s3cr3t", "user": "alice"})
    assert "s3cr3t" not in lines.getvalue()
    assert logged(lines)[0]["user"] == "alice"


def test_control_characters_do_not_break_the_line(lines: io.StringIO):
    get_logger("test").info("something", path='/x\n{"event":"forged"}\x1b[2J')
    assert len(logged(lines)) == 1
    assert "\x1b" not in lines.getvalue()


def test_a_failure_is_one_line_with_its_traceback(lines: io.StringIO):
    try:
        raise ValueError("broken")
    except ValueError:
        get_logger("test").exception("failed")
    assert "ValueError: broken" in logged(lines)[0]["exception"]


def test_the_libraries_log_in_the_same_form(lines: io.StringIO):
    logging.getLogger("some.library").warning("careful")
    assert logged(lines)[0]["event"] == "careful"


def test_a_logger_that_was_used_before_logging_was_set_up_again_is_still_heard(lines: io.StringIO):
    early = get_logger("test")
    early.info("first")
    set_up_logging(human=False)
    with capture_logs() as logs:
        early.info("second")
    assert [entry["event"] for entry in logs] == ["second"]
