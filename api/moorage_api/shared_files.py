"""The folder that all sessions of a user share, at /shared in their sandboxes, over HTTP."""

from moorage.files import RootFiles
from moorage_api.deps import PrincipalDep, RuntimeDep
from moorage_api.files import file_routes


async def _shared(runtime: RuntimeDep, principal: PrincipalDep) -> RootFiles:
    return runtime.files.shared_of(principal.user_id)


router = file_routes("/api/shared", "shared files", _shared)
