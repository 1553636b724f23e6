"""Streams that break off: in the middle of a run, and when it is over."""

from collections.abc import AsyncIterator, Sequence

from tests.compat.wire import Frame, Wire, numbers, run_body, streamed

type Facts = AsyncIterator[tuple[str, str]]

COUNT = 30
MODES = ["values", "messages-tuple"]


async def resumable(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    async with wire.run_stream(thread, numbers(COUNT), stream_mode=MODES, stream_resumable=True) as stream:
        place = _place(stream.headers)
        first = await stream.until("messages", 5)
    yield "headers of a stream", _headers(stream.headers)
    yield "resumable: frames with an id", _share(first)
    async with wire.stream("GET", place, **{"Last-Event-ID": first[-1].id}) as stream:
        rest = await stream.all()
    yield "resumable, left and joined in mid-run: the numbers arrive", _complete([*first, *rest])
    yield "... the stream's last frame", rest[-1].event
    yield "... the run ended as", (await wire.get(f"/threads/{thread}/runs"))[0]["status"]
    async for fact in _after_the_end(wire, place, first):
        yield fact


async def _after_the_end(wire: Wire, place: str, first: Sequence[Frame]) -> Facts:
    for what, after in (("the id where it was left", first[-1].id), ("`-`", "-"), ("no id", None)):
        headers = {} if after is None else {"Last-Event-ID": after}
        async with wire.stream("GET", place, **headers) as stream:
            rest = await stream.all(seconds=10)
        whole = [*first, *rest] if after == first[-1].id else rest
        yield f"resumable, joined after the end with {what}", f"{_complete(whole)}; ends with {_last(rest)}"
    async with wire.stream("GET", place, **{"Last-Event-ID": "nonsense"}) as stream:
        await stream.all(seconds=10)
    yield "joined with an id that never was", str(stream.status)


async def not_resumable(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    async with wire.run_stream(thread, numbers(COUNT), stream_mode=MODES) as stream:
        place = _place(stream.headers)
        first = await stream.until("messages", 5)
    yield "not resumable: frames with an id", _share(first)
    async with wire.stream("GET", place, **({"Last-Event-ID": first[-1].id} if first[-1].id else {})) as stream:
        rest = await stream.all()
    yield "not resumable, left and joined in mid-run: the numbers arrive", _complete([*first, *rest])
    async with wire.stream("GET", place, **{"Last-Event-ID": "-"}) as stream:
        rest = await stream.all(seconds=10)
    yield "not resumable, joined after the end with `-`", f"{_complete(rest)}; ends with {_last(rest)}"


async def whole(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    async with wire.run_stream(thread, numbers(3), stream_mode=MODES) as stream:
        frames = await stream.all()
    yield "a run's frames", ", ".join(dict.fromkeys(frame.event for frame in frames))


async def disconnecting(wire: Wire) -> Facts:
    for way in ("continue", "cancel"):
        thread = await wire.new_thread()
        body = {"stream_mode": MODES, "on_disconnect": way}
        async with wire.run_stream(thread, numbers(COUNT), **body) as stream:
            await stream.until("messages", 3)
        run = (await wire.get(f"/threads/{thread}/runs"))[0]["run_id"]
        yield f"`on_disconnect: {way}`, left in mid-run: the run ends as", await wire.until_run(thread, run)


async def stateless(wire: Wire) -> Facts:
    body = {"assistant_id": "agent", "input": {"messages": [{"type": "human", "content": numbers(COUNT)}]}}
    async with wire.stream("POST", "/runs/stream", {**body, "stream_mode": MODES, "stream_resumable": True}) as stream:
        place = _place(stream.headers)
        first = await stream.until("messages", 5)
    yield "stateless: the place to join", "under /threads" if place.startswith("/threads/") else "under /runs"
    async with wire.stream("GET", place, **{"Last-Event-ID": first[-1].id}) as stream:
        rest = await stream.all()
    yield "stateless, joined in mid-run", f"{stream.status}: {_complete([*first, *rest])}"


async def of_the_thread(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    for mode in ("run_modes", "lifecycle", "state_update"):
        async with wire.stream("GET", f"/threads/{thread}/stream?stream_mode={mode}") as stream:
            run = (await wire.create(thread, numbers(3), stream_mode=MODES)).json()["run_id"]
            await wire.until_run(thread, run)
            frames = await stream.all(seconds=2)
        yield (
            f"`GET /threads/{{id}}/stream`, {mode}",
            ", ".join(dict.fromkeys(frame.event for frame in frames)) or "none",
        )
        if mode == "run_modes":
            yield "... frames with an id", _share(frames)
    async with wire.stream("GET", f"/threads/{thread}/stream?stream_mode=state_update") as stream:
        await wire.post(f"/threads/{thread}/state", {"values": {"todos": []}})
        frames = await stream.all(seconds=2)
    yield "`GET /threads/{id}/stream`, state_update, when the state is changed", _events(frames)


async def quiet(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    message = run_body(numbers(1, pause=7), stream_mode="values")
    async with wire.http.stream("POST", f"/threads/{thread}/runs/stream", json=message) as reply:
        comments = [line async for line in reply.aiter_lines() if line.startswith(":")]
    yield "a run that is quiet for 7 s: comments", ", ".join(dict.fromkeys(comments)) or "none"
    reply = await wire.wait(thread, numbers(1, pause=7))
    yield (
        "... and while it is waited for: the answer begins with",
        "a space" if reply.text[0].isspace() else reply.text[0],
    )


async def unknown_run(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    run = "00000000-0000-4000-8000-000000000000"
    async with wire.join(thread, run) as stream:
        frames = await stream.all(seconds=5)
    yield "the stream of an unknown run", f"{stream.status} {_last(frames)}"
    reply = await wire.http.get(f"/threads/{thread}/runs/{run}/join")
    yield "waiting for an unknown run", str(reply.status_code) + (" `__error__`" if "__error__" in reply.text else "")


def _place(headers: object) -> str:
    return str(headers["location"])  # type: ignore[index]


def _headers(headers: object) -> str:
    names = ("location", "content-location", "cache-control", "x-accel-buffering", "content-type")
    return ", ".join(name for name in names if name in headers)  # type: ignore[operator]


def _events(frames: Sequence[Frame]) -> str:
    return ", ".join(dict.fromkeys(frame.event for frame in frames)) or "none"


def _share(frames: Sequence[Frame]) -> str:
    count = sum(bool(frame.id) for frame in frames)
    return "all" if count == len(frames) else "none" if count == 0 else "some"


def _complete(frames: Sequence[Frame]) -> str:
    heard = streamed(frames).split()
    wanted = [str(number) for number in range(1, COUNT + 1)]
    if heard == wanted:
        return "each once"
    if not heard:
        return "none"
    twice = " some twice," if len(set(heard)) < len(heard) else ""
    return f"{twice} {'all' if set(heard) >= set(wanted) else 'not all'}".strip()


def _last(frames: Sequence[Frame]) -> str:
    return f"`{frames[-1].event}`" if frames else "nothing"


SCENARIOS = (resumable, not_resumable, whole, disconnecting, stateless, of_the_thread, quiet, unknown_run)
