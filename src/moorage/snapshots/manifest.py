"""What a snapshot holds: the tree of a workspace, and under which digest each file's contents are kept.

As bytes: lines of JSON, `["moorage-snapshot", 1]`, then each entry as the helper tells it, a file's digest last.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from moorage.sandboxes.trees import TreeEntry, entry_of, line_of, read_line

_HEAD = ["moorage-snapshot", 1]

type Digest = str
"""The SHA-256 of a file's contents, in lower-case hex."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """`digests` has every file of `entries` by its path."""

    entries: list[TreeEntry] = field(default_factory=list[TreeEntry])
    digests: dict[bytes, Digest] = field(default_factory=dict[bytes, Digest])

    @property
    def files(self) -> int:
        return len(self.digests)

    @property
    def size(self) -> int:
        """All files by their length."""
        return sum(entry.size for entry in self.entries)

    def same_as(self, other: "Manifest") -> bool:
        """Whether both make the same workspace, whichever inodes it had."""
        if len(self.entries) != len(other.entries) or self.digests != other.digests:
            return False
        return all(ours == theirs for ours, theirs in zip(_plain(self.entries), _plain(other.entries), strict=True))

    def encode(self) -> bytes:
        lines = (
            [*line_of(entry), self.digests[entry.path]] if entry.type == "file" else line_of(entry)
            for entry in self.entries
        )
        return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in (_HEAD, *lines))

    @classmethod
    def decode(cls, data: bytes) -> "Manifest":
        """The other way. Raises ValueError or TreeRefused for what `encode` did not make."""
        head, *lines = map(read_line, data.splitlines())
        if head != _HEAD:
            raise ValueError("no snapshot of this version")
        manifest = cls()
        for line in lines:
            entry = entry_of(line[:-1] if line[0] == "f" else line)
            manifest.entries.append(entry)
            if entry.type == "file":
                manifest.digests[entry.path] = str(line[-1])
        return manifest


def digests_in(data: bytes) -> set[Digest]:
    """The digests of an encoded manifest, without reading all of it."""
    return {line[-66:-2].decode() for line in data.splitlines() if line.startswith(b'["f"')}


def _plain(entries: Iterable[TreeEntry]) -> Iterator[tuple[object, ...]]:
    return ((item.path, item.type, item.mode, item.size, item.mtime_ns, item.target) for item in entries)
