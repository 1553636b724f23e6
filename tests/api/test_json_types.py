"""In a body, numbers, flags and times are JSON's own: what only looks like one is refused, never guessed at."""

from typing import Any

import pytest
from tests.api.harness import User

LOOKALIKES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/assistants/search", {"limit": "5"}),
    ("POST", "/assistants/search", {"offset": False}),
    ("POST", "/assistants/agent/latest", {"version": True}),
    ("POST", "/threads", {"ttl": "5"}),
    ("POST", "/threads", {"ttl": True}),
    ("POST", "/threads/search", {"limit": True}),
    ("PUT", "/store/items", {"namespace": ["a"], "key": "k", "value": {}, "ttl": "3"}),
    ("PUT", "/store/items", {"namespace": ["a"], "key": "k", "value": {}, "index": 0}),
    ("POST", "/store/items/search", {"refresh_ttl": 1}),
    ("POST", "/store/namespaces", {"max_depth": 1.0}),
    ("POST", "/runs", {"assistant_id": "agent", "after_seconds": "1"}),
    ("POST", "/runs", {"assistant_id": "agent", "stream_subgraphs": "yes"}),
    ("POST", "/runs/crons", {"assistant_id": "agent", "schedule": "@daily", "end_time": 1900000000}),
    ("POST", "/runs/crons", {"assistant_id": "agent", "schedule": "@daily", "enabled": "on"}),
    ("POST", "/runs/crons/search", {"limit": "10"}),
    ("POST", "/api/auth/keys", {"name": "mine", "expires_in_days": "30"}),
    ("POST", "/v1/chat/completions", {"model": "agent", "messages": [{"role": "user", "content": "hi"}], "n": True}),
]


@pytest.mark.parametrize(("method", "path", "body"), LOOKALIKES)
async def test_what_only_looks_like_a_number_a_flag_or_a_time_is_refused(
    alice: User, method: str, path: str, body: dict[str, Any]
):
    reply = await alice.client.request(method, path, json=body)
    assert reply.status_code == (400 if path.startswith("/v1") else 422), reply.text
