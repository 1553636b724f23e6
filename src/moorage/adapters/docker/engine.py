"""The few calls of the Docker Engine API that sandboxes need: blocking, typed, and the only user of the untyped SDK.

The bodies are the Engine API's own (https://docs.docker.com/reference/api/engine/), version 1.41 and later.
"""

import os
import re
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

import docker
import docker.errors
import requests.exceptions
from docker.utils import kwargs_from_env

from moorage.adapters.docker.reaping import reaper_body
from moorage.sandboxes.paths import without_paths
from moorage.sandboxes.port import SandboxGone, SandboxUnavailable
from moorage.telemetry import get_logger

_TIMEOUT_SECONDS = 30
_LOOK_SECONDS = 8  # what is asked about one container; then it may be one that the engine cannot answer about
_KILL_SECONDS = 2
_SAID_BYTES = 64 * 1024
_NO_ENGINE = (
    "No Docker engine answers. Start one (`scripts/docker-engine start`, or `sudo systemctl start docker`), check "
    "DOCKER_HOST and your right to use its socket, or set SANDBOX=bubblewrap."
)
_UNSEEN_FOLDER = (
    "The Docker engine does not see the workspace folder. When the server runs in a container or the engine on another "
    "machine, set SANDBOX_HOST_WORKSPACE_ROOT and SANDBOX_HOST_SHARED_DIR to the engine's names of these folders."
)

UNSEEN_FOLDER = "unseen_folder"

log = get_logger(__name__)

type Body = dict[str, Any]


class ContainerExists(Exception):
    """The name is taken."""


class Engine:
    """One connection pool to the engine that DOCKER_HOST names, or else to the local one."""

    def __init__(self, *, connections: int) -> None:
        self._connections = connections
        self._connected: dict[int, Any] = {}

    @property
    def _api(self) -> Any:
        return self._within(_TIMEOUT_SECONDS)

    def _within(self, seconds: int) -> Any:
        """The SDK's client whose answers must come in time."""
        if seconds not in self._connected:
            make = cast(Callable[..., Any], docker.APIClient)
            from_env = cast(Callable[..., Body], kwargs_from_env)
            self._connected[seconds] = make(
                version="auto", timeout=seconds, max_pool_size=self._connections, **from_env()
            )
        return self._connected[seconds]

    def close(self) -> None:
        for api in self._connected.values():
            api.close()

    def info(self) -> Body:
        """The engine's `/info`."""
        with _explained():
            return cast(Body, self._api.info())

    def image_id(self, name: str) -> str | None:
        """The local image's id; None when there is none. Never pulls."""
        with _explained():
            try:
                return str(self._api.inspect_image(name)["Id"])
            except docker.errors.ImageNotFound:
                return None

    def create(self, name: str, body: Body) -> str:
        """The new container's id; raises ContainerExists."""
        with _explained():
            try:
                return str(self._api.create_container_from_config(body, name)["Id"])
            except docker.errors.APIError as error:
                if error.status_code == 409:
                    raise ContainerExists from None
                raise

    def inspect(self, container: str) -> Body | None:
        """The container's description, None when it is not there."""
        with _explained():
            try:
                return cast(Body, self._ask(container, lambda api: api.inspect_container(container)))
            except docker.errors.NotFound:
                return None

    def started_at(self, container: str) -> str:
        """When it was last started; raises SandboxGone when it is not there or does not run."""
        found = self.inspect(container)
        if found is None or not found["State"]["Running"]:
            raise SandboxGone("The sandbox's container does not run.")
        return str(found["State"]["StartedAt"])

    def start(self, container: str) -> None:
        """Start it unless it runs; raises SandboxGone when it is not there."""
        with _explained():
            self._api.start(container)

    def kill(self, container: str) -> bool:
        """Stop it at once, with all it runs; False when it was not running or not there."""
        with _explained():
            try:
                self._ask(container, lambda api: api.kill(container), seconds=_KILL_SECONDS)
            except docker.errors.APIError as error:
                if error.status_code not in (404, 409):
                    raise
                return False
            return True

    def remove(self, container: str) -> None:
        """Remove it with all it runs; no error when it is not there."""
        with _explained():
            try:
                self._ask(container, lambda api: api.remove_container(container, force=True, v=True))
            except docker.errors.NotFound:
                return
            except docker.errors.APIError as error:
                if error.status_code != 409:  # "removal is already in progress"
                    raise

    def rename(self, container: str, name: str) -> None:
        """Give it another name; raises ContainerExists when that is taken, SandboxGone when it is not there."""
        with _explained():
            try:
                self._api.rename(container, name)
            except docker.errors.APIError as error:
                if error.status_code == 409:
                    raise ContainerExists from None
                raise

    def stats(self, container: str) -> Body:
        """What it uses now, without the second that the engine takes to compare."""
        with _explained():
            return cast(Body, self._api.stats(container, stream=False, one_shot=True))

    def list(self, label: str) -> list[Body]:
        """All containers with this label (`key=value`), stopped ones too."""
        with _explained():
            return cast(list[Body], self._api.containers(all=True, filters={"label": label}))

    def exec(self, container: str, argv: Sequence[str], *, user: str, workdir: str) -> socket.socket:
        """Start a process in a running container; the socket is its stdin, and its framed stdout and stderr.

        Closing the socket closes its stdin. Raises SandboxGone when the container does not run.
        """
        with _explained():
            created = self._ask(
                container,
                lambda api: api.exec_create(container, list(argv), stdin=True, user=user, workdir=workdir),
            )
            return _take_over(self._api.exec_start(created["Id"], socket=True))

    def _ask[T](self, container: str, call: Callable[[Any], T], *, seconds: int = _LOOK_SECONDS) -> T:
        """Ask something about a container, and once more after its processes were killed when no answer comes."""
        try:
            return call(self._within(seconds))
        except requests.exceptions.ReadTimeout:
            self._kill_from_outside(container)
            return call(self._api)

    def _kill_from_outside(self, container: str) -> None:
        """Unless the engine does not list it either: then it is the engine that does not answer."""
        named = {"name": f"^/{re.escape(container)}$"}  # the engine takes it for a pattern
        found = cast(list[Body], self._within(_LOOK_SECONDS).containers(all=True, filters=named))
        for stuck in found:
            log.warning("container_stuck", container=container)
            name = f"moorage-reaper-{secrets.token_hex(8)}"
            self._api.create_container_from_config(
                reaper_body(image_id=stuck["ImageID"], container_id=stuck["Id"]), name
            )
            try:
                self._api.start(name)
                with suppress(docker.errors.NotFound):  # it is quick, and then gone
                    self._api.wait(name, timeout=_TIMEOUT_SECONDS)
            finally:
                self.remove(name)

    def run(self, container: str, argv: Sequence[str], *, user: str, seconds: float) -> bytes:
        """Run a short command to its end; the first 64 KiB of what it said. Raises SandboxGone as `exec` does.

        Raises SandboxUnavailable when it does not end in time: it may go on then.
        """
        connection = self.exec(container, argv, user=user, workdir="/")
        deadline = time.monotonic() + seconds
        said = bytearray()
        with connection:
            try:
                while len(said) < _SAID_BYTES:
                    connection.settimeout(max(0.001, deadline - time.monotonic()))
                    if not (data := connection.recv(_SAID_BYTES)):
                        break
                    said += data
            except ConnectionError:
                pass
            except TimeoutError:
                raise SandboxUnavailable("A command of the server in a sandbox took too long.") from None
        return _stdout_of(bytes(said))


def _stdout_of(said: bytes) -> bytes:
    """Of the engine's stream of frames: 1 byte which stream, 3 of nothing, 4 length (big-endian), payload."""
    parts: list[bytes] = []
    while len(said) >= 8:
        size = int.from_bytes(said[4:8])
        if said[0] == 1:
            parts.append(said[8 : 8 + size])
        said = said[8 + size :]
    return b"".join(parts)


def _take_over(stream: Any) -> socket.socket:
    """The connection below the SDK's response, made independent of the SDK, which would reuse it.

    Nothing is lost in the SDK's buffers as long as the process is silent until it is spoken to.
    """
    descriptor = getattr(stream, "fileno", None)
    response = getattr(stream, "_response", None)
    if descriptor is None or response is None or isinstance(stream, ssl.SSLSocket):
        raise SandboxUnavailable(
            "DOCKER_HOST must be a unix socket or plain TCP: TLS, SSH and pipes are not supported."
        )
    connection = socket.socket(fileno=os.dup(descriptor()))
    response.close()
    connection.setblocking(False)
    return connection


@contextmanager
def _explained() -> Generator[None]:
    """Turn the SDK's errors into ours."""
    try:
        yield
    except docker.errors.NotFound:
        raise SandboxGone("The sandbox's container is gone.") from None
    except docker.errors.APIError as error:
        if error.status_code == 409:
            raise SandboxGone("The sandbox's container does not run.") from None
        raise _refused(str(error.explanation)) from None
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError):
        raise SandboxUnavailable(_NO_ENGINE, code="no_engine", retry_after=5) from None


def _refused(reason: str) -> SandboxUnavailable:
    """Users read it, too: the paths of this machine are for the log."""
    log.error("engine_refused", reason=reason)
    if "bind source path" in reason:
        return SandboxUnavailable(_UNSEEN_FOLDER, code=UNSEEN_FOLDER)
    return SandboxUnavailable(f"The Docker engine refused: {without_paths(reason)[:300]}")
