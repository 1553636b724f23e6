"""No query and no message of a human or of an attacker makes Postgres fail, or busy for long."""

import random

import pytest

from moorage.adapters.postgres.pool import Database
from moorage.messages import search_query

_PIECES = ["\"'-|&!()<>:*\\ _%.@/+#~=?", 'aé1  --""', "汉。ー한", " OR ", " or ", ' -"', "<->", "\u202e\ud7ff𠮷🎉"]


async def test_random_queries(pool: Database) -> None:
    chance = random.Random(7)  # noqa: S311 -- the same every time
    texts = ["".join(chance.choice(chance.choice(_PIECES)) for _ in range(chance.randint(1, 400))) for _ in range(3000)]
    repeated = [piece * 200 for piece in ("-a ", "-_ ", '-"。" ', "OR a ", "-a OR ", "a- ", "a.-", '-"a" ', "a'", "-%")]
    queries = [search_query(text) for text in [*texts, *(text[:400] for text in repeated)]]
    async with pool.connection() as connection:
        await connection.execute(
            "SELECT numnode(websearch_to_tsquery('simple', q)) FROM unnest(%s::text[]) q", [queries]
        )


@pytest.mark.parametrize("piece", ["a_", "~/", "./", "a_b-", "a-b.", "<a_", "-", "汉", "word "])
async def test_no_message_takes_long_to_index(pool: Database, piece: str) -> None:
    text = (piece * 100_000)[:100_000]
    async with pool.connection() as connection:
        await connection.execute("SET LOCAL statement_timeout = '3s'")
        await connection.execute(
            "SELECT length(to_tsvector('simple'::regconfig, left(moorage_words(%s), 100000)))", [text]
        )
