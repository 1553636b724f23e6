"""Talking to a helper that was just started: where its folders are, and which way out its sandbox has."""

from collections.abc import Mapping
from typing import Self

from moorage.errors import InvalidInput
from moorage.ids import ThreadId, owner_of
from moorage.sandboxes.egress import Connect as ConnectAddress
from moorage.sandboxes.egress import EgressProxy, Resolve, offer_proxy, open_address, proxy_environment
from moorage.sandboxes.egress_room import EgressRoom
from moorage.sandboxes.egress_rules import AllowedTargets
from moorage.sandboxes.helper_sandbox import HelperSandbox
from moorage.sandboxes.place import KillAll
from moorage.sandboxes.port import Bounds, Channel
from moorage.sandboxes.profiles import SandboxProfile


class WaysOut:
    """What programs may reach under each profile that has an allow-list; nothing under the others.

    `room` is for all sandboxes together.
    """

    def __init__(
        self,
        allowed: Mapping[str, AllowedTargets],
        *,
        resolve: Resolve,
        connect: ConnectAddress = open_address,
        room: EgressRoom | None = None,
    ) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._connect = connect
        self._room = room or EgressRoom.of_this_process()

    @classmethod
    def of(
        cls,
        profiles: Mapping[str, SandboxProfile],
        *,
        resolve: Resolve,
        connect: ConnectAddress = open_address,
        room: EgressRoom | None = None,
    ) -> Self:
        """Raises InvalidInput for a list that cannot be read."""
        allowed: dict[str, AllowedTargets] = {}
        for name, profile in profiles.items():
            if profile.network == "allowlist":
                try:
                    allowed[name] = AllowedTargets.of(profile.allow)
                except ValueError as error:
                    raise InvalidInput(f"sandbox profile {name}: allow: {error}", code="settings") from None
        return cls(allowed, resolve=resolve, connect=connect, room=room)

    def proxy(self, profile: str | None, thread_id: ThreadId) -> EgressProxy | None:
        allowed = self._allowed.get(profile) if profile else None
        if allowed is None:
            return None
        return EgressProxy(
            allowed,
            resolve=self._resolve,
            connect=self._connect,
            room=self._room,
            user=owner_of(thread_id),
            sandbox=thread_id,
        )


class Connecting:
    """`moorage.sandboxes.place.Connect`. The environment of commands tells of a proxy only where there is one."""

    def __init__(self, ways_out: WaysOut, *, workspace: str = "/workspace", shared: str = "/shared") -> None:
        self._ways_out = ways_out
        self._workspace = workspace
        self._shared = shared

    async def __call__(
        self, thread_id: ThreadId, channel: Channel, bounds: Bounds, *, profile: str | None, kill_all: KillAll
    ) -> HelperSandbox:
        proxy = self._ways_out.proxy(profile, thread_id)
        sandbox = await HelperSandbox.open(
            thread_id,
            channel,
            bounds,
            kill_all,
            workspace=self._workspace,
            shared=self._shared,
            environment=proxy_environment() if proxy else None,
            on_connection=proxy,
        )
        if proxy:
            try:
                await offer_proxy(sandbox.connection)
            except BaseException:
                await sandbox.close()
                raise
        return sandbox
