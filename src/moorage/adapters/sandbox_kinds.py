"""The kinds of sandboxes as the settings describe them. Nothing is tried or made here."""

from collections.abc import Mapping, Sequence

from moorage.adapters.bubblewrap import BubblewrapSandboxes
from moorage.adapters.docker import ContainerSettings, DockerSandboxes, Limits
from moorage.adapters.folders import Folders, Registry, uid_range
from moorage.sandboxes.port import SandboxUnavailable, Shortcoming
from moorage.sandboxes.profiles import SandboxProfile
from moorage.settings import Settings
from moorage.telemetry import get_logger

_REGISTRY = ".registry.sqlite3"

log = get_logger(__name__)


def make_folders(settings: Settings) -> Folders:
    """Where workspaces are, with the registry of who works in them. Raises InvalidInput for a bad SANDBOX_UID_RANGE."""
    registry = Registry(settings.workspace_root / _REGISTRY, uids=uid_range(settings.sandbox_uid_range))
    return Folders(
        settings.workspace_root,
        settings.shared_dir,
        registry=registry,
        storage=settings.sandbox_storage,
        host_root=settings.sandbox_host_workspace_root,
        host_shared=settings.sandbox_host_shared_dir,
        shared_disk_mb=settings.sandbox_shared_disk_mb,
    )


def make_docker(
    settings: Settings, folders: Folders, profiles: Mapping[str, SandboxProfile], *, installation: str
) -> DockerSandboxes:
    """Containers of an engine that this process itself reaches."""
    packages = settings.sandbox_packages_dir
    return DockerSandboxes(
        ContainerSettings(
            installation=installation,
            workspace_dir=settings.container_workspace_dir,
            shared_dir=settings.container_shared_dir,
            runtime=settings.sandbox_runtime,
            packages=str(packages.absolute()) if packages else None,
        ),
        folders=folders,
        profiles=profiles,
        limits=Limits(settings.sandbox_max_running, settings.sandbox_max_running_per_user),
        warm=settings.sandbox_warm,
    )


def make_bubblewrap(
    settings: Settings, folders: Folders, profiles: Mapping[str, SandboxProfile], *, installation: str
) -> BubblewrapSandboxes:
    """Namespaces on this machine."""
    return BubblewrapSandboxes(
        installation=installation,
        folders=folders,
        profiles=profiles,
        workspace_dir=settings.container_workspace_dir,
        shared_dir=settings.container_shared_dir,
    )


def tell_shortcomings(shortcomings: Sequence[Shortcoming], *, strict: bool) -> None:
    """Log what is lacking; raises SandboxUnavailable when it is and nothing may be."""
    for lack in shortcomings:
        log.warning("sandbox_shortcoming", name=lack.name, detail=lack.detail)
    if strict and shortcomings:
        lacks = "; ".join(f"{lack.name}: {lack.detail}" for lack in shortcomings)
        raise SandboxUnavailable(f"SANDBOX_STRICT=1, and sandboxes here lack something. {lacks}")
