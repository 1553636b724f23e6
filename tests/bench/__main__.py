"""`make bench`: the limit in process, the server over `/api/chat` and over the LangGraph wire, in turn, with the ratios
that count; then what durability costs, against bare commits."""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.served import resident_bytes, serving

_HERE = Path(__file__).parent
_ROUNDS = 3
_WAYS = ((), ("--wire",))
_PORT = 8765
_SETTINGS = {"QUOTA_ACTIVE_SESSIONS": "0", "SESSION_LIFE_HOURS": "0", "RUN_CONCURRENCY": "256"}
_URL = f"http://127.0.0.1:{_PORT}"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), _PORT, **_SETTINGS) as pid:
        rounds = [[_run("in_process.py"), *(_run("chat_load.py", _URL, *way) for way in _WAYS)] for _ in range(_ROUNDS)]
        single = _run("chat_load.py", _URL, "--runs", "20", "--concurrency", "1")
        streams = _run("chat_load.py", _URL, "--runs", "200", "--concurrency", "200", "--delay", "0.05")
        memory = resident_bytes(pid)
    limit, chat, wire = (
        statistics.median(figures["runs_per_s"] for figures in kind) for kind in zip(*rounds, strict=True)
    )
    print(f"in process: {limit} runs/s; served: {chat} runs/s; ratio {chat / limit:.2f}")
    print(f"served over the LangGraph wire: {wire} runs/s; ratio {wire / limit:.2f}")
    print(f"first token, 1 at once: {single['first_token_ms']} ms")
    print(f"200 streams of 20 tokens/s: p99 dilation {streams['dilation_p99']}, {streams['failed']} failed")
    print(f"server's resident memory after that: {memory // 1024**2} MiB")
    _print_durable(_run("durable.py"))
    _print_sandboxes(_run("sandboxes.py"))


def _print_durable(cost: dict[str, Any]) -> None:
    near, far = cost["start_ms"], cost["start_in_another_process_ms"]
    print(f"one commit: {cost['commit_ms']} ms; from 16 connections: {cost['commits_per_s']}/s")
    print(
        f"from message to start: {near['p50']} ms p50, {near['p95']} p95 ({cost['start_over_commit']} commits); "
        f"in another process: {far['p50']} p50, {far['p95']} p95 ({cost['far_start_over_commit']} commits)"
    )
    print(f"claims: {cost['claims_per_s']}/s, {cost['claims_over_commits']} x bare commits")
    print(f"events, each waited for: {cost['events_per_s']}/s, {cost['events_over_commits']} x bare commits")
    print(f"replay of 10 000 events: {cost['replay_ms']} ms, {cost['replay_over_select']} x one bare SELECT")


def _print_sandboxes(cost: dict[str, Any]) -> None:
    print(
        f"a command in a sandbox: {cost['command_ms']['p50']} ms p50, {cost['command_ms']['p99']} p99; by the engine's "
        f"exec {cost['docker_exec_ms']['p50']}, {cost['docker_exec_over_command']} x; "
        f"64 at once {cost['64_at_once_ms']}"
    )
    cold, warm = cost["first_command_cold_ms"], cost["first_command_warm_ms"]
    print(f"a thread's first command: {cold['p50']} ms p50; with a warm container {warm['p50']}")
    print(f"200 MiB of files: {cost['upload_mib_per_s']} MiB/s up, {cost['download_mib_per_s']} down")
    over = {name: item["mib_per_s"] for name, item in cost["http"].items() if isinstance(item, dict)}
    print(
        f"the same over HTTP: {over['raw_up']} MiB/s up, {over['form_up']} as a form, {over['down']} down, "
        f"{over['zip']} as an archive; the server +{cost['http']['server_grew_mib']} MiB"
    )
    print(f"an idle sandbox: {cost['idle_sandbox_mib']} MiB")
    for name, flood in cost["floods"].items():
        if isinstance(flood, dict):
            print(
                f"beside {name}: another tenant's commands {flood['others_p95_over_calm']} x (p95), this process "
                f"+{flood['memory_grew_mib']} MiB, the next command {flood['next_command_ms']} ms"
            )


def _run(script: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(_HERE / script), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
