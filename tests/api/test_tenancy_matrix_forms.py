"""Odd spellings of a thread's id: none is taken for somebody's thread, and none is a fault of the server."""

import uuid
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
from tests.api.tenancy.attempts import Attempt, problems
from tests.api.tenancy.world import OWNER, World

FORMS: dict[str, Callable[[str], str]] = {
    "in capitals": str.upper,
    "uuid in capitals": lambda bare: f"{OWNER}-{bare.upper()}",
    "bare, in capitals": lambda bare: bare.upper(),
    "in braces": lambda bare: f"{{{bare}}}",
    "uuid in braces": lambda bare: f"{OWNER}-{{{bare}}}",
    "an urn": lambda bare: f"urn:uuid:{bare}",
    "without hyphens": lambda bare: uuid.UUID(bare).hex,
    "with a line end": lambda bare: f"{OWNER}-{bare}\n",
    "bare, with a line end": lambda bare: f"{bare}\n",
    "with a space": lambda bare: f"{OWNER}-{bare} ",
    "with a space before": lambda bare: f" {OWNER}-{bare}",
    "with NUL": lambda bare: f"{OWNER}-{bare}\0",
    "with wide hyphens": lambda bare: f"{OWNER}-{bare}".replace("-", "\u2010"),
    "with wide digits": lambda bare: f"{OWNER}-{bare}".replace("1", "\uff11").replace("2", "\uff12"),
    "of the prefix": lambda bare: f"al-{OWNER}-{bare}",
    "the tail of two": lambda bare: f"al-ice-{bare}-{bare}",
    "one uuid after another": lambda bare: f"{bare}-{bare}",
    "no owner": lambda bare: f"-{bare}",
    "empty between": lambda bare: f"al--ice-{bare}",
    "a path": lambda bare: f"al/../{OWNER}-{bare}",
    "a path, encoded": lambda bare: f"al%2f..%2f{OWNER}-{bare}",
    "a query": lambda bare: f"al-{bare}?thread_id={OWNER}-{bare}",
    "a pattern": lambda _: f"{OWNER}-%",
    "a pattern of one's own": lambda _: "al%",
    "very long": lambda bare: "al-ice-" * 2000 + bare,
}
PATHS = {
    "GET": ("/api/sessions/{}", "/threads/{}", "/threads/{}/state", "/threads/{}/runs", "/api/sessions/{}/export"),
    "POST": ("/threads/{}/runs", "/threads/{}/commands", "/threads/{}/stream/events", "/api/chat/{}"),
}
BODIES: dict[str, Callable[[str], object]] = {
    "/threads": lambda text: {"thread_id": text, "if_exists": "do_nothing"},
    "/threads/search": lambda text: {"ids": [text]},
    "/threads/prune": lambda text: {"thread_ids": [text]},
    "/runs/cancel": lambda text: {"thread_id": text, "status": "all"},
    "/runs/crons/search": lambda text: {"thread_id": text},
}
REQUEST = {"assistant_id": "agent", "message": "hello", "id": 1, "method": "agent.getTree", "channels": ["values"]}
ODD = frozenset({307, 400, 403, 404, 405, 409, 410, 414, 422})


def odd(text: str) -> Iterator[Attempt]:
    for method, paths in PATHS.items():
        for path in paths:
            fields = {"chat": ("message",), "commands": ("id", "method"), "events": ("channels",)}
            names = fields.get(path.split("/")[2 if "/api/" in path else -1], ("assistant_id",))
            body = {name: REQUEST[name] for name in names} if method == "POST" else None
            yield Attempt(path, method, path.format(quote(text, safe="")), body, allowed=ODD)
            if "/../" in text:
                yield Attempt(path, method, path.format(text), body, allowed=ODD)
    for path, make in BODIES.items():
        allowed = ODD | {200} if path == "/runs/crons/search" else ODD
        yield Attempt(path, "POST", path, make(text), allowed=allowed)
    for path in ("/api/messages", "/api/approvals"):
        yield Attempt(path, "GET", path, params={"thread_id": text, "q": "hello"}, allowed=ODD)
    if text.isprintable() and text.isascii() and text == text.strip():
        chat = {"model": "agent", "messages": [{"role": "user", "content": "hello"}]}
        yield Attempt("header", "POST", "/v1/chat/completions", chat, headers={"x-thread-id": text}, allowed=ODD)


@pytest.mark.parametrize("form", FORMS)
async def test_no_odd_form_of_an_id_leads_to_another_users_thread(world: World, form: str) -> None:
    before, mine = await world.snapshot(), await world.snapshot("al")
    found: list[str] = []
    for thread in (world.al_ice.thread, world.al_ice.paused):
        for attempt in odd(FORMS[form](thread[-36:])):
            found += await problems(world, world.al.user.client, attempt)
    assert found == []
    assert await world.snapshot() == before
    assert await world.snapshot("al") == mine


async def test_the_bare_uuid_of_another_users_thread_is_ones_own(world: World) -> None:
    bare = str(uuid.uuid4())
    for tenant in (world.al_ice, world.al):
        made = await tenant.user.client.post("/threads", json={"thread_id": bare, "metadata": {"of": tenant.name}})
        assert made.json()["metadata"] == {"of": tenant.name}
    found = [(await one.user.client.get(f"/threads/{bare}")).json() for one in (world.al, world.al_ice)]
    assert [item["metadata"]["of"] for item in found] == ["al", OWNER]
    assert (await world.al.user.client.delete(f"/threads/{bare}")).status_code == 204
    assert (await world.al_ice.user.client.get(f"/threads/{bare}")).status_code == 200
