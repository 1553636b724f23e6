"""Sandboxes in Docker containers."""

from moorage.adapters.docker.provider import DockerSandboxes

__all__ = ["DockerSandboxes"]
