"""Requests made from an OpenAPI document, each sent to a server and its answer held against the document."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import BaseSchema, Case, CheckFunction, GenerationMode, Response, checks
from schemathesis.core.failures import FailureGroup
from tests.api.openapi_world import plausible

CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]
# They never end by themselves: they are read to their first event, or for so many seconds.
ENDLESS = {
    "GET /api/sessions/{thread_id}/events",
    "POST /threads/{thread_id}/stream/events",
    "GET /threads/{thread_id}/stream",
}
_FORM = "multipart/form-data"
_SECONDS, _SECONDS_OF_AN_ENDLESS_ONE = 30, 0.5
_SETTINGS = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

type Ids = Mapping[str, str]


@dataclass
class Asked:
    """What was asked of a server so far, and how it answered."""

    examples: Counter[str] = field(default_factory=Counter[str])
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])
    failures: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])

    def failures_of(self, operation: str) -> str:
        return "\n\n".join(text for (failed, _), text in self.failures.items() if failed == operation)


class Asker:
    """Makes requests of one operation, as one user. Blocking: it belongs into a thread."""

    def __init__(self, document: BaseSchema, operation: str, *, url: str, authorization: str, asked: Asked) -> None:
        self._name = operation
        method, path = operation.split(" ")
        self._operation = document[path][method]
        self._url = url
        self._headers = {"authorization": authorization}
        self._asked = asked
        self._session = requests.Session()

    def ask(self, ids: Ids) -> None:
        """Valid requests about things that are there and about things that are not, and broken ones about both."""
        with self._session:
            self._ask(ids)

    def _ask(self, ids: Ids) -> None:
        self._generate(12, GenerationMode.POSITIVE, ids, plausible)
        self._generate(8, GenerationMode.NEGATIVE, ids)
        self._generate(8, GenerationMode.POSITIVE, {})
        if ids:
            self._generate(4, GenerationMode.NEGATIVE, {})

    def _generate(
        self, number: int, mode: GenerationMode, ids: Ids, adapt: Callable[[str, Case], None] | None = None
    ) -> None:
        strategy = self._operation.as_strategy(generation_mode=mode, path_parameters=dict(ids) or None)

        def once(case: Case) -> None:
            if adapt is not None:
                adapt(self._name, case)
            self._call(case)

        try:
            settings(_SETTINGS, max_examples=number)(given(case=strategy)(once))()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # nothing about this operation can be wrong

    def _call(self, case: Case) -> None:
        _hurry(case)
        seconds = _SECONDS_OF_AN_ENDLESS_ONE if self._name in ENDLESS else _SECONDS
        self._asked.examples[self._name] += 1
        try:
            reply = case.call(self._url, self._session, self._headers, timeout=seconds)
            self._asked.statuses[self._name, reply.status_code] += 1
            if not _is_unread(reply):
                case.validate_response(reply, checks=_checks(case))
        except FailureGroup as failures:
            self._asked.failures.setdefault((self._name, failures.exceptions[0].title), str(failures)[:4000])


def _checks(case: Case) -> list[CheckFunction]:
    """Of a form with a file Schemathesis makes wrong ones that are right: every value of a part is bytes."""
    return [check for check in CHECKS if case.media_type != _FORM or check is not checks.negative_data_rejection]


def _is_unread(reply: Response) -> bool:
    """Whether the HTTP parser refused it, as an address that is too long, before any of our code ran."""
    return reply.status_code == 400 and "x-request-id" not in reply.headers


def _hurry(case: Case) -> None:
    """Nobody waits a year here for a run to begin."""
    for body in case.body if isinstance(case.body, list) else [case.body]:
        if isinstance(body, dict) and isinstance(body.get("after_seconds"), int | float):
            body["after_seconds"] = min(body["after_seconds"], 0)
