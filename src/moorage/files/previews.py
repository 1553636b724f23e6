"""What a file is, by its name and its first bytes. Nothing is decoded: an image's size is read out of its header."""

import mimetypes
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moorage.sandboxes.files import FileEntry

PREVIEW_BYTES = 64 * 1024
_BINARY = re.compile(r"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]")  # what no text has; ESC is in terminals' output

# The machine's own tables would answer differently on each machine.
_TYPES = mimetypes.MimeTypes()
_MORE_TYPES = {
    ".md": "text/markdown", ".csv": "text/csv", ".tsv": "text/tab-separated-values", ".yaml": "application/yaml",
    ".yml": "application/yaml", ".toml": "application/toml", ".ts": "text/x-typescript", ".webp": "image/webp",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}  # fmt: skip
for _suffix, _type in _MORE_TYPES.items():
    _TYPES.add_type(_type, _suffix)

_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # of JPEG (ITU-T T.81, table B.1)
_BMP_HEADERS = frozenset({40, 52, 56, 64, 108, 124})
_NO_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})


@dataclass(frozen=True, slots=True)
class ImageSize:
    """As the file says; nobody has looked at the picture."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Preview:
    """`mime` is guessed by the name. `text`: the first 64 KiB of what is UTF-8, `truncated` when there is more."""

    entry: FileEntry
    mime: str
    text: str | None = None
    truncated: bool = False
    image: ImageSize | None = None


def preview_of(entry: FileEntry, start: bytes) -> Preview:
    """The preview of a file that begins with `start`: all of it, or its first PREVIEW_BYTES bytes."""
    # As a path: a name by itself may look like an address, such as `data:...`, which says what it is.
    mime = _TYPES.guess_type(f"/{entry.name}", strict=False)[0] or "application/octet-stream"
    if entry.type != "file":
        return Preview(entry, "inode/directory" if entry.type == "dir" else "application/octet-stream")
    image = image_size(start)
    text = _text(start, is_all=len(start) >= entry.size) if image is None else None
    return Preview(entry, mime, text, truncated=text is not None and len(start) < entry.size, image=image)


def _text(start: bytes, *, is_all: bool) -> str | None:
    """None for what is no text. The last character may be cut when more follows."""
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        if is_all or error.reason != "unexpected end of data" or error.start < len(start) - 3:
            return None
        text = start[: error.start].decode()
    return None if _BINARY.search(text) else text


def image_size(start: bytes) -> ImageSize | None:
    """How large an image says it is, None for what is none of PNG, GIF, BMP, WebP and JPEG."""
    for magic, read in _FORMATS:
        if start.startswith(magic):
            try:
                return read(start)
            except (struct.error, IndexError):
                return None
    return None


def _png(start: bytes) -> ImageSize | None:
    return ImageSize(*struct.unpack_from(">II", start, 16)) if start[12:16] == b"IHDR" else None


def _gif(start: bytes) -> ImageSize:
    return ImageSize(*struct.unpack_from("<HH", start, 6))


def _bmp(start: bytes) -> ImageSize | None:
    if struct.unpack_from("<I", start, 14)[0] not in _BMP_HEADERS:
        return None
    width, height = struct.unpack_from("<ii", start, 18)
    return ImageSize(abs(width), abs(height))


def _webp(start: bytes) -> ImageSize | None:
    """RFC 9649: lossy, lossless or extended."""
    if start[8:12] != b"WEBP":
        return None
    match start[12:16]:
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", start, 26)
            return ImageSize(width & 0x3FFF, height & 0x3FFF)
        case b"VP8L":
            bits = struct.unpack_from("<I", start, 21)[0]
            return ImageSize((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        case b"VP8X":
            width, height = (int.from_bytes(start[at : at + 3], "little") for at in (24, 27))
            return ImageSize(width + 1, height + 1) if len(start) >= 30 else None
        case _:
            return None


def _jpeg(start: bytes) -> ImageSize | None:
    """From segment to segment, to the header of the frame; it need not be among the first bytes."""
    at = 2
    while start[at] == 0xFF:
        marker = start[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _NO_LENGTH:
            at += 2
        elif marker in _FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", start, at + 5)
            return ImageSize(width, height)
        else:
            at += 2 + max(2, struct.unpack_from(">H", start, at + 2)[0])
    return None


_FORMATS: Sequence[tuple[bytes, Callable[[bytes], ImageSize | None]]] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    (b"BM", _bmp),
    (b"RIFF", _webp),
    (b"\xff\xd8\xff", _jpeg),
)
