"""Sandboxes in Docker containers."""

from moorage.adapters.docker.container import ContainerSettings
from moorage.adapters.docker.containers import Limits
from moorage.adapters.docker.exec import open_channel
from moorage.adapters.docker.provider import DockerSandboxes

__all__ = ["ContainerSettings", "DockerSandboxes", "Limits", "open_channel"]
