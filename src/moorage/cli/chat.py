"""`moorage chat`: talk to a running server, and answer its approvals in the terminal."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, NoReturn

import orjson
import typer

from moorage.cli.api_client import ApiClient, ApiProblem, Event, Pending
from moorage.cli.asking import ApprovalPrompt, read_line, stdin_password
from moorage.cli.display import RunPrinter, printable
from moorage.cli.follower import Follower
from moorage.cli.terminal import EXIT_FAILED, EXIT_USAGE, EXIT_WAITING, explained
from moorage.errors import AppError

_DEFAULT_URL = "http://127.0.0.1:8000"
_UNFIT_ANSWER = (409, 422)


def chat(
    message: Annotated[str | None, typer.Argument(help="What to say; without it: a prompt, or all of stdin")] = None,
    url: Annotated[str, typer.Option(help="The server", envvar="MOORAGE_URL")] = _DEFAULT_URL,
    username: Annotated[str | None, typer.Option(envvar="MOORAGE_USERNAME")] = None,
    session: Annotated[str | None, typer.Option(help="Continue this session")] = None,
    new: Annotated[bool, typer.Option("--new", help="Open a new session instead of continuing the latest")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per event on stdout")] = False,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="The password is stdin's first line")
    ] = False,
) -> None:
    """Talk to a server, and approve, edit or reject what its agent wants to do.

    The password comes from a prompt, MOORAGE_PASSWORD or --password-stdin; MOORAGE_TOKEN replaces logging in. Ctrl-C
    cancels the run, twice leaves. Exit codes: 0 done; 1 failed or cancelled; 2 wrong usage; 4 an approval waits and
    there is no terminal to ask in.
    """
    if session is not None and new:
        _refuse("--session and --new exclude each other")
    text = _message(message, password_stdin=password_stdin)
    with explained(), ApiClient(url, token=os.environ.get("MOORAGE_TOKEN") or None) as client:
        if not os.environ.get("MOORAGE_TOKEN"):
            _log_in(client, username, password_stdin=password_stdin)
        thread_id = session or _choose_session(client, new=new)
        conversation = _Conversation(client, thread_id, url=url, as_json=as_json)
        if text is not None and conversation.cannot_begin():
            typer.echo("moorage: the message was not sent", err=True)
        status = conversation.begin()
        if text is not None:
            status = conversation.say(text)
        elif sys.stdin.isatty():
            status = conversation.prompt()
    raise typer.Exit(0 if status == "success" else EXIT_FAILED)


class _Conversation:
    """One session at this terminal."""

    def __init__(self, client: ApiClient, thread_id: str, *, url: str, as_json: bool) -> None:
        self._client = client
        self._thread_id = thread_id
        self._url = url
        self._as_json = as_json
        self._printer = RunPrinter(lambda text: typer.echo(text, nl=False))
        self._prompt = ApprovalPrompt(say=self._notice, read_line=self._read_line)
        self._state = client.get_state(thread_id)
        after = self._state.last_seq
        self._follower = Follower(client, thread_id, after=after, show=self._show, notice=self._notice)

    def cannot_begin(self) -> bool:
        """Whether something waits that nobody can be asked about here."""
        return bool(self._state.pending) and not sys.stdin.isatty()

    def begin(self) -> str:
        """Settle what an earlier visit left: a run that goes on, approvals that wait."""
        if self._state.pending:
            return self._settle("interrupted")
        if self._state.run_status == "busy":
            self._notice("A run is going on in this session; following it.")
            return self._settle(self._following(self._follower.join))
        return "success"

    def say(self, message: str) -> str:
        """Send a message, see it through with all its approvals, and answer how the last run ended."""
        return self._settle(self._following(lambda: self._follower.send(message)))

    def prompt(self) -> str:
        """Messages from the terminal until its end."""
        self._notice("Type a message; Ctrl-D leaves.")
        while True:
            try:
                message = self._read_line("> ").strip()
            except (EOFError, KeyboardInterrupt):
                self._notice("")
                return "success"
            if message:
                self._try(message)

    def _try(self, message: str) -> None:
        try:
            self.say(message)
        except ApiProblem as problem:
            self._notice(problem.detail)

    def _settle(self, status: str) -> str:
        while status == "interrupted":
            state = self._client.get_state(self._thread_id)
            if state.pending:
                status = self._decide(state.pending)
            elif state.run_status == "busy":  # somebody else decided
                status = self._following(self._follower.join)
            else:
                return "cancelled"
        return status

    def _decide(self, pending: Sequence[Pending]) -> str:
        if not sys.stdin.isatty():
            raise self._nobody_to_ask(pending)
        for item in pending:
            self._printer.learn_call(item.call_id, item.tool_name)
        try:
            decisions = self._prompt.ask(pending)
        except EOFError:
            self._notice("")
            raise self._nobody_to_ask(pending) from None
        except KeyboardInterrupt:
            self._client.cancel(self._thread_id)
            self._notice("\nCancelled: nothing of it was run.")
            return "cancelled"
        try:
            return self._following(lambda: self._follower.resume(decisions))
        except ApiProblem as problem:
            if problem.status not in _UNFIT_ANSWER:
                raise
            self._notice(f"Not accepted: {problem.detail}")
            return "interrupted"

    def _nobody_to_ask(self, pending: Sequence[Pending]) -> typer.Exit:
        """Say what waits and how to decide it; nothing is ever approved by itself."""
        lines = ["moorage: waiting for approval, and there is no terminal to ask in:"]
        for item in pending:
            body = orjson.dumps({"type": "approve", "digest": item.digest}).decode()
            lines.append(f"  {item.id}  {item.tool_name}: {item.description}")
            lines.append(f"    POST {self._url}/api/approvals/{item.id}/decision {body}")
        lines.append(f"Decide in a terminal with: moorage chat --url {self._url} --session {self._thread_id}")
        self._notice("\n".join(lines))
        return typer.Exit(EXIT_WAITING)

    def _following(self, follow: Callable[[], str]) -> str:
        with _cancelling(self._cancel):
            status = follow()
        self._printer.fresh_line()
        return status

    def _cancel(self) -> None:
        try:
            self._client.cancel(self._thread_id)
        except AppError as error:
            self._notice(f"The run could not be cancelled: {error.detail}")

    def _show(self, event: Event) -> None:
        if self._as_json:
            typer.echo(orjson.dumps({"seq": event.seq, "event": event.type, "data": event.data}))
        else:
            self._printer.show(event)

    def _notice(self, text: str) -> None:
        if sys.stdout.isatty():
            self._printer.fresh_line()
        typer.echo(printable(text), err=True)

    def _read_line(self, prompt: str, *, prefill: str = "") -> str:
        return read_line(prompt, prefill=prefill, err=self._as_json or not sys.stdout.isatty())


@contextmanager
def _cancelling(cancel: Callable[[], None]) -> Generator[None]:
    """The first Ctrl-C cancels the run and lets its stream come to its end; the second one leaves."""
    pressed = False

    def on_interrupt(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        typer.echo("\nCancelling; Ctrl-C again leaves at once.", err=True)
        threading.Thread(target=cancel, daemon=True).start()

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _message(message: str | None, *, password_stdin: bool) -> str | None:
    """The message to send at once, if any: the argument, or stdin when that is no terminal."""
    if message is None and not sys.stdin.isatty():
        if password_stdin:
            _refuse("with --password-stdin the message must be an argument")
        message = sys.stdin.read()
    if message is not None and not message.strip():
        _refuse("the message is empty")
    return message


def _log_in(client: ApiClient, username: str | None, *, password_stdin: bool) -> None:
    if username is None:
        if not sys.stdin.isatty():
            _refuse("say who you are: --username NAME with MOORAGE_PASSWORD or --password-stdin, or MOORAGE_TOKEN")
        username = str(typer.prompt("Username", err=True))
    client.login(username, _password(password_stdin=password_stdin))


def _password(*, password_stdin: bool) -> str:
    if password_stdin:
        return stdin_password()
    if password := os.environ.get("MOORAGE_PASSWORD"):
        return password
    if not sys.stdin.isatty():
        _refuse("no terminal to ask for the password: set MOORAGE_PASSWORD or use --password-stdin")
    return str(typer.prompt("Password", hide_input=True, err=True))


def _choose_session(client: ApiClient, *, new: bool) -> str:
    latest = None if new else client.find_latest_session()
    thread_id = latest or client.open_session()
    typer.echo(f"Session {thread_id}" + (" (continued; --new opens another)" if latest else ""), err=True)
    return thread_id


def _refuse(reason: str) -> NoReturn:
    typer.secho(f"moorage: {reason}", err=True, fg="red")
    raise typer.Exit(EXIT_USAGE)
