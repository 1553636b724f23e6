"""How containers come to be, and helpers in them: what threads' own and those that stand ready have in common."""

import socket
from collections.abc import Mapping, Sequence

from moorage.adapters.docker.container import (
    INSTALLATION_LABEL,
    Body,
    ContainerSettings,
    container_body,
    name_prefix,
    probe_body,
)
from moorage.adapters.docker.engine import Engine
from moorage.adapters.folders import Place
from moorage.sandboxes.helper import HELPER_ARGV, HELPER_SOURCE
from moorage.sandboxes.port import AgentIdentity, SandboxUnavailable
from moorage.sandboxes.profiles import SandboxProfile

_SEND_SECONDS = 10.0


class ContainerMaker:
    """Makes the containers of one installation. Blocking calls."""

    def __init__(self, engine: Engine, settings: ContainerSettings) -> None:
        self.engine = engine
        self.settings = settings

    def name(self, place: str) -> str:
        """One name per place, so that two servers of an installation cannot make two containers for it."""
        return f"{name_prefix(self.settings.installation)}{place}"

    def place_of(self, container: Body) -> str:
        """The other way round, for one of `containers`."""
        name = str(container["Names"][0]).removeprefix("/")
        return name.removeprefix(name_prefix(self.settings.installation))

    def containers(self) -> Sequence[Body]:
        """Every container of this installation: of threads, probes, and those that stand ready."""
        return self.engine.list(f"{INSTALLATION_LABEL}={self.settings.installation}")

    def is_ours(self, container: Body) -> bool:
        """Whether one that was inspected is of this installation: the names of two may begin alike."""
        labels: Mapping[str, str] = container["Config"]["Labels"] or {}
        return labels.get(INSTALLATION_LABEL) == self.settings.installation

    def body(self, profile: SandboxProfile, place: Place, *, labels: Mapping[str, str] | None = None) -> Body:
        """The description of the place's container; raises SandboxUnavailable when the image is not there."""
        return container_body(
            self.settings,
            profile,
            image_id=self.image_id(profile),
            workspace=place.workspace,
            shared=place.shared,
            labels=labels,
        )

    def probe_body(self, profile: SandboxProfile) -> Body:
        return probe_body(self.settings, profile, image_id=self.image_id(profile))

    def image_id(self, profile: SandboxProfile) -> str:
        """The profile's image as it is now. It is never pulled."""
        image_id = self.engine.image_id(profile.image)
        if image_id is None:
            raise SandboxUnavailable(
                f"The image {profile.image} of sandbox profile {profile.name!r} is not there. Build it with "
                "`scripts/sandbox-image`, or load it with `docker load`; it is never pulled while the server runs."
            )
        return image_id

    def open_helper(self, container: str, agent: AgentIdentity) -> socket.socket:
        """Start a helper there under the agent's uid. Raises SandboxGone when the container does not run.

        It has been sent its program, so it gets ready while nobody waits for it.
        """
        user = f"{agent.uid}:{agent.gid}"
        stream = self.engine.exec(container, HELPER_ARGV, user=user, workdir=self.settings.workspace_dir)
        stream.settimeout(_SEND_SECONDS)
        try:
            stream.sendall(HELPER_SOURCE)
        except TimeoutError:
            stream.close()
            raise SandboxUnavailable("The Docker engine does not take what a helper is sent.") from None
        except ConnectionError:  # it did not start: what comes from the stream says why
            pass
        return stream
