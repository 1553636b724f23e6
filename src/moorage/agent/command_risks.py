"""Risky shapes of shell commands."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from moorage.agent.shell_commands import INTERPRETERS, ShellCommand, commands_in, program_name

LONG_CHARACTERS = 4000
LONG_LINES = 100
_LOOKED_AT = 64 * 1024

_DOWNLOADERS = frozenset({"curl", "wget", "aria2c", "http", "https", "fetch"})
_PRIVILEGES = frozenset({"sudo", "su", "doas", "pkexec"})
_LEAVERS = frozenset({"nohup", "setsid", "disown", "daemonize", "screen", "tmux", "systemd-run", "crontab"})
_DEVICE_WRITERS = frozenset(
    {"dd", "tee", "cp", "mv", "install", "shred", "wipefs", "fdisk", "sfdisk", "parted", "blkdiscard", "mkswap"}
)
_DEVICE = re.compile(r"/dev/(?:sd|hd|vd|xvd|nvme|mmcblk|disk|dm-|mapper|loop|md|mem|kmem|port)")
_OPEN_MODE = re.compile(
    r"[0-7]{0,2}[0-7]{2}[2367]|[2-7][0-7]{3}"  # writable for all; another's rights
    r"|[ug]*+[oa][ugoa]*+[+=][rxXst]*+w[rwxXst]*+|[ugoa]*+[+=][rwxX]*+s[rwxXst]*+",
    re.ASCII,
)
_SECRETS = re.compile(
    r"(?<![\w.])\.env(?!\.(?:example|sample|template|dist)\b)(?![\w-])"
    r"|(?<![\w.])\.(?:ssh|aws|gnupg|netrc|pgpass|git-credentials|kube/config|docker/config\.json)(?![\w-])"
    r"|\bid_(?:rsa|dsa|ecdsa|ed25519)\b(?!\.pub)"
    r"|/etc/g?shadow\b|/proc/[^/\s]{1,20}/environ\b"
)
_DECODED_IN_CODE = re.compile(r"b64decode|b32decode|a85decode|fromhex|unhexlify|\batob\b|decode_base64|base64_decode")
_NUMBERED_CHARACTERS = re.compile(r"\\x[0-9a-fA-F]|\\0?[0-7]{3}|\\u[0-9a-fA-F]")
_TEXT_MAKERS = frozenset({"echo", "printf"})


def command_risks(command: str) -> set[str]:
    """The codes of what is risky in a command; of one over 64 KiB, which is `very_long`, only its beginning is read."""
    commands = commands_in(command[:_LOOKED_AT])
    found = {code for code, shape in _SHAPES.items() if any(map(shape, commands))}
    if _runs_what(commands, lambda one: not one.programs.isdisjoint(_DOWNLOADERS)) or _runs_fetched_file(commands):
        found.add("runs_download")
    if _runs_what(commands, _decodes) or any(map(_is_decoder_in_code, commands)):
        found.add("runs_hidden_code")
    if len(command) > LONG_CHARACTERS or command.count("\n") >= LONG_LINES:
        found.add("very_long")
    return found


def _has(words: Iterable[str], *, short: str = "", long: Sequence[str] = ()) -> bool:
    """Whether one of the words is an option: a cluster with one of these letters, or a long one, also cut short."""
    for word in words:
        if word.startswith("--"):
            name = word[2:].partition("=")[0]
            if len(name) > 1 and any(option.startswith(name) for option in long):
                return True
        elif word.startswith("-") and not set(short).isdisjoint(word):
            return True
    return False


def _deletes_recursively(command: ShellCommand) -> bool:
    programs = command.programs
    if "find" in programs and ("-delete" in command.words or "rm" in programs):
        return True
    return "rm" in programs and _has(command.words, short="rR", long=["recursive"])


def _raises_privileges(command: ShellCommand) -> bool:
    return not command.programs.isdisjoint(_PRIVILEGES)


def _changes_permissions(command: ShellCommand) -> bool:
    programs = command.programs
    if programs.isdisjoint({"chmod", "chown", "chgrp"}):
        return False
    if _has(command.words, short="R", long=["recursive"]):
        return True
    return "chmod" in programs and any(_OPEN_MODE.fullmatch(part) for word in command.words for part in word.split(","))


def _force_pushes(command: ShellCommand) -> bool:
    subcommand, words = _git(command)
    return subcommand == "push" and (
        _has(words, short="f", long=["force", "force-with-lease", "mirror"]) or any(word[:1] == "+" for word in words)
    )


def _discards_changes(command: ShellCommand) -> bool:
    subcommand, words = _git(command)
    match subcommand:
        case "reset":
            return _has(words, long=["hard"])
        case "clean":
            return _has(words, short="f", long=["force"])
        case "checkout" | "switch":
            forced = _has(words, short="f", long=["force", "discard-changes"])
            return forced or (subcommand == "checkout" and not {"--", "."}.isdisjoint(words))
        case "restore":
            return not _has(words, short="S", long=["staged"]) or _has(words, short="W", long=["worktree"])
        case "stash":
            return not {"drop", "clear"}.isdisjoint(words)
        case _:
            return False


def _git(command: ShellCommand) -> tuple[str, list[str]]:
    """The subcommand of git, and the words behind it."""
    words = command.arguments
    begin = next((at for at, word in enumerate(words) if program_name(word) == "git"), None)
    if begin is None or "git" not in command.programs:
        return "", []
    at = begin + 1
    while at < len(words) and words[at].startswith("-"):
        at += 2 if words[at] in ("-C", "-c", "--git-dir", "--work-tree", "--namespace") else 1
    return (words[at], words[at + 1 :]) if at < len(words) else ("", [])


def _overwrites_device(command: ShellCommand) -> bool:
    programs = command.programs
    if any(map(_DEVICE.match, command.written)) or any(name.startswith(("mkfs", "mke2fs")) for name in programs):
        return True
    if programs.isdisjoint(_DEVICE_WRITERS):
        return False
    words = [word for word in command.words if "dd" not in programs or word.startswith("of=")]
    return any(_DEVICE.match(word.removeprefix("of=")) for word in words)


def _reads_secrets(command: ShellCommand) -> bool:
    return any(_SECRETS.search(word) for words in (command.words, command.read, command.written) for word in words)


def _leaves_in_background(command: ShellCommand) -> bool:
    return command.in_background or not command.programs.isdisjoint(_LEAVERS)


def _decodes(command: ShellCommand) -> bool:
    """Whether it makes readable text, or bytes, of what nobody can read."""
    programs, words = command.programs, command.words
    if not programs.isdisjoint({"base64", "base32", "basenc", "uudecode", "openssl"}):
        return "uudecode" in programs or _has(words, short="dD", long=["decode"])
    if "xxd" in programs:
        return _has(words, short="r")
    return not programs.isdisjoint(_TEXT_MAKERS) and any(map(_NUMBERED_CHARACTERS.search, words))


def _is_decoder_in_code(command: ShellCommand) -> bool:
    words = [*command.words, *command.read]
    return command.program in INTERPRETERS and any(map(_DECODED_IN_CODE.search, words))


def _runs_what(commands: Sequence[ShellCommand], makes: Callable[[ShellCommand], bool]) -> bool:
    """Whether an interpreter is given what such a command makes: by a pipe, or in the place of its words."""
    made = defaultdict[int, bool](bool)
    for command in commands:
        if made[command.pipeline] and not command.programs.isdisjoint(INTERPRETERS):
            return True
        made[command.pipeline] |= makes(command)
    substituting = (command for command in commands if command.substitutes)
    return any(made.values()) and any(not command.programs.isdisjoint(INTERPRETERS) for command in substituting)


def _runs_fetched_file(commands: Sequence[ShellCommand]) -> bool:
    """Whether a file is run that has the name of one that was fetched before."""
    fetched: set[str] = set()
    for command in commands:
        first, *others = command.arguments or [""]
        runs = [first, *others] if command.program in INTERPRETERS else [first]
        if not fetched.isdisjoint(word.rpartition("/")[2] for word in runs):
            return True
        if not command.programs.isdisjoint(_DOWNLOADERS):
            names = (word.rstrip("/").rpartition("/")[2] for word in [*others, *command.written])
            fetched |= {name for name in names if name and not name.startswith("-")}
    return False


_SHAPES: Mapping[str, Callable[[ShellCommand], bool]] = {
    "changes_permissions": _changes_permissions,
    "deletes_recursively": _deletes_recursively,
    "discards_changes": _discards_changes,
    "force_pushes": _force_pushes,
    "leaves_in_background": _leaves_in_background,
    "overwrites_device": _overwrites_device,
    "raises_privileges": _raises_privileges,
    "reads_secrets": _reads_secrets,
}
