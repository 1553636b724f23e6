"""What each route asks of an API key: one table for all of them. Who logged in may do everything that is theirs."""

import re
from collections.abc import Sequence

from fastapi import Request

from moorage.identity import Principal, Scope
from moorage.identity.principal import LoginRequired, TokenProof

_CHANGES = "POST|PUT|PATCH|DELETE"

# Method, path as it is declared, what it asks for (None: a log-in). The first row that fits counts. What reads with a
# POST is named; whatever is not named and changes something asks for `run`.
#
# Some routes can do more than their path tells, such as a LangGraph run whose `command` answers an approval: they ask
# for the rest themselves, with `principal.require`.
_RULES: Sequence[tuple[str, str, Scope | None]] = (
    ("GET", r"/api/auth/me", Scope.READ),
    ("POST", r"/api/auth/ws-ticket", Scope.READ),
    (".*", r"/api/(auth|admin)(/.*)?", None),
    (_CHANGES, r"/api/approvals/.*", Scope.APPROVE),
    (_CHANGES, r"/api/resume/.*", Scope.APPROVE),
    (_CHANGES, r"/api/sessions/{thread_id}/rules(/.*)?", Scope.APPROVE),
    ("GET|HEAD", r".*", Scope.READ),
    ("POST", r".*/(search|count|history|namespaces|versions)", Scope.READ),
    ("POST", r"/threads/{thread_id}/(state/checkpoint|stream/events)", Scope.READ),
    (_CHANGES, r".*", Scope.RUN),
)
_FALSE = frozenset({"0", "false", "f", "no", "n", "off"})
_COMPILED = [(re.compile(method), re.compile(path), scope) for method, path, scope in _RULES]


def scope_of(method: str, path: str) -> Scope | None:
    """What a key needs for the operation that is declared as `path`; None when no key may do it."""
    for methods, paths, scope in _COMPILED:
        if methods.fullmatch(method) and paths.fullmatch(path):
            return scope
    return None


def check_scope(principal: Principal, request: Request) -> None:
    """Raise ScopeMissing or LoginRequired when the caller came with a key that may not do this."""
    if isinstance(principal.proof, TokenProof):
        return
    scope = scope_of(request.method, request.scope["route"].path)
    if scope is None:
        raise LoginRequired
    principal.require(scope)
    if request.query_params.get("cancel_on_disconnect", "0").lower() not in _FALSE:
        principal.require(Scope.RUN)  # LangGraph's clients let a GET stop the run that it reads
