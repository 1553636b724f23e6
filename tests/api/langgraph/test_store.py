"""The store over HTTP, as the clients of the LangGraph wire call it."""

import pytest
from tests.api.harness import NewUser, User


async def put(user: User, namespace: list[str], key: str, value: object, **more: object) -> int:
    body = {"namespace": namespace, "key": key, "value": value, **more}
    return (await user.client.put("/store/items", json=body)).status_code


async def test_an_item_is_put_read_searched_and_deleted(alice: User) -> None:
    assert await put(alice, ["users", "a"], "k1", {"x": 3}) == 204
    reply = await alice.client.get("/store/items", params={"namespace": "users.a", "key": "k1"})
    item = reply.json()
    assert (item["namespace"], item["key"], item["value"]) == (["users", "a"], "k1", {"x": 3})
    assert item["created_at"].endswith("+00:00")
    body = {"namespace_prefix": ["users"], "filter": {"x": {"$gte": 2}}}
    [found] = (await alice.client.post("/store/items/search", json=body)).json()["items"]
    assert found == {**item, "score": None}
    spaces = await alice.client.post("/store/namespaces", json={"prefix": ["users"], "max_depth": 1})
    assert spaces.json() == {"namespaces": [["users"]]}
    for _ in range(2):
        reply = await alice.client.request("DELETE", "/store/items", json={"namespace": ["users", "a"], "key": "k1"})
        assert (reply.status_code, reply.content) == (204, b"")


async def test_an_item_that_is_not_there_is_null(alice: User) -> None:
    reply = await alice.client.get("/store/items", params={"namespace": "users.a", "key": "nope"})
    assert (reply.status_code, reply.json()) == (200, None)


async def test_a_user_sees_nothing_of_another_and_no_prefix_of_their_own(new_user: NewUser) -> None:
    al, al_ice = await new_user("al"), await new_user("al-ice")
    await put(al_ice, ["secret"], "k", {"x": 1})
    assert (await al.client.get("/store/items", params={"namespace": "secret", "key": "k"})).json() is None
    assert (await al.client.post("/store/items/search", json={})).json() == {"items": []}
    assert (await al.client.post("/store/namespaces", json={})).json() == {"namespaces": []}
    assert (await al_ice.client.post("/store/namespaces", json={})).json() == {"namespaces": [["secret"]]}


@pytest.mark.parametrize(
    ("namespace", "key", "value"),
    [([], "k", {}), (["a.b"], "k", {}), ([""], "k", {}), (["a"], "", {}), (["a"], "k", "text"), (["a"], "k", None)],
)
async def test_a_wrong_item_is_422(alice: User, namespace: list[str], key: str, value: object) -> None:
    assert await put(alice, namespace, key, value) == 422


async def test_a_key_that_holds_what_no_database_stores_is_422(alice: User) -> None:
    reply = await alice.client.get("/store/items?namespace=a&key=%00")
    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/problem+json"


async def test_a_search_for_words_tells_how_well_they_fit(alice: User) -> None:
    await put(alice, ["memories"], "tea", {"text": "likes green tea"}, index=["text"], ttl=5)
    await put(alice, ["memories"], "other", {"text": "lives in Kiel"})
    body = {"namespace_prefix": ["memories"], "query": "what tea?"}
    [found] = (await alice.client.post("/store/items/search", json=body)).json()["items"]
    assert found["key"] == "tea"
    assert found["score"] > 0
