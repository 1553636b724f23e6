"""200 MiB of files over HTTP, both ways, through a server of its own, in files as large as uploads may be.

    .venv/bin/python -m tests.bench.http_files

Prints one JSON object: MiB/s, and how many seconds of the server's own processor that took, each way; and by how many
MiB the server's memory grew. The last one of these does not depend on what else the machine does.
"""

import http.client
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.served import resident_bytes, serving

_MIB = 1024 * 1024
_FILE_MIB = 25
_FILES = 8
_PORT = 8766
_ACCOUNT = json.dumps({"username": "alice", "password": "correct horse battery"})
_JSON = {"content-type": "application/json"}
_FORM = {"content-type": "multipart/form-data; boundary=b"}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="moorage-bench-") as name, serving(Path(name), _PORT) as pid:
        client = _Client()
        content = os.urandom(_MIB) * _FILE_MIB
        client.put("first", b"")  # makes the sandbox
        before = resident_bytes(pid)
        figures = {
            "raw_up": _measured(pid, lambda: _each(lambda number: client.put(f"f{number}", content))),
            "form_up": _measured(pid, lambda: _each(lambda number: client.upload(f"f{number}", content))),
            "down": _measured(pid, lambda: _each(lambda number: client.get("content", f"f{number}"))),
            "zip": _measured(pid, lambda: client.get("zip", "")),
        }
        print(json.dumps({**figures, "server_grew_mib": round((resident_bytes(pid) - before) / _MIB, 1)}))
        client.delete()


class _Client:
    """A logged-in user with a session, over one connection."""

    def __init__(self) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", _PORT, timeout=120)
        self._headers: dict[str, str] = {}
        self._ask("POST", "/api/auth/register", _ACCOUNT.encode(), _JSON)
        token = json.loads(self._ask("POST", "/api/auth/login", _ACCOUNT.encode(), _JSON))["access_token"]
        self._headers = {"authorization": f"Bearer {token}"}
        self._thread = json.loads(self._ask("POST", "/api/sessions", b"{}", _JSON))["thread_id"]
        self._files = f"/api/files/{self._thread}"

    def put(self, name: str, content: bytes) -> None:
        self._ask("PUT", f"{self._files}/content?path={name}", content)

    def upload(self, name: str, content: bytes) -> None:
        head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        self._ask("POST", f"{self._files}/upload", b"".join([head.encode(), content, b"\r\n--b--\r\n"]), _FORM)

    def get(self, what: str, path: str) -> None:
        self._connection.request("GET", f"{self._files}/{what}?path={path}", headers=self._headers)
        reply = self._connection.getresponse()
        assert reply.status == 200, reply.read()
        while reply.read(_MIB):
            pass

    def delete(self) -> None:
        self._ask("DELETE", f"/api/sessions/{self._thread}", b"")

    def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
        self._connection.request(method, path, body, {**self._headers, **(headers or {})})
        reply = self._connection.getresponse()
        answer = reply.read()
        assert reply.status < 300, answer
        return answer


def _each(do: Callable[[int], None]) -> None:
    for number in range(_FILES):
        do(number)


def _measured(pid: int, transfer: Callable[[], None]) -> dict[str, float]:
    started, cpu = time.perf_counter(), _processor_seconds(pid)
    transfer()
    seconds = time.perf_counter() - started
    return {
        "mib_per_s": round(_FILES * _FILE_MIB / seconds),
        "server_cpu_s": round(_processor_seconds(pid) - cpu, 2),
    }


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
