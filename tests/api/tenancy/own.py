"""Where another user's ids can stand in requests of our own API."""

from collections.abc import Iterator

from tests.api.tenancy.asker import Asker
from tests.api.tenancy.attempts import FINE, Attempt
from tests.api.tenancy.world import CANARY, KEY, OWNER


def new_session(asker: Asker) -> Iterator[Attempt]:
    yield asker.ask("assistant_id", {"assistant_id": asker.her.assistant}, allowed=frozenset({404}))
    for name, value in (("thread_id", asker.her.thread), ("owner_id", OWNER), ("user_id", OWNER)):
        yield asker.ask(name, {name: value}, allowed=frozenset({422}))
    key = {"idempotency-key": KEY}
    own = asker.al.thread
    yield asker.ask("her idempotency key", {"title": asker.al.secret}, headers=key, allowed=frozenset({201}), says=own)


def list_of_sessions(asker: Asker) -> Iterator[Attempt]:
    for params in ({"q": CANARY}, {"cursor": asker.her.cursor}, {"q": "%"}, {"owner_id": OWNER}):
        yield asker.ask(f"{params}", params=params, allowed=frozenset({200}))


def paged(asker: Asker) -> Iterator[Attempt]:
    yield asker.ask("her cursor", params={"cursor": asker.her.cursor}, allowed=FINE | {422})


def resumed(asker: Asker) -> Iterator[Attempt]:
    for thread in (asker.al.thread, asker.al.paused):
        for name, value in (("interrupt_id", asker.her.interrupt), ("call_id", asker.her.call)):
            body = {"decisions": [{"type": "approve", name: value}]}
            yield asker.ask(f"{name} of a decision", body, path={"thread_id": thread})


def chatted(asker: Asker) -> Iterator[Attempt]:
    yield asker.with_body("thread_id", {"thread_id": asker.her.thread}, allowed=frozenset({422}))
    headers = {"idempotency-key": f"{KEY}-chat"}
    yield asker.with_body("her key, her message", {"message": f"hello {CANARY}"}, headers=headers)


def found_messages(asker: Asker) -> Iterator[Attempt]:
    yield asker.ask("words", params={"q": CANARY}, allowed=frozenset({200}), says='"items":[]')
    for thread in asker.her.threads:
        params = {"q": "hello", "thread_id": thread}
        yield asker.ask("thread_id", params=params, allowed=frozenset({403}), says=f"Access denied to thread {thread}")


def approvals(asker: Asker) -> Iterator[Attempt]:
    yield from paged(asker)
    for thread in asker.her.threads:
        yield asker.ask("thread_id", params={"thread_id": thread}, allowed=frozenset({403}))


def followed(asker: Asker) -> Iterator[Attempt]:
    for event_id in ("0", "3"):
        yield asker.ask("her event id", headers={"last-event-id": event_id}, allowed=FINE | {410})


def registered(asker: Asker) -> Iterator[Attempt]:
    account = {"username": OWNER, "password": "another battery staple"}
    yield asker.ask("username", account, allowed=frozenset({401, 409}))


def copied(asker: Asker) -> Iterator[Attempt]:
    for checkpoint in asker.her.checkpoints:
        yield asker.with_body("checkpoint_id in the body", {"checkpoint_id": checkpoint}, allowed=frozenset({404}))
