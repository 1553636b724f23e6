"""Files on their way: what stays open until their last byte, and who may still send or take them."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from moorage.errors import Unauthenticated
from moorage_api.deps import PrincipalDep, RuntimeDep
from moorage_api.sse import Allowed


@dataclass(frozen=True, slots=True)
class Transfer:
    """`stack` is closed after the answer."""

    stack: AsyncExitStack
    allowed: Allowed

    async def watched(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """The same, as long as the caller is still logged in; else raises Unauthenticated within half a minute."""
        async for chunk in chunks:
            if not await self.allowed.still():
                raise Unauthenticated("Log in again")
            yield chunk


async def _transfer(request: Request, runtime: RuntimeDep, principal: PrincipalDep) -> AsyncGenerator[Transfer]:
    """It counts as one of the caller's streams."""
    with request.app.state.open_streams.one(principal.user_id):
        async with AsyncExitStack() as stack:
            yield Transfer(stack, Allowed(lambda: runtime.identity.recheck(principal)))


TransferDep = Annotated[Transfer, Depends(_transfer)]
