"""design/openapi.json is what the server says of itself, so that a change of the API is seen in its review."""

from pathlib import Path

from tests.api.harness import User

from moorage_api.openapi_file import openapi_text

FILE = Path(__file__).parents[2] / "design" / "openapi.json"


def test_the_committed_document_is_the_servers_current_one():
    current = FILE.read_text(encoding="utf-8") == openapi_text()  # a diff of 20 000 lines helps nobody
    assert current, "design/openapi.json is not what the server says of itself any more: run `make openapi`"


async def test_a_servers_own_document_does_not_depend_on_where_it_runs(alice: User):
    assert openapi_text((await alice.client.get("/openapi.json")).json()) == openapi_text()
