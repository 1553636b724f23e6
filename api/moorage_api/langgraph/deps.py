"""What endpoints of the wire ask for: the thread that a path names, in either of its forms."""

from typing import Annotated

from fastapi import Depends, Path

from moorage.ids import full_thread_id
from moorage.threads import Thread
from moorage_api.deps import PrincipalDep, RuntimeDep


async def _thread(
    thread_id: Annotated[str, Path(max_length=100)], runtime: RuntimeDep, principal: PrincipalDep
) -> Thread:
    return await runtime.threads.get(principal, full_thread_id(principal.user_id, thread_id))


WireThreadDep = Annotated[Thread, Depends(_thread)]
