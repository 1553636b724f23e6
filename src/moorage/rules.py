"""Remembered answers: within one thread, calls like one that a human decided are allowed or denied without asking."""

import posixpath
import re
import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from moorage.errors import InvalidPayload, NotFound
from moorage.ids import ThreadId, UserId
from moorage.paging import Page

DEFAULT_LIFETIME = timedelta(hours=8)
LONGEST_LIFETIME = timedelta(days=30)
FILE_TOOLS = frozenset({"write_file", "edit_file", "delete"})
_COMMAND_TOOL = "execute"
_SHELL_WORDS = frozenset(";&|<>$()`\n")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=", re.ASCII)

type ResolvePath = Callable[[ThreadId, str], Awaitable[str | None]]
"""Where a path in the thread's sandbox really leads, links followed, there or not; None when nobody can say."""


class Effect(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


class Match(StrEnum):
    SAME = "same"
    PREFIX = "prefix"
    PATH = "path"


@dataclass(frozen=True, slots=True)
class Remember:
    """What a human asks to have remembered with a decision."""

    match: Match
    prefix: str | None = None
    path: str | None = None
    lifetime: timedelta = DEFAULT_LIFETIME


@dataclass(frozen=True, slots=True)
class NewRule:
    """A rule to be stored.

    `pattern` is `{"command": str}` or `{"args": {...}}` (same), `{"tokens": [str]}` (prefix), `{"path": str}` (path).
    """

    effect: Effect
    tool: str
    match: Match
    pattern: dict[str, Any]
    lifetime: timedelta


@dataclass(frozen=True, slots=True)
class Rule:
    """A stored rule. `interrupt_id` is the approval whose decision made it."""

    rule_id: str
    thread_id: ThreadId
    owner_id: UserId
    effect: Effect
    tool: str
    match: Match
    pattern: dict[str, Any]
    interrupt_id: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say of a call, which of them, and who made it."""

    effect: Effect
    rule_id: str
    owner: UserId


class InvalidRule(InvalidPayload):
    code = "invalid_rule"


class RuleNotFound(NotFound):
    code = "rule_not_found"

    def __init__(self) -> None:
        super().__init__("No such rule in this session")


class RuleBook(Protocol):
    """Where rules are kept. Every call sees those of `owner` only; in force is what is neither expired nor revoked."""

    async def active(self, owner: UserId, thread_id: ThreadId) -> list[Rule]:
        """The rules in force, oldest first."""
        ...

    async def search(self, owner: UserId, thread_id: ThreadId, *, limit: int, cursor: str | None) -> Page[Rule]:
        """The rules in force, latest first."""
        ...

    async def revoke(self, owner: UserId, thread_id: ThreadId, rule_id: str) -> None:
        """From now on the rule decides nothing; raises RuleNotFound."""
        ...


def judge(
    rules: Sequence[Rule], tool: str, args: dict[str, Any], resolved_path: str | None, *, now: datetime | None = None
) -> Verdict | None:
    """What `rules` say of a call; None: ask a human. A rule that denies wins over all that allow.

    `resolved_path` is where the call's file really is; without it no path rule matches, and where one could deny,
    nothing allows.
    """
    at = now or datetime.now(UTC)
    where = resolved_path if _is_plain(args.get("file_path")) else None
    in_force = [rule for rule in rules if rule.tool == tool and _in_force(rule, at)]
    matching = [rule for rule in in_force if _matches(rule, tool, args, where)]
    denying = [rule for rule in matching if rule.effect is Effect.DENY]
    might_deny = where is None and any(rule.match is Match.PATH and rule.effect is Effect.DENY for rule in in_force)
    deciding = denying or ([] if might_deny else matching)
    return Verdict(deciding[0].effect, deciding[0].rule_id, deciding[0].owner_id) if deciding else None


def _in_force(rule: Rule, now: datetime) -> bool:
    return rule.revoked_at is None and (rule.expires_at is None or rule.expires_at > now)


def _matches(rule: Rule, tool: str, args: dict[str, Any], resolved_path: str | None) -> bool:
    match rule.match:
        case Match.SAME:
            return rule.pattern == _same(tool, args)
        case Match.PREFIX:
            tokens, prefix = command_tokens(args.get("command")), rule.pattern["tokens"]
            return tool == _COMMAND_TOOL and tokens is not None and bool(prefix) and tokens[: len(prefix)] == prefix
        case Match.PATH:
            return tool in FILE_TOOLS and resolved_path is not None and _covers(rule, resolved_path)


def _same(tool: str, args: dict[str, Any]) -> dict[str, Any]:
    """What must be equal in a call that is the same: of a command the command, else all arguments that are given."""
    if tool == _COMMAND_TOOL:
        return {"command": args.get("command")}
    return {"args": {name: value for name, value in args.items() if value is not None}}


def command_tokens(command: object) -> list[str] | None:
    """The shell's words of a plain command; None for one that holds more than words, or anything unprintable."""
    if not isinstance(command, str) or not _SHELL_WORDS.isdisjoint(command):
        return None
    if not command.replace("\t", " ").isprintable():  # the shell and shlex differ on what separates words
        return None
    try:
        return shlex.split(command)
    except ValueError:
        return None


def _is_plain(path: object) -> bool:
    """Whether the file tools take this path as the sandbox does: they begin at `/`, and a backslash is a slash."""
    return isinstance(path, str) and path.startswith("/") and "\\" not in path


def _covers(rule: Rule, path: str) -> bool:
    folder = rule.pattern["path"]
    with_its_folder = rule.tool == "delete" and rule.effect is Effect.DENY and _is_within(folder, path)
    return _is_within(path, folder) or with_its_folder


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


async def new_rule(
    effect: Effect,
    tool: str,
    args: dict[str, Any],
    remember: Remember,
    *,
    resolve: Callable[[str], Awaitable[str | None]] | None,
) -> NewRule:
    """The rule that a decision on this call makes; raises InvalidRule when it does not fit the call.

    Without `resolve`, paths are taken as they are written.
    """
    if not timedelta(0) < remember.lifetime <= LONGEST_LIFETIME:
        raise InvalidRule(f"remember.expires_in_seconds must be 1 to {int(LONGEST_LIFETIME.total_seconds())}")
    if (remember.prefix is not None) != (remember.match is Match.PREFIX):
        raise InvalidRule("remember.prefix belongs to match prefix, and only there")
    if (remember.path is not None) != (remember.match is Match.PATH):
        raise InvalidRule("remember.path belongs to match path, and only there")
    match remember.match:
        case Match.SAME:
            pattern = _same(tool, args)
        case Match.PREFIX:
            pattern = {"tokens": _prefix_of(tool, args, remember.prefix or "")}
        case Match.PATH:
            pattern = {"path": await _folder_of(tool, args, remember.path or "", resolve or _lexically)}
    return NewRule(effect, tool, remember.match, pattern, remember.lifetime)


def _prefix_of(tool: str, args: dict[str, Any], prefix: str) -> list[str]:
    tokens, asked = command_tokens(prefix), command_tokens(args.get("command"))
    if tool != _COMMAND_TOOL:
        raise InvalidRule("remember.match prefix is for commands")
    if asked is None:
        raise InvalidRule("This command is more than plain words: no prefix of it can be remembered")
    if not tokens or asked[: len(tokens)] != tokens:
        raise InvalidRule("remember.prefix must be the first words of the command that asks")
    if all(map(_ASSIGNMENT.match, tokens)):
        raise InvalidRule("remember.prefix must name the command: variables alone would allow any")
    return tokens


async def _folder_of(
    tool: str, args: dict[str, Any], path: str, resolve: Callable[[str], Awaitable[str | None]]
) -> str:
    asked = args.get("file_path")
    if tool not in FILE_TOOLS or not isinstance(asked, str):
        raise InvalidRule("remember.match path is for calls that change files")
    if not _is_plain(path) or not path.isprintable():
        raise InvalidRule("remember.path must be an absolute path")
    if not _is_plain(asked):
        raise InvalidRule("The call names its file in a way of its own: no path can be remembered with it")
    folder, file = await resolve(path), await resolve(asked)
    if folder is None or file is None:
        raise InvalidRule("The sandbox cannot say where these paths lead: decide without remember")
    if not _is_within(file, folder):
        raise InvalidRule("remember.path must be the file that asks, or a folder above it")
    return folder


async def _lexically(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))
