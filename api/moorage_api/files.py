"""Files over HTTP: those of a session's workspace here, those of the shared folder in `shared_files`."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from moorage.files import RootFiles
from moorage.sandboxes.paths import MAX_TEXT
from moorage_api.deps import RuntimeDep, ThreadDep
from moorage_api.downloads import ARCHIVE, CONTENT, WRITTEN, archive, download, headers_of
from moorage_api.file_shapes import (
    File,
    FileList,
    FilePreview,
    FileUsage,
    Move,
    NewFolder,
    shown_file,
    shown_page,
    shown_preview,
    shown_usage,
)
from moorage_api.transfers import TransferDep
from moorage_api.uploads import form_file, raw_body

type Limit = Annotated[int, Query(ge=1, le=100)]
type Folder = Annotated[str, Query(alias="path", max_length=MAX_TEXT, description="Relative to the root")]
type Path = Annotated[str, Query(min_length=1, max_length=MAX_TEXT, description="Relative to the root")]
type HeaderText = Annotated[str | None, Header()]  # of any length: what makes no sense is ignored (RFC 9110, 14.2)
type FindRoot = Callable[..., Coroutine[Any, Any, RootFiles]]

STREAMED = r"/api/(files/[^/]+|shared)/(content|upload)"
"""The paths whose bodies are files."""

_FILE: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_RAW: dict[str, Any] = {"requestBody": {"content": {"application/octet-stream": _FILE}}}
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": _FILE["schema"]},
                    "required": ["file"],
                    "additionalProperties": False,
                }
            }
        },
    }
}
_CREATED: dict[int | str, dict[str, Any]] = {201: {"model": File, "description": "It was not there before"}, **WRITTEN}


def file_routes(prefix: str, tag: str, root: FindRoot) -> APIRouter:
    """The operations on the files below one root, which `root` finds by the request."""
    router = APIRouter(prefix=prefix, tags=[tag])
    _add_looking(router, root)
    _add_contents(router, root)
    _add_writing(router, root)
    _add_changing(router, root)
    return router


def _add_looking(router: APIRouter, root: FindRoot) -> None:
    @router.get("")
    async def list_files(
        files: Annotated[RootFiles, Depends(root)],
        path: Folder = "",
        limit: Limit = 100,
        cursor: Annotated[str | None, Query(max_length=MAX_TEXT)] = None,
    ) -> FileList:
        """The entries of a folder, by name. Links are shown as such, and never followed."""
        return shown_page(await files.list_folder(path, after=cursor, limit=limit))

    @router.get("/stat")
    async def stat_file(files: Annotated[RootFiles, Depends(root)], path: Folder = "") -> File:
        return shown_file(await files.stat(path))

    @router.get("/preview")
    async def preview_file(files: Annotated[RootFiles, Depends(root)], path: Path) -> FilePreview:
        """What is to be shown of a file before it is fetched: its first 64 KiB when they are text, an image's size."""
        return shown_preview(await files.preview(path))

    @router.get("/usage")
    async def get_usage(files: Annotated[RootFiles, Depends(root)]) -> FileUsage:
        """How much is there, and how much may be."""
        return shown_usage(await files.usage())


def _add_contents(router: APIRouter, root: FindRoot) -> None:
    @router.get("/content", response_class=Response, responses=CONTENT)
    async def read_file(
        files: Annotated[RootFiles, Depends(root)],
        transfer: TransferDep,
        path: Path,
        range: HeaderText = None,
        if_range: HeaderText = None,
    ) -> Response:
        """The bytes of a file, or the one part that `Range` asks for. With `If-Range` always all: tags are weak."""
        return await download(files, path, transfer, wanted=range, only_if=if_range)

    @router.head("/content", include_in_schema=False)
    async def look_at_file(files: Annotated[RootFiles, Depends(root)], path: Path) -> Response:
        async with files.open(path, length=0) as opened:
            return Response(headers=headers_of(opened.entry, opened.entry.size), media_type="application/octet-stream")

    @router.get("/zip", response_class=Response, responses=ARCHIVE)
    async def zip_folder(
        files: Annotated[RootFiles, Depends(root)], transfer: TransferDep, path: Folder = ""
    ) -> Response:
        """A folder's regular files, 20000 of 4 GiB at most; if anything is missing, `_missing.txt` in it says so."""
        pieces = await transfer.stack.enter_async_context(files.zip(path))
        return archive(f"{path.rpartition('/')[2] or 'files'}.zip", transfer.watched(pieces))


def _add_writing(router: APIRouter, root: FindRoot) -> None:
    @router.put("/content", responses=_CREATED, openapi_extra=_RAW)
    async def write_file(
        request: Request,
        response: Response,
        files: Annotated[RootFiles, Depends(root)],
        transfer: TransferDep,
        path: Path,
    ) -> File:
        """Write the body, of any type and up to 25 MiB, as a file: whole or not at all, its folders too."""
        entry, created = await files.write(path, transfer.watched(raw_body(request)))
        response.status_code = 201 if created else 200
        return shown_file(entry)

    @router.post("/upload", responses=_CREATED, openapi_extra=_FORM)
    async def upload_file(
        request: Request,
        response: Response,
        files: Annotated[RootFiles, Depends(root)],
        transfer: TransferDep,
        path: Folder = "",
        overwrite: bool = True,
    ) -> File:
        """Write a form's file, up to 25 MiB, under its own name into the folder at `path`."""
        upload = await form_file(request)
        target = f"{path}/{upload.name}" if path else upload.name
        entry, created = await files.write(target, transfer.watched(upload.chunks), overwrite=overwrite)
        response.status_code = 201 if created else 200
        return shown_file(entry)


def _add_changing(router: APIRouter, root: FindRoot) -> None:
    @router.post("/mkdir", status_code=201, responses=WRITTEN)
    async def make_folder(files: Annotated[RootFiles, Depends(root)], body: NewFolder) -> File:
        """Make a folder, and those that it is in."""
        return shown_file(await files.make_folder(body.path))

    @router.post("/move", responses=WRITTEN)
    async def move_file(files: Annotated[RootFiles, Depends(root)], body: Move) -> File:
        """Give a file or folder another path. 409 when something is there, unless `overwrite`."""
        return shown_file(await files.move(body.source, body.target, overwrite=body.overwrite))

    @router.delete("/content", status_code=204)
    async def delete_file(files: Annotated[RootFiles, Depends(root)], path: Path) -> Response:
        """Remove a file, or a folder with all it holds."""
        await files.delete(path)
        return Response(status_code=204)


async def _workspace(runtime: RuntimeDep, thread: ThreadDep) -> RootFiles:
    return runtime.files.of_thread(thread.thread_id)


router = file_routes("/api/files/{thread_id}", "files", _workspace)
