"""Answers that are in their shape already."""

from typing import Any

from fastapi import Response

from moorage.events import encode


class Prepared(Response):
    """JSON that goes out as it is. An endpoint that answers this says in `response_model` what it looks like.

    FastAPI would check each item again, which is most of the time that a long history takes.
    """

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return encode(content)
