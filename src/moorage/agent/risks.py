"""Risky shapes: what a human should look at twice before a call runs, told from its name and arguments alone.

They help a reader; they are no wall, and nothing is refused for them. A call that has one is never answered by a
remembered rule that allows.
"""

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from moorage.agent.command_risks import command_risks
from moorage.rules import FILE_TOOLS

FOLDERS = ("/workspace", "/shared")


def risks_of(tool: str, args: Mapping[str, Any], *, folders: Sequence[str] = FOLDERS) -> list[str]:
    """The codes of what is risky in a call, sorted; `folders` are those that its files belong in."""
    command, path = args.get("command"), args.get("file_path")
    if tool == "execute" and isinstance(command, str):
        return sorted(command_risks(command))
    if tool in FILE_TOOLS and isinstance(path, str):
        return sorted(_file_risks(path, folders))
    return []


def _file_risks(path: str, folders: Sequence[str]) -> set[str]:
    """By the path as it is written, links not followed: the tools begin at `/`, and a backslash is a slash to them."""
    found: set[str] = set()
    where = posixpath.normpath("/" + path.replace("\\", "/").lstrip("/"))
    if not any(where.startswith(folder.rstrip("/") + "/") for folder in folders):
        found.add("outside_workspace")
    if any(part.startswith(".") for part in where.split("/")):
        found.add("hidden_file")
    return found
