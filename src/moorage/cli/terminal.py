"""What every command shares: settings or a clear refusal, and errors as one line with an exit code."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import typer

from moorage.errors import AppError
from moorage.settings import Settings, SettingsError, load_settings

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_MISSING = 3
EXIT_WAITING = 4


def settings_or_exit(**changes: object) -> Settings:
    """The settings of environment and `.env`, with what the command line changes; exits with 2 when they are wrong."""
    try:
        settings = load_settings(overrides={key: value for key, value in changes.items() if value is not None})
    except SettingsError as error:
        typer.secho(f"moorage: {error.detail}", err=True, fg="red")
        raise typer.Exit(EXIT_USAGE) from None
    return settings


@contextmanager
def explained() -> Generator[None]:
    """Turn an expected failure into one line on stderr and exit code 1."""
    try:
        yield
    except AppError as error:
        typer.secho(f"moorage: {error.detail}", err=True, fg="red")
        raise typer.Exit(EXIT_FAILED) from None
    except BaseExceptionGroup as group:
        expected = group.subgroup(AppError)
        if expected is None or group.split(AppError)[1] is not None:
            raise
        for error in _leaves(expected):
            typer.secho(f"moorage: {error}", err=True, fg="red")
        raise typer.Exit(EXIT_FAILED) from None


def _leaves(group: BaseExceptionGroup[AppError]) -> Iterator[str]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error.detail
