"""A real server that is asked to stop: every reader is told, and nothing hangs."""

import asyncio
import signal
from pathlib import Path

import httpx
from tests.api.harness import PASSWORD, Event, User, make_settings, only, read_events, running

from moorage.cli.server_process import open_server
from moorage.runtime import open_runtime
from moorage_api.server import bind, serve

_READERS = 20
_READY_SECONDS = 120


async def _new_user(client: httpx.AsyncClient) -> User:
    account = {"username": "alice", "password": PASSWORD}
    await client.post("/api/auth/register", json=account)
    reply = await client.post("/api/auth/login", json=account)
    client.headers["authorization"] = f"Bearer {reply.json()['access_token']}"
    return User("alice", client)


async def test_sigterm_tells_every_reader_and_ends_the_process():
    with open_server("scripted:hello", keep=False) as server:
        url = await asyncio.to_thread(server.wait_ready, seconds=_READY_SECONDS, progress=lambda _: None)
        limits = httpx.Limits(max_connections=_READERS + 5)
        async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits) as client:
            user = await _new_user(client)
            thread = await user.new_session()
            assert only(await user.chat(thread, "hello"), "run_end")["status"] == "success"
            reading = asyncio.Semaphore(0)

            async def read() -> list[Event]:
                events: list[Event] = []
                async with client.stream("GET", f"/api/sessions/{thread}/events") as reply:
                    async for event in read_events(reply):
                        events.append(event)
                        if event.type == "run_end":
                            reading.release()
                return events

            readers = [asyncio.create_task(read()) for _ in range(_READERS)]
            for _ in readers:
                await asyncio.wait_for(reading.acquire(), 30)
            stopping = asyncio.create_task(asyncio.to_thread(server.stop))
            told = await asyncio.wait_for(asyncio.gather(*readers), 30)
            assert await stopping == 0
        for events in told:
            assert events[-1].type == "stream_closed"
            assert events[-1].id is None
            assert events[-1].data == {"reason": "server_restart", "last_seq": events[-2].id}


async def test_a_signal_asks_the_loop_to_stop_and_interrupts_no_step_of_it(database_url: str, public_tmp_path: Path):
    """A reader between its last look and its wait would miss what the signal's handler told it, and be cut off."""
    settings = make_settings(public_tmp_path / "signalled", database_url)
    asked: list[str] = []
    serves = asyncio.Event()
    hangup = signal.getsignal(signal.SIGHUP)
    with bind("127.0.0.1", 0) as listener:
        async with open_runtime(settings) as runtime:
            serving = asyncio.create_task(
                serve(runtime, listener, on_ready=serves.set, on_stop=lambda: asked.append("to stop"))
            )
            await serves.wait()
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            for _ in range(2):
                signal.raise_signal(signal.SIGTERM)
            assert (asked, runtime.draining) == (["to stop"], False)
            await asyncio.sleep(0)
            assert runtime.draining
            await asyncio.wait_for(serving, 30)
    signal.signal(signal.SIGHUP, hangup)


async def test_a_server_that_is_stopping_refuses_work_and_says_when_to_come_back(
    database_url: str, public_tmp_path: Path
):
    settings = make_settings(public_tmp_path / "stopping", database_url)
    async with running(settings) as server, httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        user = await _new_user(client)
        thread = await user.new_session()
        assert (await client.get("/readyz")).json()["checks"]["worker"] == "ok"
        server.runtime.stop_accepting()
        new_work = {
            "/api/sessions": {},
            f"/api/chat/{thread}": {"message": "hello"},
            f"/api/resume/{thread}": {"action": "continue"},
            "/api/approvals/some/decision": {"type": "approve"},
        }
        for path, body in new_work.items():
            reply = await client.post(path, json=body)
            assert (reply.status_code, reply.json()["code"]) == (503, "server_stopping")
            assert int(reply.headers["retry-after"]) > 0
        assert (await client.post(f"/api/sessions/{thread}/cancel")).status_code == 200
        assert (await client.get(f"/api/sessions/{thread}")).status_code == 200
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["worker"]) == (503, "draining")
