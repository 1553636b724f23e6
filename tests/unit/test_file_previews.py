"""What is told of a file by its name and its first bytes."""

import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.files import ImageSize, Preview
from moorage.files.previews import image_size, preview_of
from moorage.sandboxes.files import EntryType, FileEntry


def entry(name: str, size: int, kind: EntryType = "file") -> FileEntry:
    return FileEntry(name, name, kind, size, datetime(2026, 1, 1, tzinfo=UTC))


def preview(name: str, data: bytes, size: int | None = None) -> Preview:
    return preview_of(entry(name, len(data) if size is None else size), data)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


JPEG = (
    b"\xff\xd8" + segment(0xE0, b"JFIF") + b"\xff" + segment(0xC4, b"tables")
    + segment(0xC2, struct.pack(">BHHB", 8, 300, 400, 3))
)  # fmt: skip
IMAGES = {
    "png": b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 400, 300),
    "gif": b"GIF89a" + struct.pack("<HH", 400, 300),
    "bmp": b"BM" + bytes(12) + struct.pack("<Iii", 40, 400, -300),
    "webp, lossy": b"RIFF----WEBPVP8 " + bytes(10) + struct.pack("<HH", 400 | 0x4000, 300),
    "webp, lossless": b"RIFF----WEBPVP8L" + bytes(5) + struct.pack("<I", 399 | 299 << 14),
    "webp, extended": b"RIFF----WEBPVP8X" + bytes(8) + (399).to_bytes(3, "little") + (299).to_bytes(3, "little"),
    "jpeg": JPEG,
}


@pytest.mark.parametrize("kind", IMAGES)
def test_the_size_of_an_image_is_read_out_of_its_header(kind: str) -> None:
    assert image_size(IMAGES[kind]) == ImageSize(400, 300)
    assert preview("a", IMAGES[kind]).text is None


@given(st.sampled_from([*IMAGES.values()]), st.data())
def test_a_header_that_is_cut_or_broken_harms_nobody(image: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(image)))
    rest = data.draw(st.binary(max_size=40))
    found = image_size(image[:cut] + rest)
    assert found is None or found.width >= 0


@pytest.mark.parametrize(
    "text", ["", "hello\n", "BMW makes cars, and this is no picture of one.", "\x1b[31mred", "é日本"]
)
def test_utf8_is_text(text: str) -> None:
    found = preview("a.txt", text.encode())
    assert (found.text, found.truncated, found.image) == (text, False, None)


@pytest.mark.parametrize("data", [b"\0", b"a\0b", b"\xff\xfe", b"abc\xc3", b"\xed\xa0\x80", b"\x7fELF"])
def test_other_bytes_are_not(data: bytes) -> None:
    assert preview("a.txt", data).text is None


def test_of_a_longer_text_there_is_the_start_without_half_a_character() -> None:
    found = preview("a.txt", "日本".encode()[:5], size=100)
    assert (found.text, found.truncated) == ("日", True)
    assert preview("a.txt", b"\xff" + b"a" * 10, size=100).text is None


@pytest.mark.parametrize(
    ("name", "mime"),
    [
        ("a.txt", "text/plain"), ("a.md", "text/markdown"), ("A.PDF", "application/pdf"), ("a.csv", "text/csv"),
        ("a", "application/octet-stream"), ("a.unknown", "application/octet-stream"), ("a.png", "image/png"),
    ],
)  # fmt: skip
def test_the_type_is_guessed_by_the_name(name: str, mime: str) -> None:
    assert preview(name, b"").mime == mime


def test_what_is_no_file_has_neither_text_nor_size() -> None:
    found = preview_of(entry("pictures.png", 0, "dir"), b"")
    assert (found.mime, found.text, found.image) == ("inode/directory", None, None)


@pytest.mark.parametrize("name", ["data:text%2Fhtml,x", "data:application/x-shellscript,x", "http:a"])
def test_a_name_is_no_address(name: str) -> None:
    assert preview(name, b"x").mime == "application/octet-stream"
