"""What people can do with files. Everything is done inside sandboxes: nothing of a tenant's is opened on the host."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Protocol

from moorage.errors import AppError
from moorage.files.previews import PREVIEW_BYTES, Preview, preview_of
from moorage.ids import ThreadId, UserId, user_place
from moorage.sandboxes.files import FileAccess, FileEntry, FolderPage, KeptDocuments, LeftOut, OpenFile, Root, Usage
from moorage.sandboxes.paths import parse_path
from moorage.sandboxes.port import PathError, Sandbox
from moorage.telemetry import get_logger

MAX_FILE_BYTES = 25 * 1024 * 1024
DOCUMENTS = (".pdf", ".xlsx", ".pptx", ".docx")

log = get_logger(__name__)


class Places(Protocol):
    """The sandboxes: see `moorage.sandboxes.service.Sandboxes`."""

    async def acquire(self, thread_id: ThreadId) -> Sandbox: ...

    async def has_files(self, thread_id: ThreadId) -> bool: ...


class Files:
    """Leads to the files of threads and users."""

    def __init__(self, sandboxes: Places) -> None:
        self._sandboxes = sandboxes

    def of_thread(self, thread_id: ThreadId) -> "RootFiles":
        """The workspace of a thread. What only looks starts no sandbox for one that never had any."""

        async def may_have_any() -> bool:
            return await self._sandboxes.has_files(thread_id)

        return RootFiles(lambda: self._access(thread_id), Root.WORKSPACE, may_have_any=may_have_any)

    def shared_of(self, user_id: UserId) -> "RootFiles":
        """The folder that all threads of a user share, through a sandbox of the user's own."""
        return RootFiles(lambda: self._access(user_place(user_id)), Root.SHARED)

    async def keep_documents(self, thread_id: ThreadId) -> KeptDocuments:
        """Copy the documents of a workspace to `outputs/` of the shared folder, under names with the time.

        Never fails: what could not be kept is told, "" when it is all of them.
        """
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        try:
            if not await self._sandboxes.has_files(thread_id):
                return KeptDocuments([], [])
            files = await self._access(thread_id)
            return await files.keep_documents(DOCUMENTS, stamp)
        except AppError as error:
            log.warning("documents_not_kept", thread_id=thread_id, reason=error.detail)
            return KeptDocuments([], [LeftOut("", error.code)])

    async def _access(self, thread_id: ThreadId) -> FileAccess:
        return (await self._sandboxes.acquire(thread_id)).files


async def _yes() -> bool:
    return True


class RootFiles:
    """The files below one root. Each call raises PathError, or SandboxUnavailable."""

    def __init__(
        self,
        access: Callable[[], Awaitable[FileAccess]],
        root: Root,
        *,
        may_have_any: Callable[[], Awaitable[bool]] = _yes,
    ) -> None:
        self._access = access
        self._root = root
        self._may_have_any = may_have_any

    async def list_folder(self, path: str, *, after: str | None, limit: int) -> FolderPage:
        """Entries of a folder in the order of their names, those after the name `after`."""
        if not parse_path(path) and not await self._may_have_any():
            return FolderPage([], None)
        return await (await self._to_read(path)).list_folder(self._root, path, after=after, limit=limit)

    async def stat(self, path: str) -> FileEntry:
        return await (await self._to_read(path)).stat(self._root, path)

    async def preview(self, path: str) -> Preview:
        """What can be told of a file by its name and its first bytes."""
        files = await self._to_read(path)
        entry = await files.stat(self._root, path)
        if entry.type != "file":
            return preview_of(entry, b"")
        async with files.open(self._root, path, length=PREVIEW_BYTES) as opened:
            return preview_of(opened.entry, b"".join([chunk async for chunk in opened.chunks]))

    @asynccontextmanager
    async def open(self, path: str, *, start: int = 0, length: int | None = None) -> AsyncGenerator[OpenFile]:
        files = await self._to_read(path)
        async with files.open(self._root, path, start=start, length=length) as opened:
            yield opened

    @asynccontextmanager
    async def zip(self, path: str) -> AsyncGenerator[AsyncIterator[bytes]]:
        """A zip archive of a folder's regular files, as it is made."""
        files = await self._to_read(path)
        archive: AbstractAsyncContextManager[AsyncIterator[bytes]] = files.zip(self._root, path)
        async with archive as pieces:
            yield pieces

    async def usage(self) -> Usage:
        """What the root holds and may hold. A workspace that is not there yet holds nothing."""
        if not await self._may_have_any():
            return Usage(0, 0, None, None)
        return await (await self._access()).usage(self._root)

    async def write(self, path: str, chunks: AsyncIterator[bytes], *, overwrite: bool = True) -> tuple[FileEntry, bool]:
        """Write a file whole or not at all, its folders too; answers the entry and whether it is new."""
        parse_path(path)
        files = await self._access()
        return await files.write(self._root, path, chunks, limit=MAX_FILE_BYTES, overwrite=overwrite)

    async def make_folder(self, path: str) -> FileEntry:
        parse_path(path)
        return await (await self._access()).make_folder(self._root, path)

    async def move(self, source: str, target: str, *, overwrite: bool) -> FileEntry:
        parse_path(target)
        return await (await self._to_read(source)).move(self._root, source, target, overwrite=overwrite)

    async def delete(self, path: str) -> None:
        await (await self._to_read(path)).delete(self._root, path)

    async def _to_read(self, path: str) -> FileAccess:
        """For what is there already, if it is."""
        parse_path(path)
        if not await self._may_have_any():
            raise PathError("There is no such file or folder.", code="file_not_found")
        return await self._access()
