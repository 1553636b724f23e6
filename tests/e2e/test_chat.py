"""`moorage chat` against a running server: with a terminal, without one, and over a network that breaks."""

import contextlib
import json
import os
import pty
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator

import pytest
from click.testing import Result
from typer.testing import CliRunner

from moorage.cli import app
from moorage.cli.api_client import ApiClient
from moorage.cli.server_process import ServerProcess, open_server
from moorage.cli.terminal import EXIT_FAILED, EXIT_USAGE, EXIT_WAITING

PASSWORD = "correct horse battery"
COUNTED = 40
# A process whose terminal this is gets Ctrl-C from it.
TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


@pytest.fixture(scope="module")
def server() -> Generator[ServerProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SANDBOX", "bubblewrap")
        with open_server("scripted:calls", keep=False) as found:
            yield found


@pytest.fixture(scope="module")
def url(server: ServerProcess) -> str:
    url = server.wait_ready(seconds=90, progress=lambda _: None)
    with ApiClient(url) as client:
        client.register("alice", PASSWORD)
    return url


def environment(url: str) -> dict[str, str]:
    return {"MOORAGE_URL": url, "MOORAGE_USERNAME": "alice", "MOORAGE_PASSWORD": PASSWORD}


def chat(url: str, *arguments: str, stdin: str = "", **changes: str) -> Result:
    """Without a terminal."""
    return CliRunner().invoke(app, ["chat", *arguments], input=stdin, env=environment(url) | changes)


def execute(command: str) -> str:
    return json.dumps({"calls": [{"name": "execute", "args": {"command": command}}], "then": "That was all."})


class Terminal:
    """A pseudo terminal with `moorage chat` in it; a context manager."""

    def __init__(self, url: str, *arguments: str) -> None:
        self.shown = ""
        self._read = 0
        self._terminal, other_end = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, sys.executable, "-m", "moorage", "chat", *arguments],
            env=os.environ | environment(url),
            stdin=other_end,
            stdout=other_end,
            stderr=other_end,
            start_new_session=True,
        )
        os.close(other_end)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def expect(self, pattern: str, *, seconds: float = 60) -> None:
        """Wait until `pattern` is shown, after what was expected before."""
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self.shown[self._read :])) is None:
            assert time.monotonic() < deadline, f"{pattern} was not shown:\n{self.shown}"
            assert self._pump(), f"it ended before {pattern}:\n{self.shown}"
        self._read += found.end()

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def exit_code(self) -> int:
        while self._pump():
            continue
        return self._process.wait()

    def _pump(self) -> bool:
        if not select.select([self._terminal], [], [], 1)[0]:
            return True
        try:
            chunk = os.read(self._terminal, 65536)
        except OSError:  # the other side is closed
            return False
        self.shown += chunk.decode(errors="replace")
        return bool(chunk)


@contextlib.contextmanager
def breaking_network(url: str, *, after: float) -> Generator["BreakingNetwork"]:
    """A way to the server on which every stream breaks so many seconds after it began."""
    network = BreakingNetwork(int(url.rpartition(":")[2]), after)
    thread = threading.Thread(target=network.forward)
    thread.start()
    try:
        yield network
    finally:
        network.stop()
        thread.join()


class BreakingNetwork:
    """Copies bytes both ways, in one thread, until the time of the stream that comes back is up.

    What is asked before, such as whose password this is, takes as long as it takes.
    """

    def __init__(self, target: int, after: float) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.broken = 0
        self._target = target
        self._after = after
        self._stopped = False
        self._peers: dict[socket.socket, socket.socket] = {}
        self._ends: list[tuple[float, socket.socket]] = []

    def stop(self) -> None:
        self._stopped = True

    def forward(self) -> None:
        with self._listener:
            while not self._stopped:
                for ready in select.select([self._listener, *self._peers], [], [], 0.05)[0]:
                    self._accept() if ready is self._listener else self._copy(ready)
                for due, end in self._ends:
                    if due < time.monotonic() and end in self._peers:
                        self.broken += 1
                        self._break(end)
        for end in list(self._peers):
            self._break(end)

    def _accept(self) -> None:
        client, server = self._listener.accept()[0], socket.create_connection(("127.0.0.1", self._target))
        self._peers |= {client: server, server: client}

    def _copy(self, source: socket.socket) -> None:
        if source not in self._peers:
            return
        try:
            chunk = source.recv(65536)
            if chunk.startswith(b"HTTP/1.1 200") and b"content-type: text/event-stream" in chunk:
                self._ends.append((time.monotonic() + self._after, source))
            self._peers[source].sendall(chunk)
        except OSError:
            chunk = b""
        if not chunk:
            self._break(source)

    def _break(self, end: socket.socket) -> None:
        other = self._peers.pop(end, None)
        if other is not None:
            self._peers.pop(other)
            other.close()
            end.close()


def test_a_human_approves_edits_and_rejects_in_the_terminal(url: str) -> None:
    with Terminal(url, "--new", execute("echo one")) as terminal:
        terminal.expect(r"command: echo one")
        terminal.expect(r"Do it\?")
        terminal.type("e\n")
        terminal.expect(r"Arguments: ")
        terminal.type('\x01\x0b{"command": "echo two"}\n')
        terminal.expect(r"Right\?")
        terminal.type("y\n")
        terminal.expect(r"\n +two\r")
        terminal.expect(r"exit code 0")
        assert terminal.exit_code() == 0


def test_a_hidden_command_is_shown_before_it_is_asked_for(url: str) -> None:
    with Terminal(url, "--new", execute("echo a\u202eb")) as terminal:
        terminal.expect(r"echo a<U\+202E>b")
        terminal.expect(r"WARNING: 1 invisible")
        terminal.expect(r"Do it\?")
        terminal.type("n\nno tricks\n")
        terminal.expect(r"rejected")
        terminal.expect(r"no tricks")
        assert terminal.exit_code() == 0


def test_ctrl_c_cancels_the_run(url: str) -> None:
    with Terminal(url, "--new", execute("echo started; sleep 50")) as terminal:
        terminal.expect(r"Do it\?")
        terminal.type("y\n")
        terminal.expect(r"\n +started\r")
        terminal.type("\x03")
        terminal.expect(r"The run ended: cancelled", seconds=10)
        assert terminal.exit_code() == EXIT_FAILED


def test_without_a_terminal_nothing_is_approved(url: str) -> None:
    result = chat(url, "--new", execute("touch approved"))
    assert result.exit_code == EXIT_WAITING
    assert re.search(r"POST \S+/api/approvals/[0-9a-f]{32}/decision", result.stderr)
    thread_id = result.stderr.split()[1]
    with ApiClient(url) as client:
        client.login("alice", PASSWORD)
        assert len(client.get_state(thread_id).pending) == 1


def test_a_message_that_cannot_be_sent_yet_is_not_swallowed(url: str) -> None:
    thread_id = chat(url, "--new", execute("true")).stderr.split()[1]
    result = chat(url, "--session", thread_id, "another one")
    assert result.exit_code == EXIT_WAITING
    assert "the message was not sent" in result.stderr


def test_json_has_one_event_a_line_in_order(url: str) -> None:
    result = chat(url, "--new", "--json", "hello")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["event"], events[-1]["event"]) == ("message_received", "run_end")


def test_the_message_may_come_from_stdin(url: str) -> None:
    assert "I expect a message such as" in chat(url, "--new", stdin="hello\n").stdout


def test_the_latest_session_is_continued(url: str) -> None:
    thread_id = chat(url, "--new", "hello").stderr.split()[1]
    assert chat(url, "hello again").stderr.split()[1] == thread_id


def test_a_network_that_breaks_loses_and_doubles_nothing(url: str) -> None:
    with Terminal(url, "--new", execute(f"for i in $(seq {COUNTED}); do echo tick $i; sleep 0.1; done")) as terminal:
        terminal.expect(r"Do it\?")
        terminal.type("\x04")
        assert terminal.exit_code() == EXIT_WAITING
    with breaking_network(url, after=0.7) as network, Terminal(network.url) as terminal:
        terminal.expect(r"Do it\?")
        terminal.type("y\n")
        terminal.expect(r"That was all\.")
    assert network.broken > 0
    assert re.findall(r"\btick (\d+)\r", terminal.shown) == [str(number) for number in range(1, COUNTED + 1)]


@pytest.mark.parametrize(
    ("arguments", "changes", "code"),
    [
        (["hi"], {"MOORAGE_PASSWORD": "wrong"}, EXIT_FAILED),
        (["hi"], {"MOORAGE_USERNAME": ""}, EXIT_USAGE),
        (["hi"], {"MOORAGE_PASSWORD": ""}, EXIT_USAGE),
        (["  "], {}, EXIT_USAGE),
        (["--new", "--session", "alice-550e8400-e29b-41d4-a716-446655440000", "hi"], {}, EXIT_USAGE),
        (["--session", "alice-550e8400-e29b-41d4-a716-446655440000", "hi"], {}, EXIT_FAILED),
        (["hi"], {"MOORAGE_URL": "http://127.0.0.1:1"}, EXIT_FAILED),
    ],
)
def test_what_cannot_be_done_has_its_exit_code(
    url: str, arguments: list[str], changes: dict[str, str], code: int
) -> None:
    assert chat(url, *arguments, **changes).exit_code == code


def test_the_exit_codes_are_in_the_help() -> None:
    assert "4 an approval waits" in " ".join(CliRunner().invoke(app, ["chat", "--help"]).stdout.split())
