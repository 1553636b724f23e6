"""Threads: one conversation each, with its checkpoints, events and workspace. The core API calls them sessions."""

from moorage.threads.errors import (
    EventsForgotten,
    MetadataTooLarge,
    ReaderLagged,
    SessionClosed,
    SessionExpired,
    SessionQuotaExceeded,
    ThreadAccessDenied,
    ThreadExists,
    ThreadNotFound,
)
from moorage.threads.service import SNAPSHOT_MESSAGES, Threads
from moorage.threads.store import ThreadStore
from moorage.threads.thread import (
    METADATA_LIMIT,
    TITLE_LIMIT,
    ExpiryStrategy,
    FoundMessage,
    HistoryMessage,
    IfExists,
    NewThread,
    SessionStatus,
    Snapshot,
    Thread,
    ThreadRunStatus,
    Ttl,
)

__all__ = [
    "METADATA_LIMIT",
    "SNAPSHOT_MESSAGES",
    "TITLE_LIMIT",
    "EventsForgotten",
    "ExpiryStrategy",
    "FoundMessage",
    "HistoryMessage",
    "IfExists",
    "MetadataTooLarge",
    "NewThread",
    "ReaderLagged",
    "SessionClosed",
    "SessionExpired",
    "SessionQuotaExceeded",
    "SessionStatus",
    "Snapshot",
    "Thread",
    "ThreadAccessDenied",
    "ThreadExists",
    "ThreadNotFound",
    "ThreadRunStatus",
    "ThreadStore",
    "Threads",
    "Ttl",
]
