"""One hardened container per thread."""

import secrets
import time
from collections.abc import Sequence
from typing import Literal

from moorage.adapters.docker.container import (
    DIGEST_LABEL,
    INSTALLATION_LABEL,
    THREAD_LABEL,
    ContainerProfile,
    container_body,
    container_name,
    probe_body,
)
from moorage.adapters.docker.engine import Body, ContainerExists, Engine
from moorage.adapters.docker.exec import ExecLauncher
from moorage.adapters.docker.pool import BlockingPool
from moorage.errors import Unavailable
from moorage.ids import ThreadId, owner_of
from moorage.sandboxes.port import AgentIdentity, Sandbox, SandboxInfo, SandboxSpec, SandboxUnavailable
from moorage.sandboxes.supervised import SupervisedSandbox

_THREADS = 32
_CREATE_ATTEMPTS = 3
_PROBE_SECONDS = 10.0
_PROBE_LIFE_SECONDS = 600.0


class DockerSandboxes:
    """The SandboxProvider over a Docker engine.

    `installation` tells the containers of several servers on one engine apart: 1 to 32 of `[a-z0-9]`. `image` must
    have been built or loaded before; it is never pulled here.
    """

    name: Literal["docker"] = "docker"
    isolation_note: str | None = None

    def __init__(
        self,
        *,
        installation: str,
        image: str,
        agent: AgentIdentity,
        workspace_dir: str = "/workspace",
        shared_dir: str = "/shared",
        runtime: str | None = None,
    ) -> None:
        self._installation = installation
        self._image = image
        self._agent = agent
        self._workspace_dir = workspace_dir
        self._shared_dir = shared_dir
        self._runtime = runtime
        self._engine = Engine(connections=_THREADS)
        self._pool = BlockingPool(_THREADS, name="docker")

    async def check(self) -> None:
        await self._pool.run(self._check_runtime)
        ref = await self._pool.run(self._create_probe)
        try:
            result = await self._sandbox(ref, workdir="/").run("true", time_limit=_PROBE_SECONDS)
        finally:
            await self.delete(ref)
        if result.exit_code != 0:
            raise SandboxUnavailable(f"A container of image {self._image} cannot run `true`: {result.output[:300]}")

    async def create(self, spec: SandboxSpec) -> str:
        return await self._pool.run(lambda: self._create(spec))

    async def connect(self, ref: str) -> Sandbox:
        return self._sandbox(ref, workdir=self._workspace_dir)

    async def pause(self, ref: str) -> None:
        await self._pool.run(lambda: self._engine.kill(ref))

    async def delete(self, ref: str) -> None:
        await self._pool.run(lambda: self._engine.remove(ref))

    async def list(self) -> list[SandboxInfo]:
        found = await self._pool.run(self._containers)
        infos = [
            SandboxInfo(
                ref=_name(container),
                thread_id=ThreadId(container["Labels"].get(THREAD_LABEL, "")),
                running=container["State"] == "running",
            )
            for container in found
        ]
        return [info for info in infos if owner_of(info.thread_id) is not None]  # no probes

    async def close(self) -> None:
        self._pool.close()
        self._engine.close()

    def _sandbox(self, ref: str, *, workdir: str) -> SupervisedSandbox:
        launcher = ExecLauncher(self._engine, self._pool, ref, agent=self._agent, workspace_dir=workdir)
        return SupervisedSandbox(ref, launcher, workspace=workdir)

    def _profile(self) -> ContainerProfile:
        image_id = self._engine.image_id(self._image)
        if image_id is None:
            raise SandboxUnavailable(
                f"The sandbox image {self._image} is not there. Build it with `scripts/sandbox-image`, or load it with "
                "`docker load`; it is never pulled while the server runs."
            )
        return ContainerProfile(
            image_id=image_id,
            installation=self._installation,
            agent=self._agent,
            workspace_dir=self._workspace_dir,
            shared_dir=self._shared_dir,
            runtime=self._runtime,
        )

    def _create(self, spec: SandboxSpec) -> str:
        """Find or make the thread's container and start it. One made otherwise than we would now is replaced."""
        name = container_name(self._installation, spec.thread_id)
        body = container_body(self._profile(), spec)
        for _ in range(_CREATE_ATTEMPTS):
            try:
                self._engine.create(name, body)
            except ContainerExists:
                found = self._engine.inspect(name)
                if found is None:
                    continue
                if found["Config"]["Labels"].get(DIGEST_LABEL) != body["Labels"][DIGEST_LABEL]:
                    self._engine.remove(name)
                    continue
            self._engine.start(name)
            return name
        raise Unavailable("The sandbox's container keeps being replaced by somebody else.", retry_after=5)

    def _check_runtime(self) -> None:
        info = self._engine.info()
        if info["OSType"] != "linux":
            raise SandboxUnavailable("The Docker engine runs Windows containers: switch it to Linux containers.")
        if self._runtime and self._runtime not in info["Runtimes"]:
            raise SandboxUnavailable(
                f"SANDBOX_RUNTIME={self._runtime} is not one of the engine's runtimes: {', '.join(info['Runtimes'])}."
            )

    def _containers(self) -> Sequence[Body]:
        return self._engine.list(f"{INSTALLATION_LABEL}={self._installation}")

    def _create_probe(self) -> str:
        """A container like a thread's, but without its folders. Those of servers that died at it are removed."""
        prefix = container_name(self._installation, "probe-")
        for container in self._containers():
            if _name(container).startswith(prefix) and container["Created"] < time.time() - _PROBE_LIFE_SECONDS:
                self._engine.remove(_name(container))
        name = prefix + secrets.token_hex(8)
        body = probe_body(self._profile(), name)
        self._engine.create(name, body)
        self._engine.start(name)
        return name


def _name(container: Body) -> str:
    return str(container["Names"][0]).removeprefix("/")
