"""What endpoints of the wire ask for: ids, where a stream goes on, and the thread that a path names in either form."""

from typing import Annotated

from fastapi import Depends, Header, Path, Query
from pydantic import Field

from moorage.ids import full_thread_id
from moorage.threads import Thread
from moorage_api.deps import PrincipalDep, RuntimeDep

type ThreadPath = Annotated[str, Path(max_length=100)]
type RunPath = Annotated[str, Path(max_length=100)]
type LastEventIdHeader = Annotated[str | None, Header(alias="Last-Event-ID", max_length=100)]
type ModesQuery = Annotated[list[Annotated[str, Field(max_length=1000)]] | None, Query(max_length=20)]


async def _thread(thread_id: ThreadPath, runtime: RuntimeDep, principal: PrincipalDep) -> Thread:
    return await runtime.threads.get(principal, full_thread_id(principal.user_id, thread_id))


WireThreadDep = Annotated[Thread, Depends(_thread)]
