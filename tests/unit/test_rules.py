import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.ids import ThreadId, UserId
from moorage.rules import (
    LONGEST_LIFETIME,
    Effect,
    InvalidRule,
    Match,
    NewRule,
    Remember,
    Rule,
    Verdict,
    command_tokens,
    judge,
    new_rule,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALICE = UserId("alice")
WRITE = {"file_path": "/workspace/src/a.py", "content": "x"}


def rule(match: Match, pattern: dict[str, Any], *, tool: str = "execute", rule_id: str = "r", **changes: Any) -> Rule:
    made = Rule(rule_id, ThreadId("t"), ALICE, Effect.ALLOW, tool, match, pattern, None, NOW, NOW + timedelta(hours=1))
    return replace(made, **changes)


def prefix(*tokens: str, **changes: Any) -> Rule:
    return rule(Match.PREFIX, {"tokens": list(tokens)}, **changes)


def says(found: Rule, command: str) -> bool:
    return judge([found], "execute", {"command": command}, None, now=NOW) is not None


async def remembered(tool: str, args: dict[str, Any], match: Match, *, resolve: Any = None, **options: Any) -> NewRule:
    return await new_rule(Effect.ALLOW, tool, args, Remember(match, **options), resolve=resolve)


# What rules say ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["git status", "git  status", "git status -s", "'git' \"status\"", "git status 'a b'"]
)
def test_a_prefix_matches_commands_that_begin_with_its_words(command: str) -> None:
    assert says(prefix("git", "status"), command)


@pytest.mark.parametrize(
    "command",
    [
        "git",
        "git stat",
        "git statuses",
        "gitstatus",
        "sudo git status",
        "'git status'",
        "git 'status -s'",
        "git status; rm -rf /",
        "git status & rm x",
        "git status && rm x",
        "git status | sh",
        "git status > /etc/passwd",
        "git status < x",
        "git status $(rm x)",
        "git status `rm x`",
        "git status (x)",
        "git status $HOME",
        "git status\nrm x",
        "git status '\n'",
        "git\rstatus",
        "git status \x0b rm",
        "git status\u2028rm",
        "git status\u00a0x",
        "git status 'unclosed",
        "git status \\",
        "",
    ],
)
def test_a_prefix_matches_nothing_else(command: str) -> None:
    assert not says(prefix("git", "status"), command)


@given(st.text(), st.sampled_from(";&|<>$()`\n"), st.text())
def test_a_command_with_shell_syntax_is_never_just_words(before: str, char: str, after: str) -> None:
    assert command_tokens(before + char + after) is None
    assert command_tokens(f"ls '{before + char + after}'") is None


def test_an_empty_prefix_matches_nothing() -> None:
    assert not says(prefix(), "ls")


def test_the_same_command_is_the_same_to_the_letter_whatever_its_time_limit() -> None:
    found = rule(Match.SAME, {"command": "make; echo $?"})
    assert says(found, "make; echo $?")
    assert judge([found], "execute", {"command": "make; echo $?", "timeout": 5}, None, now=NOW)
    assert not says(found, "make;  echo $?")


def test_other_tools_are_the_same_with_the_same_arguments() -> None:
    found = rule(Match.SAME, {"args": WRITE}, tool="write_file")
    assert judge([found], "write_file", {**WRITE, "extra": None}, None, now=NOW)
    assert not judge([found], "write_file", {**WRITE, "content": "y"}, None, now=NOW)
    assert not judge([found], "edit_file", WRITE, None, now=NOW)


@pytest.mark.parametrize(
    ("folder", "path", "matches"),
    [
        ("/workspace/src", "/workspace/src/a.py", True),
        ("/workspace/src", "/workspace/src", True),
        ("/workspace/src", "/workspace/src2/a.py", False),
        ("/workspace/src", "/workspace/a.py", False),
        ("/", "/etc/passwd", True),
        ("/workspace/src", None, False),
    ],
)
def test_a_path_matches_where_the_file_really_is(folder: str, path: str | None, matches: bool) -> None:
    found = rule(Match.PATH, {"path": folder}, tool="write_file")
    assert (judge([found], "write_file", WRITE, path, now=NOW) is not None) is matches


@pytest.mark.parametrize("written", ["shared/a", "./shared/a", "\\shared\\a", "/workspace/link\\a", ""])
def test_a_path_that_file_tools_and_sandbox_take_differently_matches_nothing(written: str) -> None:
    found = rule(Match.PATH, {"path": "/workspace"}, tool="write_file")
    assert judge([found], "write_file", {**WRITE, "file_path": written}, "/workspace/shared/a", now=NOW) is None


def test_where_a_path_might_be_denied_and_nobody_can_tell_nothing_is_allowed() -> None:
    allow = rule(Match.SAME, {"args": WRITE}, tool="write_file")
    deny = rule(Match.PATH, {"path": "/shared"}, tool="write_file", effect=Effect.DENY)
    assert judge([allow, deny], "write_file", WRITE, None, now=NOW) is None
    assert judge([allow, deny], "write_file", WRITE, "/workspace/src/a.py", now=NOW)


def test_what_must_not_be_deleted_does_not_go_with_its_folder() -> None:
    allow = rule(Match.PATH, {"path": "/workspace"}, tool="delete")
    deny = rule(Match.PATH, {"path": "/workspace/src/keep"}, tool="delete", effect=Effect.DENY, rule_id="no")
    found = judge([allow, deny], "delete", {"file_path": "/workspace/src"}, "/workspace/src", now=NOW)
    assert found == Verdict(Effect.DENY, "no", ALICE)


def test_a_path_rule_for_writing_does_not_allow_deleting() -> None:
    found = rule(Match.PATH, {"path": "/workspace"}, tool="write_file")
    assert judge([found], "delete", {"file_path": "/workspace/a"}, "/workspace/a", now=NOW) is None


def test_denying_wins_whatever_the_order() -> None:
    allow, deny = prefix("git"), prefix("git", "push", effect=Effect.DENY, rule_id="no")
    for rules in ([allow, deny], [deny, allow]):
        assert judge(rules, "execute", {"command": "git push -f"}, None, now=NOW) == Verdict(Effect.DENY, "no", ALICE)
        assert judge(rules, "execute", {"command": "git log"}, None, now=NOW) == Verdict(Effect.ALLOW, "r", ALICE)


@pytest.mark.parametrize("changes", [{"expires_at": NOW}, {"revoked_at": NOW - timedelta(seconds=1)}])
def test_what_is_over_decides_nothing(changes: dict[str, Any]) -> None:
    assert judge([prefix("ls", **changes)], "execute", {"command": "ls"}, None, now=NOW) is None


@pytest.mark.parametrize("command", [None, 5, ["ls"]])
def test_arguments_of_a_wrong_type_match_nothing(command: object) -> None:
    assert judge([prefix("ls")], "execute", {"command": command}, None, now=NOW) is None


# How rules are made --------------------------------------------------------------------------------------------------


async def test_a_prefix_of_the_command_becomes_a_rule() -> None:
    made = await remembered("execute", {"command": "git log -p"}, Match.PREFIX, prefix="git  'log'")
    assert (made.pattern, made.lifetime) == ({"tokens": ["git", "log"]}, timedelta(hours=8))


async def test_a_path_is_stored_as_where_it_leads() -> None:
    async def resolve(path: str) -> str:
        return path.replace("/workspace/link", "/shared/real")

    args = {"file_path": "/workspace/link/a.txt", "content": ""}
    made = await remembered("write_file", args, Match.PATH, path="/workspace/link", resolve=resolve)
    assert made.pattern == {"path": "/shared/real"}
    with pytest.raises(InvalidRule):
        await remembered("write_file", args, Match.PATH, path="/workspace", resolve=resolve)


async def test_without_a_resolver_a_path_is_normalised() -> None:
    made = await remembered("write_file", WRITE, Match.PATH, path="//workspace/./x/../src/")
    assert made.pattern == {"path": "/workspace/src"}


@pytest.mark.parametrize(
    ("tool", "args", "match", "options"),
    [
        ("execute", {"command": "git log"}, Match.PREFIX, {"prefix": "rm"}),
        ("execute", {"command": "git log"}, Match.PREFIX, {"prefix": "git log -p"}),
        ("execute", {"command": "git log"}, Match.PREFIX, {"prefix": "gi"}),
        ("execute", {"command": "git log"}, Match.PREFIX, {"prefix": "  "}),
        ("execute", {"command": "git log"}, Match.PREFIX, {"prefix": "git;"}),
        ("execute", {"command": "A=b C= git log"}, Match.PREFIX, {"prefix": "A=b C="}),
        ("execute", {"command": "git log"}, Match.PREFIX, {}),
        ("execute", {"command": "git log"}, Match.PREFIX, {"prefix": "git", "path": "/"}),
        ("execute", {"command": "git log; rm x"}, Match.PREFIX, {"prefix": "git"}),
        ("write_file", WRITE, Match.PREFIX, {"prefix": "git"}),
        ("execute", {"command": "git log"}, Match.PATH, {"path": "/workspace"}),
        ("write_file", WRITE, Match.PATH, {"path": "/workspace/sr"}),
        ("write_file", WRITE, Match.PATH, {"path": "/workspace/src/b.py"}),
        ("write_file", WRITE, Match.PATH, {"path": "/workspace/src/../other"}),
        ("write_file", WRITE, Match.PATH, {"path": "workspace"}),
        ("write_file", WRITE, Match.PATH, {"path": "/workspace\\src"}),
        ("write_file", {"file_path": "workspace/src/a.py"}, Match.PATH, {"path": "/workspace"}),
        ("write_file", WRITE, Match.PATH, {"path": "/workspace\x00"}),
        ("write_file", WRITE, Match.PATH, {}),
        ("write_file", {"content": ""}, Match.PATH, {"path": "/"}),
        ("execute", {"command": "ls"}, Match.SAME, {"prefix": "ls"}),
        ("execute", {"command": "ls"}, Match.SAME, {"lifetime": timedelta(0)}),
        ("execute", {"command": "ls"}, Match.SAME, {"lifetime": LONGEST_LIFETIME + timedelta(seconds=1)}),
    ],
)
async def test_a_rule_that_does_not_fit_the_call_is_refused(
    tool: str, args: dict[str, Any], match: Match, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRule):
        await remembered(tool, args, match, **options)


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1), st.integers(1, 3))
async def test_whatever_was_remembered_matches_the_call_that_asked(words: list[str], length: int) -> None:
    command = shlex.join(words)
    tokens = command_tokens(command)
    if tokens is None or "=" in tokens[0]:
        return
    made = await remembered("execute", {"command": command}, Match.PREFIX, prefix=shlex.join(tokens[:length]))
    assert says(prefix(*made.pattern["tokens"]), command)
