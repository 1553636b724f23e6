"""Files of a session and of the shared folder: in, out, looked at, moved, removed; and what the agent changed."""

import asyncio
import io
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Locator, Route, expect
from tests.api.harness import User
from tests.web.browser import Look, Screen, script, write_file
from tests.web.conftest import NewScreen

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    return {"sandbox_disk_mb": 16, "sandbox_shared_disk_mb": 16}


@pytest.fixture
async def files(screen: Screen) -> Locator:
    """The files of a new session of Ada's, at her screen."""
    await screen.new_session()
    return await screen.open_panel("Files")


async def put(user: User, path: str, content: bytes, *, thread_id: str) -> None:
    reply = await user.client.put(f"/api/files/{thread_id}/content", params={"path": path}, content=content)
    assert reply.status_code == 201, reply.text


async def read(user: User, path: str, *, root: str) -> bytes:
    reply = await user.client.get(f"/api/{root}/content", params={"path": path})
    assert reply.status_code == 200, reply.text
    return reply.content


async def upload(screen: Screen, *names_or_files: Any, into: str = "the top folder") -> None:
    async with screen.page.expect_file_chooser() as chooser:
        await screen.button(f"Upload into {into}").click()
    await (await chooser.value).set_files(list(names_or_files))


def text_file(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "text/plain", "buffer": content}


async def drop(target: Locator, name: str, content: str) -> None:
    page = target.page
    carried = await page.evaluate_handle(
        "([name, content]) => { const carried = new DataTransfer();"
        " carried.items.add(new File([content], name)); return carried }",
        [name, content],
    )
    await target.dispatch_event("dragover", {"dataTransfer": carried})
    await target.dispatch_event("drop", {"dataTransfer": carried})


def entry(panel: Locator, name: str) -> Locator:
    return panel.get_by_role("navigation", name="Files and folders").get_by_role("button", name=name)


async def look_at(panel: Locator, name: str) -> Locator:
    await entry(panel, name).first.click()
    return panel.get_by_role("region", name=name).first


# In and out -----------------------------------------------------------------------------------------------------------


async def test_a_file_is_chosen_and_sent_with_its_progress_and_counted(screen: Screen, files: Locator, ada: User):
    go_on = asyncio.Event()

    async def hold(route: Route) -> None:
        await go_on.wait()
        await route.continue_()

    await screen.page.route("**/upload?*", hold)
    await expect(files.get_by_text("No files yet")).to_be_visible()
    await upload(screen, text_file("notes.txt", b"one\r\ntwo \xe4\xb8\xad\n"))
    await expect(files.get_by_text("% sent")).to_be_visible()
    go_on.set()
    await expect(files.get_by_text("notes.txt is uploaded")).to_be_visible()
    await expect(entry(files, "notes.txt").first).to_be_visible()
    await expect(files.get_by_text("1 entry")).to_be_visible()
    await expect(files.get_by_text("of 16.8 MB used")).to_be_visible()
    assert await read(ada, "notes.txt", root=f"files/{screen.thread_id}") == b"one\r\ntwo \xe4\xb8\xad\n"


async def test_files_are_dropped_and_none_takes_the_place_of_another(screen: Screen, files: Locator, ada: User):
    await put(ada, "notes.txt", b"first", thread_id=screen.thread_id)
    screen.watch.expect("409 POST /api/files/*/upload")
    await drop(files.locator(".panel .bar"), "notes.txt", "second")
    await expect(files.get_by_text("notes-2.txt is uploaded")).to_be_visible()
    root = f"files/{screen.thread_id}"
    assert await read(ada, "notes.txt", root=root) == b"first"
    assert await read(ada, "notes-2.txt", root=root) == b"second"


async def test_what_does_not_fit_any_more_is_refused_in_words(screen: Screen, files: Locator, tmp_path: Path):
    large = tmp_path / "large.bin"
    large.write_bytes(bytes(17 * MIB))
    screen.watch.expect("*POST /api/files/*/upload")
    await upload(screen, large)
    await expect(files.get_by_text("large.bin was not sent")).to_be_visible()
    await screen.assert_accessible()


async def test_a_download_and_the_archive_hold_the_same_bytes(screen: Screen, files: Locator, ada: User):
    content = bytes(range(256)) * 40
    await put(ada, "data/all.bin", content, thread_id=screen.thread_id)
    await put(ada, "read me.txt", b"hello\n", thread_id=screen.thread_id)
    await screen.button("Look again").click()
    await screen.button("What to do with read me.txt").click()
    assert await screen.keep(screen.page.get_by_text("Download", exact=True)) == b"hello\n"
    archive = zipfile.ZipFile(io.BytesIO(await screen.keep(screen.button("Download all as zip"))))
    assert {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")} == {
        "data/all.bin": content,
        "read me.txt": b"hello\n",
    }
    await screen.button("What to do with data").click()
    folder = zipfile.ZipFile(io.BytesIO(await screen.keep(screen.page.get_by_text("Download data as zip"))))
    assert [folder.read(name) for name in folder.namelist() if name.endswith("all.bin")] == [content]


# Folders --------------------------------------------------------------------------------------------------------------


async def test_a_folder_is_made_filled_renamed_and_deleted(screen: Screen, files: Locator, ada: User):
    await screen.button("New folder").click()
    await screen.dialog.get_by_label("Name of the folder").fill("drafts")
    await screen.dialog.get_by_role("button", name="Save").click()
    await entry(files, "drafts").first.click()
    await upload(screen, text_file("a.txt", b"a"), into="drafts")
    await expect(entry(files, "a.txt").first).to_be_visible()

    await screen.choose("What to do with drafts", "Rename or move")
    await screen.dialog.get_by_label("New path").fill("final/texts")
    screen.watch.expect("404 POST /api/files/*/move")
    await screen.dialog.get_by_role("button", name="Save").click()
    await expect(screen.dialog.locator(".v-alert")).to_be_visible()
    await screen.dialog.get_by_label("New path").fill("texts")
    await screen.dialog.get_by_role("button", name="Save").click()
    await expect(screen.dialog).to_have_count(0)
    assert await read(ada, "texts/a.txt", root=f"files/{screen.thread_id}") == b"a"

    await screen.choose("What to do with texts", "Delete")
    await expect(screen.dialog).to_contain_text("Delete texts and all that it holds?")
    await screen.dialog.get_by_role("button", name="Cancel").click()
    await expect(entry(files, "texts").first).to_be_visible()
    await screen.choose("What to do with texts", "Delete")
    await screen.dialog.get_by_role("button", name="Delete").click()
    await expect(files.get_by_text("No files yet")).to_be_visible()
    listed = await ada.client.get(f"/api/files/{screen.thread_id}")
    assert listed.json()["items"] == []


async def test_files_go_to_a_folder_that_is_open_and_never_to_one_that_is_gone(
    screen: Screen, files: Locator, ada: User
):
    await put(ada, "drafts/a.txt", b"a", thread_id=screen.thread_id)
    await screen.button("Look again").click()
    await entry(files, "drafts").first.click()
    await expect(screen.button("Upload into drafts")).to_be_visible()
    await screen.choose("What to do with drafts", "Delete")
    await screen.dialog.get_by_role("button", name="Delete").click()
    await upload(screen, text_file("b.txt", b"b"))
    await expect(files.get_by_text("b.txt is uploaded")).to_be_visible()
    assert await read(ada, "b.txt", root=f"files/{screen.thread_id}") == b"b"


@pytest.mark.parametrize("look", [Look(width=390)], ids=str)
async def test_the_shared_folder_has_a_page_of_its_own(new_screen: NewScreen, ada: User, look: Look):
    screen = await new_screen(look)
    await screen.log_in(ada, "shared")
    await expect(screen.text("No files yet")).to_be_visible()
    await upload(screen, text_file("letter.md", b"# Dear all\n"))
    tree = screen.page.get_by_role("navigation", name="Files and folders")
    await expect(tree.get_by_text("letter.md")).to_be_visible()
    assert await read(ada, "letter.md", root="shared") == b"# Dear all\n"
    preview = await look_at(screen.page.get_by_role("main"), "letter.md")
    await expect(preview.get_by_role("heading", name="Dear all")).to_be_visible()
    await screen.assert_fits()
    await screen.assert_accessible()


# Looked at ------------------------------------------------------------------------------------------------------------

PDF = b"""%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]>>endobj
trailer<</Root 1 0 R>>
%%EOF
"""


def png(width: int, height: int) -> bytes:
    """One colour, 8 bits of RGB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x0b\x5c\x7a" * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


async def test_each_kind_of_file_is_shown_as_what_it_is(screen: Screen, files: Locator, ada: User):
    for name, content in {
        "plain.txt": b"<b>not bold</b>\n",
        "notes.md": b"# A heading\n\n- [link](https://example.org)\n\n<script>document.title = 'ran'</script>\n",
        "table.csv": b'name,sum\n"Smith, Ann",3\n',
        "plot.png": png(30, 20),
        "paper.pdf": PDF,
        "raw.bin": bytes(range(256)),
    }.items():
        await put(ada, name, content, thread_id=screen.thread_id)
    await screen.button("Look again").click()

    await expect((await look_at(files, "plain.txt")).locator("pre")).to_have_text("<b>not bold</b>\n")
    notes = await look_at(files, "notes.md")
    await expect(notes.get_by_role("heading", name="A heading")).to_be_visible()
    table = await look_at(files, "table.csv")
    await expect(table.get_by_role("cell", name="Smith, Ann")).to_be_visible()
    await screen.assert_accessible()
    image = (await look_at(files, "plot.png")).get_by_role("img", name="plot.png")
    await expect(image).to_be_visible()
    assert await image.evaluate(
        "async (image) => (await image.decode(), [image.naturalWidth, image.naturalHeight])"
    ) == [
        30,
        20,
    ]
    paper = await look_at(files, "paper.pdf")
    await expect(paper.locator("iframe")).to_have_attribute("src", re.compile("^blob:"))
    raw = await look_at(files, "raw.bin")
    await expect(raw.get_by_text("There is no preview of this kind of file. 256 byte")).to_be_visible()
    await raw.get_by_role("button", name="Close the preview").click()
    await expect(raw).to_have_count(0)


PAGE = """<!doctype html><title>Report</title><style>h1 {{ color: rgb(1, 2, 3) }}</style>
<h1 id="mark">untouched</h1>
<script>document.getElementById('mark').textContent = 'its script ran'; parent.document.title = 'ran'</script>
<img src="{elsewhere}/picture.png" onerror="document.getElementById('mark').textContent = 'its script ran'">
<link rel="stylesheet" href="{elsewhere}/style.css"><iframe src="{elsewhere}/frame"></iframe>
<form action="{elsewhere}/form"><button id="send">Send</button></form>"""


async def test_a_page_of_the_agents_runs_no_script_and_loads_nothing(screen: Screen, files: Locator, ada: User):
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    elsewhere = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = elsewhere.sockets[0].getsockname()[1]
    page = PAGE.format(elsewhere=f"http://127.0.0.1:{port}")
    await put(ada, "report.html", page.encode(), thread_id=screen.thread_id)
    await screen.button("Look again").click()
    preview = await look_at(files, "report.html")
    await expect(preview.locator("pre")).to_contain_text("its script ran")  # the source
    screen.watch.expect("console: *Content Security Policy*", "console: *frame is sandboxed*")
    await preview.get_by_role("button", name="As a page").click()
    frame = preview.frame_locator("iframe[sandbox='']")
    await expect(frame.get_by_role("heading")).to_have_text("untouched")
    await frame.locator("#send").click()
    await screen.assert_accessible()
    assert await screen.page.title() != "ran"
    assert asked == []  # it may have connected, as browsers do beforehand, but asked for nothing
    elsewhere.close()


# What the agent changed -----------------------------------------------------------------------------------------------


async def test_changes_are_shown_by_file(screen: Screen):
    await screen.new_session()
    edit = {"file_path": "/workspace/poem.txt", "old_string": "red", "new_string": "blue"}
    await screen.say(script(write_file("poem.txt", "roses are red\n"), ("edit_file", edit)))
    for number in range(2):
        card = screen.page.locator("[data-approval=pending]")
        await expect(card).to_have_count(1)
        await card.get_by_role("button", name="Approve", exact=True).click()
        await expect(screen.page.locator("[data-approval=decided]")).to_have_count(number + 1)
    await screen.sees("That was all.")
    panel = await screen.open_panel("Changes")
    await expect(panel.get_by_text("/workspace/poem.txt").first).to_be_visible()
    await expect(panel.get_by_text("Change 2")).to_be_visible()
    await expect(panel.get_by_text("roses are blue").first).to_be_visible()
    await screen.assert_accessible()


async def test_without_changes_the_panel_says_so(screen: Screen):
    await screen.new_session()
    await expect(await screen.open_panel("Changes")).to_contain_text("The agent has not changed any file yet.")
