"""The API's description as a file: the same on every machine, so that a change of the API is seen as one."""

import json
from types import SimpleNamespace
from typing import Any, cast

from moorage.runtime import Runtime
from moorage.settings import load_settings
from moorage_api.app import create_app


def openapi_text(document: dict[str, Any] | None = None) -> str:
    """The document, or that of this version's server, with sorted keys, two spaces deep, ending in a line end."""
    found = _of_this_version() if document is None else document
    return json.dumps(found, ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def _of_this_version() -> dict[str, Any]:
    """Nothing is opened: routes are described without being called."""
    closed = SimpleNamespace(settings=load_settings({}, env_file=None))
    return create_app(cast("Runtime", closed)).openapi()
