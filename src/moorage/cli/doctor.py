"""`moorage doctor`: what works here, what does not, and what to do about it."""

import asyncio
from dataclasses import asdict
from typing import Annotated

import orjson
import typer

from moorage.cli.checks import check_python, run_checks
from moorage.cli.terminal import EXIT_FAILED
from moorage.runtime.checks import Finding, Status
from moorage.settings import SettingsError, load_settings
from moorage.telemetry import set_up_logging

_COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per check")] = False,
    model_call: Annotated[
        bool, typer.Option("--model-call", help="Ask the model for one word; may cost money")
    ] = False,
) -> None:
    """Check Python, settings, secrets, database, sandbox, model, disk and port, each by trying it.

    Exit codes: 0 nothing fails; 1 something does.
    """
    set_up_logging(level="ERROR")
    findings: list[Finding] = []

    def tell(finding: Finding) -> None:
        findings.append(finding)
        _print_json(finding) if as_json else _print(finding)

    tell(check_python())
    try:
        settings = load_settings()
    except SettingsError as error:
        tell(Finding("settings", Status.FAIL, error.detail, "correct .env or the environment"))
        raise typer.Exit(EXIT_FAILED) from None
    tell(Finding("settings", Status.OK, "complete and consistent"))
    asyncio.run(run_checks(settings, call_model=model_call, tell=tell))
    if any(finding.status is Status.FAIL for finding in findings):
        raise typer.Exit(EXIT_FAILED)


def _print(finding: Finding) -> None:
    mark = typer.style(f"{finding.status.value:<4}", fg=_COLOURS[finding.status])
    typer.echo(f"{mark}  {finding.name:<9} {finding.detail}")
    if finding.fix:
        typer.echo(f"{'':15} → {finding.fix}")


def _print_json(finding: Finding) -> None:
    typer.echo(orjson.dumps(asdict(finding)))
