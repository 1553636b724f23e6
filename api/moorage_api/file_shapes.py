"""Files as clients see them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from moorage.files import Preview
from moorage.sandboxes.files import FileEntry, FolderPage, Usage
from moorage.sandboxes.paths import MAX_TEXT
from moorage_api.json_types import Flag

type PathText = Annotated[str, Field(max_length=MAX_TEXT)]


class File(BaseModel):
    """An entry of a folder. `path` is relative to the root, and what every call takes; odd names are escaped."""

    path: str
    name: str
    type: Literal["file", "dir", "link", "other"]
    size: int
    modified_at: str


class FileList(BaseModel):
    items: list[File]
    next_cursor: str | None


class Image(BaseModel):
    width: int
    height: int


class FilePreview(File):
    """`mime` is guessed by the name. `text`: the beginning of what is text; `truncated` when there is more of it."""

    mime: str
    text: str | None
    truncated: bool
    image: Image | None


class FileUsage(BaseModel):
    """In bytes and entries; null: not bounded, or nobody knows."""

    used_bytes: int
    used_files: int
    limit_bytes: int | None
    limit_files: int | None


class NewFolder(BaseModel):
    model_config = ConfigDict(extra="forbid")
    path: PathText


class Move(BaseModel):
    model_config = ConfigDict(extra="forbid")
    source: Annotated[PathText, Field(alias="from")]
    target: Annotated[PathText, Field(alias="to")]
    overwrite: Flag = False


def shown_file(entry: FileEntry) -> File:
    return File(
        path=entry.path,
        name=entry.name,
        type=entry.type,
        size=entry.size,
        modified_at=entry.modified_at.isoformat(),
    )


def shown_page(page: FolderPage) -> FileList:
    return FileList(items=[shown_file(item) for item in page.items], next_cursor=page.next_after)


def shown_preview(preview: Preview) -> FilePreview:
    image = preview.image and Image(width=preview.image.width, height=preview.image.height)
    return FilePreview(
        **shown_file(preview.entry).model_dump(),
        mime=preview.mime,
        text=preview.text,
        truncated=preview.truncated,
        image=image,
    )


def shown_usage(usage: Usage) -> FileUsage:
    return FileUsage(
        used_bytes=usage.used_bytes,
        used_files=usage.used_files,
        limit_bytes=usage.limit_bytes,
        limit_files=usage.limit_files,
    )
