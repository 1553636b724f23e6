"""Why something cannot be done with a thread."""

from moorage.errors import AppError, Conflict, Gone, InvalidPayload, LimitExceeded, NotFound, PermissionDenied
from moorage.threads.thread import METADATA_LIMIT


class ThreadAccessDenied(PermissionDenied):
    code = "thread_access_denied"

    def __init__(self, thread_id: str) -> None:
        super().__init__(f"Access denied to thread {thread_id}")


class ThreadNotFound(NotFound):
    code = "thread_not_found"

    def __init__(self) -> None:
        super().__init__("No such session")


class ThreadExists(Conflict):
    code = "thread_exists"

    def __init__(self) -> None:
        super().__init__("There is a thread with this id")


class MetadataTooLarge(InvalidPayload):
    code = "metadata_too_large"

    def __init__(self) -> None:
        super().__init__(f"A thread's metadata may take up to {METADATA_LIMIT} bytes of JSON")


class ThreadBusy(Conflict):
    """Something runs or waits to run in the thread: there is no state that stands still."""

    code = "thread_busy"

    def __init__(self) -> None:
        super().__init__("This session is busy")


class UnknownCheckpoint(NotFound):
    code = "unknown_checkpoint"

    def __init__(self) -> None:
        super().__init__("This thread has no such checkpoint")


class SessionQuotaExceeded(LimitExceeded):
    code = "session_quota"


class SessionClosed(Conflict):
    code = "session_closed"


class SessionExpired(Gone):
    code = "session_expired"


class ReaderLagged(AppError):
    """A reader of a thread's events took too long: it may come back for what follows `last_seq`."""

    code = "lagged"

    def __init__(self, last_seq: int) -> None:
        super().__init__("This reader has fallen behind")
        self.last_seq = last_seq


class EventsForgotten(Gone):
    """Events that a reader asked for are not kept any more, or never were. The thread's state holds what they led to.

    `last_seq` is the thread's: who loads the state goes on from its own `last_seq`.
    """

    code = "gap"

    def __init__(self, last_seq: int) -> None:
        super().__init__("These events are not kept any more: load the session's state")
        self.last_seq = last_seq
