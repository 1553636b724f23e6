"""Ways that might lead from one's own files to another user's."""

from collections.abc import Iterator

from tests.api.tenancy.asker import Asker
from tests.api.tenancy.attempts import FINE, Attempt
from tests.api.tenancy.world import CANARY, OWNER

NOWHERE = frozenset({404, 409, 422})


def paths(asker: Asker) -> list[str]:
    her = f"{OWNER}/{asker.her.thread}"
    return [
        f"../{asker.her.thread}", f"../../{her}", f"../../{her}/{CANARY}", f"/{her}", f"..\\..\\{her}",
        f"a/../../../{her}", f"\\x2e\\x2e/{asker.her.thread}", f"../{OWNER}", f"../{OWNER}/{CANARY}", f"{CANARY}/..",
        f"/workspace/../{her}", "/shared", f"../shared/{OWNER}/{CANARY}", f"~{OWNER}",
    ]  # fmt: skip


def file_paths(asker: Asker) -> Iterator[Attempt]:
    for path in paths(asker):
        yield asker.ask(f"path {path}", params={"path": path}, allowed=NOWHERE)
    if asker.method in ("GET", "DELETE"):
        for path in (asker.her.thread, CANARY):
            yield asker.ask(f"a name of hers: {path}", params={"path": path}, allowed=NOWHERE)


def file_bodies(asker: Asker) -> Iterator[Attempt]:
    for path in paths(asker):
        for name in ("path",) if asker.template.endswith("mkdir") else ("from", "to"):
            yield asker.with_body(f"{name} {path}", {name: path}, allowed=NOWHERE)
    yield asker.with_body("thread_id", {"thread_id": asker.her.thread}, allowed=frozenset({422}))


def listed_files(asker: Asker) -> Iterator[Attempt]:
    for params in ({"cursor": CANARY}, {"thread_id": asker.her.thread, "user_id": OWNER}, {"limit": "100"}):
        yield asker.ask(f"{params}", params=params, allowed=FINE)
    yield asker.ask("her cursor", params={"cursor": asker.her.cursor}, allowed=FINE | {422})
