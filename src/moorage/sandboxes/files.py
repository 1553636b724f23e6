"""Files of a thread as people see them: what is asked of a sandbox's helper, and what it answers."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

type EntryType = Literal["file", "dir", "link", "other"]


class Root(StrEnum):
    """Below which folder a path is meant."""

    WORKSPACE = "workspace"
    SHARED = "shared"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One entry of a folder. `path` is relative to the root, "" for the root itself; odd names are escaped."""

    path: str
    name: str
    type: EntryType
    size: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class FolderPage:
    """Some entries of a folder in the order of their names, and the name to go on after, None at the end."""

    items: list[FileEntry]
    next_after: str | None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a root holds, in bytes and entries, and what it may hold; None: not bounded."""

    used_bytes: int
    used_files: int
    limit_bytes: int | None
    limit_files: int | None


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that is being read: as it was when it was opened, and the bytes asked for as they come."""

    entry: FileEntry
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that could not be kept, and the code that says why."""

    path: str
    code: str


@dataclass(frozen=True, slots=True)
class KeptDocuments:
    """The copies that were made, by their paths in the shared folder, and what could not be copied."""

    kept: list[FileEntry]
    left_out: list[LeftOut]


class FileAccess(Protocol):
    """Files of one thread. Paths are relative to a root and checked (paths.py); no part of one may be a link.

    Every call raises PathError, or SandboxUnavailable.
    """

    async def list_folder(self, root: Root, path: str, *, after: str | None = None, limit: int = 100) -> FolderPage: ...

    async def stat(self, root: Root, path: str) -> FileEntry: ...

    def open(
        self, root: Root, path: str, *, start: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[OpenFile]:
        """Read a regular file. A slow reader holds up nothing but itself."""
        ...

    async def write(
        self, root: Root, path: str, chunks: AsyncIterator[bytes], *, limit: int, overwrite: bool = True
    ) -> tuple[FileEntry, bool]:
        """Write aside, then rename; answers the entry and whether it is new. Parent folders are made.

        Over `limit` bytes: `file_too_large`, and nothing is left behind.
        """
        ...

    async def make_folder(self, root: Root, path: str) -> FileEntry: ...

    async def move(self, root: Root, source: str, target: str, *, overwrite: bool = False) -> FileEntry: ...

    async def delete(self, root: Root, path: str) -> None:
        """Remove a file, or a folder with all it holds."""
        ...

    async def usage(self, root: Root) -> Usage: ...

    def zip(self, root: Root, path: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A zip archive of a folder's regular files, as it is made."""
        ...

    async def keep_documents(self, suffixes: tuple[str, ...], stamp: str) -> KeptDocuments:
        """Copy the workspace's files that end so to `outputs/` of the shared folder, under names with `stamp`."""
        ...
