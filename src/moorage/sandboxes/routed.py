"""A thread's sandbox as its users see it, whichever container and helper serve it at the moment."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from moorage.ids import ThreadId
from moorage.sandboxes.files import FileAccess, FileEntry, FolderPage, KeptDocuments, OpenFile, Root, Usage
from moorage.sandboxes.place import OpenSandbox
from moorage.sandboxes.port import KEEP_BYTES, CommandResult, OnOutput, SandboxDied, SandboxGone
from moorage.sandboxes.trees import FetchedFile, Listing, Planted, ReadContent, TreeBounds, TreeEntry, Trees


class Uses(Protocol):
    """What leads to the sandbox: see `Sandboxes`."""

    async def use[T](
        self, thread_id: ThreadId, action: Callable[[OpenSandbox], Awaitable[T]], *, profile: str | None = None
    ) -> T: ...

    def open[T](
        self, thread_id: ThreadId, what: Callable[[OpenSandbox], AbstractAsyncContextManager[T]]
    ) -> AbstractAsyncContextManager[T]: ...


class RoutedSandbox:
    """`moorage.sandboxes.port.Sandbox` by thread id."""

    def __init__(self, thread_id: ThreadId, sandboxes: Uses, profile: str | None) -> None:
        self._thread_id = thread_id
        self._sandboxes = sandboxes
        self._profile = profile

    @property
    def id(self) -> str:
        return self._thread_id

    @property
    def files(self) -> FileAccess:
        return RoutedFiles(self._thread_id, self._sandboxes)

    @property
    def trees(self) -> Trees:
        return RoutedTrees(self._thread_id, self._sandboxes, self._profile)

    async def run(
        self,
        command: str,
        *,
        time_limit: float,
        on_output: OnOutput | None = None,
        stdin: bytes | None = None,
        keep: int = KEEP_BYTES,
        raw: bool = False,
    ) -> CommandResult:
        return await self._use(
            lambda sandbox: sandbox.run(
                command, time_limit=time_limit, on_output=on_output, stdin=stdin, keep=keep, raw=raw
            )
        )

    async def write_file(self, path: str, content: bytes) -> bool:
        return await self._use(lambda sandbox: sandbox.write_file(path, content))

    async def read_file(self, path: str, *, limit: int) -> bytes:
        return await self._use(lambda sandbox: sandbox.read_file(path, limit=limit))

    async def _use[T](self, action: Callable[[OpenSandbox], Awaitable[T]]) -> T:
        return await self._sandboxes.use(self._thread_id, action, profile=self._profile)


class RoutedFiles:
    """`moorage.sandboxes.files.FileAccess` by thread id, under whichever profile the sandbox has."""

    def __init__(self, thread_id: ThreadId, sandboxes: Uses) -> None:
        self._thread_id = thread_id
        self._sandboxes = sandboxes

    async def list_folder(self, root: Root, path: str, *, after: str | None = None, limit: int = 100) -> FolderPage:
        return await self._use(lambda files: files.list_folder(root, path, after=after, limit=limit))

    async def stat(self, root: Root, path: str) -> FileEntry:
        return await self._use(lambda files: files.stat(root, path))

    def open(
        self, root: Root, path: str, *, start: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[OpenFile]:
        return self._sandboxes.open(
            self._thread_id, lambda sandbox: sandbox.files.open(root, path, start=start, length=length)
        )

    async def write(
        self, root: Root, path: str, chunks: AsyncIterator[bytes], *, limit: int, overwrite: bool = True
    ) -> tuple[FileEntry, bool]:
        taken = False

        async def once() -> AsyncGenerator[bytes]:
            nonlocal taken
            taken = True
            async for chunk in chunks:
                yield chunk

        async def write(files: FileAccess) -> tuple[FileEntry, bool]:
            try:
                return await files.write(root, path, once(), limit=limit, overwrite=overwrite)
            except SandboxGone as error:
                if taken:  # what was taken from `chunks` cannot be had again
                    raise SandboxDied(error.detail) from error
                raise

        return await self._use(write)

    async def make_folder(self, root: Root, path: str) -> FileEntry:
        return await self._use(lambda files: files.make_folder(root, path))

    async def move(self, root: Root, source: str, target: str, *, overwrite: bool = False) -> FileEntry:
        return await self._use(lambda files: files.move(root, source, target, overwrite=overwrite))

    async def delete(self, root: Root, path: str) -> None:
        await self._use(lambda files: files.delete(root, path))

    async def usage(self, root: Root) -> Usage:
        return await self._use(lambda files: files.usage(root))

    def zip(self, root: Root, path: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self._sandboxes.open(self._thread_id, lambda sandbox: sandbox.files.zip(root, path))

    async def keep_documents(self, suffixes: tuple[str, ...], stamp: str) -> KeptDocuments:
        return await self._use(lambda files: files.keep_documents(suffixes, stamp))

    async def _use[T](self, action: Callable[[FileAccess], Awaitable[T]]) -> T:
        return await self._sandboxes.use(self._thread_id, lambda sandbox: action(sandbox.files))


class RoutedTrees:
    """`moorage.sandboxes.trees.Trees` by thread id. What is only read is read under whichever profile there is."""

    def __init__(self, thread_id: ThreadId, sandboxes: Uses, profile: str | None) -> None:
        self._thread_id = thread_id
        self._sandboxes = sandboxes
        self._profile = profile

    async def list(self, bounds: TreeBounds) -> Listing:
        return await self._sandboxes.use(self._thread_id, lambda sandbox: sandbox.trees.list(bounds))

    def fetch(self, wanted: Sequence[TreeEntry]) -> AbstractAsyncContextManager[AsyncIterator[FetchedFile]]:
        return self._sandboxes.open(self._thread_id, lambda sandbox: sandbox.trees.fetch(wanted))

    async def plant(
        self, entries: Sequence[TreeEntry], *, keep: Collection[bytes], read: ReadContent, bounds: TreeBounds
    ) -> Planted:
        return await self._sandboxes.use(
            self._thread_id,
            lambda sandbox: sandbox.trees.plant(entries, keep=keep, read=read, bounds=bounds),
            profile=self._profile,
        )
