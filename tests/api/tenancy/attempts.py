"""Requests with something of another user in them, and what may not be in their answers."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import httpx
import orjson
from tests.api.tenancy.world import CANARY, World

REFUSED = frozenset({403, 404, 409, 422})
FINE = frozenset({200, 201, 202, 204})


@dataclass(frozen=True)
class Attempt:
    """A request of al's with something of al-ice's in it. `says` must be in the answer."""

    what: str
    method: str
    path: str
    body: object = None
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    allowed: frozenset[int] = REFUSED
    says: str = ""


def filled(path: str, ids: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: ids[match[1]], path)


def leaks(world: World, answer: bytes, asked: bytes) -> Iterator[str]:
    """What of al-ice is in an answer and was not said by al himself."""
    for secret in sorted(world.al_ice.secrets):
        text = secret.encode()
        if text in answer and not any(text in said for said in (asked, *world.told)):
            yield secret


async def problems(world: World, client: httpx.AsyncClient, attempt: Attempt, *, at_most: float = 30) -> list[str]:
    """What is wrong with the answer to this attempt; of one without an end, with what comes in these seconds."""
    request = client.build_request(
        attempt.method, attempt.path, json=attempt.body, params=attempt.params or None, headers=dict(attempt.headers)
    )
    asked = b"\n".join([str(attempt).encode(), orjson.dumps(attempt.body)])
    status, headers, body = await _read(client, request, at_most=at_most)
    if 200 <= status < 300 and CANARY.encode() not in asked:
        world.told.append(asked)
    found = [f"it tells {secret}" for secret in leaks(world, headers + body, asked)]
    if status not in attempt.allowed or attempt.says.encode() not in body:
        found.append(f"{status} {body[:300]!r}")
    return [f"{attempt.what}: {problem}" for problem in found]


async def _read(client: httpx.AsyncClient, request: httpx.Request, *, at_most: float) -> tuple[int, bytes, bytes]:
    """The status, the headers and the body of an answer."""
    body = b""
    reply = await client.send(request, stream=True)
    try:
        async with asyncio.timeout(at_most):
            async for chunk in reply.aiter_bytes():
                body += chunk
    except TimeoutError:
        pass
    finally:
        await reply.aclose()
    return reply.status_code, orjson.dumps(list(reply.headers.multi_items())), body
