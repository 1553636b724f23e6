"""What a failed run tells its user: a code and a sentence, never a provider's raw text, which may echo keys."""

from typing import Any

import httpx
import openai
from langchain_core.exceptions import ContextOverflowError
from langgraph.errors import EmptyInputError, GraphRecursionError, InvalidUpdateError

from moorage.errors import AppError


def problem_of(error: BaseException) -> dict[str, Any] | None:
    """The problem object for a failure that we understand, or None for one that only the log should hold."""
    match error:
        case AppError():
            return _problem(error.code, error.detail, error.retry_after)
        case GraphRecursionError():
            return _problem("step_limit", "The run took more steps than it may")
        case InvalidUpdateError() | EmptyInputError():
            return _problem("invalid_update", "The graph does not take this input or update in the state that it is in")
        case ContextOverflowError():
            return _problem("context_overflow", "The conversation does not fit into the model's context any more")
        case openai.APIStatusError():
            return _provider_status(error.status_code, error.response.headers.get("retry-after"))
        case openai.APITimeoutError() | httpx.TimeoutException() | TimeoutError():
            return _problem("model_timeout", "The model did not answer in time (LLM_TIMEOUT_SECONDS)")
        case openai.APIError() | httpx.TransportError():
            return _problem("model_unreachable", "The connection to the model broke")
        case _:
            status = getattr(error, "status_code", None)
            return _provider_status(status, None) if isinstance(status, int) else None


def _provider_status(status: int, retry_after: str | None) -> dict[str, Any]:
    seconds = int(retry_after) if retry_after and retry_after.isdigit() else None
    match status:
        case 401 | 403:
            return _problem("model_unauthorized", "The model provider refused the server's key")
        case 404:
            return _problem("model_not_found", "The model provider does not know this model")
        case 429:
            return _problem("model_rate_limited", "The model provider is over its rate limit", seconds)
        case _ if status >= 500:
            return _problem("model_unavailable", f"The model provider failed (HTTP {status})", seconds)
        case _:
            return _problem("model_rejected", f"The model provider rejected the request (HTTP {status})")


def _problem(code: str, detail: str, retry_after: int | None = None) -> dict[str, Any]:
    return {"code": code, "detail": detail} | ({"retry_after": retry_after} if retry_after else {})
