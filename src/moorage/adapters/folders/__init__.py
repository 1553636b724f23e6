"""Where the files of agents live, who they belong to there, and how much they may hold."""

from moorage.adapters.folders.folders import Folders, Place
from moorage.adapters.folders.layout import host_view
from moorage.adapters.folders.registry import Registry, uid_range

__all__ = ["Folders", "Place", "Registry", "host_view", "uid_range"]
