"""What the processes of one host that share the workspaces keep one another from doing at once."""

import fcntl
import os
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from moorage.adapters.folders.locks import locked


class Locks:
    """Locks in files of the folder `root`, which the kernel forgets with their holder, kill -9 or not."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def alone(self, name: str) -> AbstractContextManager[None]:
        """Wait until nobody else holds `name`, and hold it."""
        return locked(_made(self._root) / ".containers", name)

    def stay(self, name: str) -> "Presence":
        """Say that `name` is alive, until it is closed or the process dies."""
        return Presence(_made(_made(self._root) / ".alive") / name)

    def names(self) -> list[str]:
        """Those that said so and have not ended in order; some may be dead."""
        try:
            return os.listdir(self._root / ".alive")
        except FileNotFoundError:
            return []

    @contextmanager
    def buried(self, name: str) -> Generator[list[str] | None]:
        """What `name` had noted, if it is dead, which nobody else finds out meanwhile. After that it is forgotten."""
        path = _made(_made(self._root) / ".alive") / name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            noted = path.read_text().splitlines(keepends=True) if path.exists() else []
            yield [line.removesuffix("\n") for line in noted if line.endswith("\n")]  # the disk may have been full
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


class Presence:
    """One living holder of a name."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._path = path
        while True:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            if os.fstat(self._descriptor).st_nlink:
                break
            os.close(self._descriptor)  # taken for dead before it was locked

    def note(self, line: str) -> None:
        """For whoever finds this one dead."""
        os.write(self._descriptor, f"{line}\n".encode())

    def close(self, *, forgotten: bool) -> None:
        """`forgotten`: there is nothing to find."""
        if forgotten:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def _made(folder: Path) -> Path:
    if not folder.is_dir():
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        folder.chmod(0o711)  # whatever the umask
    return folder
