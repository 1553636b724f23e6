"""The tree of errors that callers can act on.

    AppError
    ├── InvalidInput       what was given cannot be used
    │   └── InvalidPayload the content of a request is wrong
    ├── Unauthenticated    nobody we know is calling
    ├── PermissionDenied   somebody we know, but not allowed
    ├── NotFound
    ├── Conflict           right request, wrong state
    ├── LimitExceeded      a quota or a rate; carries `retry_after`
    ├── Gone               was here, will not come back
    └── Unavailable        ours to repair; carries `retry_after`

Leaves live beside their domain. The HTTP statuses live in `moorage_api.errors` only.
"""

from collections.abc import Mapping, Sequence
from typing import Any


class AppError(Exception):
    """Something the caller should be told.

    `detail` is one sentence for a human, safe to show: no secrets, no input echoed. `code` is a stable slug for
    programs. `retry_after` is in seconds, when waiting helps.
    """

    code = "error"

    def __init__(self, detail: str, *, code: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.retry_after = retry_after


class InvalidInput(AppError):
    code = "invalid_input"


class InvalidPayload(InvalidInput):
    """A body, a query or a header whose content is wrong. `errors` names the fields: `[{loc, msg, type}]`."""

    code = "invalid_payload"

    def __init__(self, detail: str, *, code: str | None = None, errors: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(detail, code=code)
        self.errors = list(errors)


class Unauthenticated(AppError):
    code = "unauthenticated"


class PermissionDenied(AppError):
    code = "permission_denied"


class NotFound(AppError):
    code = "not_found"


class Conflict(AppError):
    code = "conflict"


class LimitExceeded(AppError):
    code = "limit_exceeded"


class Gone(AppError):
    code = "gone"


class Unavailable(AppError):
    code = "unavailable"


class NotBuilt(AppError):
    """Something that this kind of server may have, and this one does not."""

    code = "not_built"
