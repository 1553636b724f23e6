"""What goes wrong in a page: errors in its console, what it throws, what its policy stops, requests that fail."""

from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from playwright.async_api import ConsoleMessage, Error, Page, Request, Response

# Whoever reads a stream may have read enough, and a page that is left drops what it asked for.
_GIVEN_UP = "net::ERR_ABORTED"
# Chromium tells each failed request twice, and this one without saying which it was.
_TOLD_BY_ITS_REQUEST = "Failed to load resource:"


class Watch:
    """Everything that went wrong in some pages, as lines such as `409 POST /api/approvals/<id>/decision`."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self._expected: list[str] = []
        self._allowed: list[str] = []

    def follow(self, page: Page) -> None:
        page.on("console", self._heard)
        page.on("pageerror", self._thrown)
        page.on("response", self._answered)
        page.on("requestfailed", self._failed)

    def expect(self, *patterns: str) -> None:
        """A line of each shape comes, or the test has not tested what it says."""
        self._expected += patterns

    def allow(self, *patterns: str) -> None:
        """Lines of these shapes may come."""
        self._allowed += patterns

    def unexpected(self) -> list[str]:
        known = [*self._expected, *self._allowed]
        return [line for line in self.wrong if not any(fnmatchcase(line, pattern) for pattern in known)]

    def missing(self) -> list[str]:
        return [pattern for pattern in self._expected if not any(fnmatchcase(line, pattern) for line in self.wrong)]

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(_TOLD_BY_ITS_REQUEST):
            self.wrong.append(f"console: {message.text}")

    def _thrown(self, error: Error) -> None:
        self.wrong.append(f"thrown: {error.message}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.wrong.append(f"{response.status} {_shown(response.request)}")

    def _failed(self, request: Request) -> None:
        if request.failure != _GIVEN_UP:
            self.wrong.append(f"{request.failure} {_shown(request)}")


def _shown(request: Request) -> str:
    return f"{request.method} {urlsplit(request.url).path}"
