"""The web UI as Chromium measures it itself: first paint and what it fetched, cold and warm; an answer that streams; a
thread of 1000 messages that is opened. Prints JSON."""

import argparse
import asyncio
import json
import statistics
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Browser, BrowserContext, CDPSession, Page, async_playwright
from tests.bench.served import serving

ROOT = Path(__file__).parents[2]
ACCOUNT = {"username": "bench", "password": "correct horse battery"}
SETTINGS = {"QUOTA_ACTIVE_SESSIONS": "0", "SESSION_LIFE_HOURS": "0", "LLM_MODEL": "scripted:slow"}
WINDOW = {"width": 1360, "height": 900}
FRAME_MS = 1000 / 60

# Gaps between frames and tasks of more than 50 ms, from now on.
WATCH = """() => {
    const seen = (window.__seen = { tasks: [], frames: [] })
    new PerformanceObserver((list) => seen.tasks.push(...list.getEntries().map((task) => task.duration)))
        .observe({ type: 'longtask' })
    let last = performance.now()
    const frame = (now) => { seen.frames.push(now - last); last = now; requestAnimationFrame(frame) }
    requestAnimationFrame(frame)
}"""
# By DevTools alone: the page's policy lets nobody else evaluate a string.
PAINTED = """() => new Promise((done) => new PerformanceObserver((list) => {
    if (list.getEntriesByName('first-contentful-paint').length) done()
}).observe({ type: 'paint', buffered: true }))"""
PAINTS = """() => Object.fromEntries(performance.getEntriesByType('paint').map((one) => [one.name, one.startTime]))"""
FETCHED = """() => [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
    .filter((one) => new URL(one.name).pathname.startsWith('/app/'))
    .reduce((sum, one) => ({ files: sum.files + 1, bytes: sum.bytes + one.transferSize }), { files: 0, bytes: 0 })"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of first loads")
    parser.add_argument("--seconds", type=float, default=20, help="for which an answer streams, at 200 tokens/s")
    parser.add_argument("--messages", type=int, default=1000, help="of the thread that is opened")
    parser.add_argument("--port", type=int, default=8766)
    args = parser.parse_args()
    chromium = subprocess.run([ROOT / "scripts/chromium"], check=True, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), args.port, **SETTINGS):
        print(json.dumps(asyncio.run(measure(chromium, f"http://127.0.0.1:{args.port}", args))))


async def measure(chromium: str, url: str, args: argparse.Namespace) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=url, timeout=120) as api, async_playwright() as playwright:
        await log_in(api)
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        figures = {
            "first_load": await first_loads(browser, url, args.rounds),
            "streaming": await streaming(browser, url, api, args.seconds),
            "long_thread": await long_thread(browser, url, api, args.messages),
        }
        await browser.close()
        return figures


async def log_in(api: httpx.AsyncClient) -> None:
    (await api.post("/api/auth/register", json=ACCOUNT)).raise_for_status()
    token = (await api.post("/api/auth/login", json=ACCOUNT)).json()["access_token"]
    api.headers["authorization"] = f"Bearer {token}"


async def open_page(device: BrowserContext, path: str) -> Page:
    """Log in within the page, and go there."""
    page = await device.new_page()
    await page.goto("/app/")
    await page.locator("input[name=username]").fill(ACCOUNT["username"])
    await page.locator("input[name=password]").fill(ACCOUNT["password"])
    await page.locator("button[type=submit]").click()
    await page.wait_for_url(lambda found: "/login" not in found)
    if path:
        await page.goto(f"/app/{path}")
    return page


# The first load -------------------------------------------------------------------------------------------------------


async def first_loads(browser: Browser, url: str, rounds: int) -> dict[str, Any]:
    """Medians of `rounds` browsers that were never there, and of their second visits; times in ms."""
    cold: list[dict[str, float]] = []
    warm: list[dict[str, float]] = []
    for _ in range(rounds):
        device = await browser.new_context(base_url=url, viewport=WINDOW)
        page = await device.new_page()
        for visits in (cold, warm):
            await page.goto("/app/")
            await page.locator("button[type=submit]").wait_for()
            await page.evaluate(PAINTED)
            visits.append({**await page.evaluate(PAINTS), **await page.evaluate(FETCHED)})
        await device.close()
    return {"cold": medians(cold), "warm": medians(warm)}


def medians(visits: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(visit[name] for visit in visits)) for name in visits[0]}


# A message that streams -----------------------------------------------------------------------------------------------


async def streaming(browser: Browser, url: str, api: httpx.AsyncClient, seconds: float) -> dict[str, Any]:
    """Frames and long tasks, in ms, while an answer of 200 tokens/s streams; beside the same page at rest."""
    thread_id = (await api.post("/api/sessions")).json()["thread_id"]
    device = await browser.new_context(base_url=url, viewport=WINDOW)
    page = await open_page(device, f"sessions/{thread_id}")
    composer = page.get_by_role("textbox", name="Message", exact=True)
    await composer.wait_for()
    await page.evaluate(WATCH)
    at_rest = await watched(page, lambda: asyncio.sleep(3))
    tokens = int(seconds * 200)

    async def stream() -> None:
        await composer.fill(f"n={tokens} d=0.005")
        await composer.press("Enter")
        await page.get_by_text(f" {tokens - 1} {tokens}").last.wait_for(timeout=seconds * 10_000)

    streamed = await watched(page, stream)
    await device.close()
    return {"tokens": tokens, "at_rest": at_rest, "streamed": streamed}


async def watched(page: Page, work: Callable[[], Awaitable[None]]) -> dict[str, Any]:
    await page.evaluate("() => { __seen.tasks.length = 0; __seen.frames.length = 0 }")
    await work()
    seen = await page.evaluate("() => __seen")
    frames, tasks = sorted(seen["frames"]), seen["tasks"]
    return {
        "seconds": round(sum(frames) / 1000, 1),
        "frames": len(frames),
        "dropped_frames": round(sum(max(0, round(gap / FRAME_MS) - 1) for gap in frames)),
        "frame_p95": round(frames[int(len(frames) * 0.95)]),
        "frame_max": round(frames[-1]),
        "long_tasks": len(tasks),
        "long_task_max": round(max(tasks, default=0)),
        "long_tasks_sum": round(sum(tasks)),
    }


# A long thread --------------------------------------------------------------------------------------------------------


async def long_thread(browser: Browser, url: str, api: httpx.AsyncClient, messages: int) -> dict[str, Any]:
    """The time from the address to the last message, in ms, and the page's heap; beside those of a short thread."""
    short = (await api.post("/api/sessions")).json()["thread_id"]
    await say(api, short, 1)
    thread_id = (await api.post("/api/sessions")).json()["thread_id"]
    for number in range(1, messages // 2 + 1):
        await say(api, thread_id, number)
    device = await browser.new_context(base_url=url, viewport=WINDOW)
    page = await open_page(device, "")
    devtools = await device.new_cdp_session(page)
    before = await opened(page, devtools, short, 1)
    after = await opened(page, devtools, thread_id, messages // 2)
    await device.close()
    return {"messages": messages // 2 * 2, "of_2_messages": before, "of_all": after}


async def say(api: httpx.AsyncClient, thread_id: str, number: int) -> None:
    message = {"message": f"Message number {number}, n=30 d=0"}
    async with api.stream("POST", f"/api/chat/{thread_id}", json=message) as reply:
        reply.raise_for_status()
        async for _ in reply.aiter_raw():
            pass


async def opened(page: Page, devtools: CDPSession, thread_id: str, last: int) -> dict[str, Any]:
    await page.goto("about:blank")
    started = asyncio.get_running_loop().time()
    await page.goto(f"/app/sessions/{thread_id}")
    conversation = page.get_by_role("region", name="Conversation")
    await conversation.get_by_text(f"Message number {last},").wait_for(timeout=120_000)
    milliseconds = round((asyncio.get_running_loop().time() - started) * 1000)
    await devtools.send("HeapProfiler.enable")
    await devtools.send("HeapProfiler.collectGarbage")
    heap = await devtools.send("Runtime.getHeapUsage")
    nodes = await page.evaluate("document.querySelectorAll('*').length")
    return {"open_ms": milliseconds, "heap_mib": round(heap["usedSize"] / 1024**2, 1), "elements": nodes}


if __name__ == "__main__":
    main()
