"""Sandboxes of Linux namespaces, without an engine: for demos and single-user machines."""

from moorage.adapters.bubblewrap.provider import BubblewrapSandboxes

__all__ = ["BubblewrapSandboxes"]
