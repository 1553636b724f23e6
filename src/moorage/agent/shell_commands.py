r"""A command line taken apart, as far as warnings need it: which programs would start, with which words.

It reads words as a shell does (quotes, backslashes, `$'\x..'`, comments, here-documents), and what a shell would run
within words by itself or by an interpreter (`$(...)`, backticks, `sh -c '...'`, `echo ... | sh`) as commands of their
own. It is no shell: variables, functions and globs stay as they are written. What cannot be taken apart is read with
quotes and backslashes left out, so that nothing hides behind a quote that is never closed. Time is linear: the patterns
are possessive, and each text is read at most `_DEEPEST` + 1 times.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

_DEEPEST = 4
_TOKEN = re.compile(
    r"""(?P<space>(?:[ \t\r\f\v]|\\\n)++)
    |(?P<ansi>\$'(?:[^'\\]|\\.)*+')
    |(?P<single>'[^']*+')
    |(?P<double>\$?"(?:[^"\\]|\\.)*+")
    |(?P<operator>\n|&&|\|\||\|&|&>>|&>|<<<|<<-|<<|>>|>&|<&|>\||[;&|()<>`])
    |(?P<escape>\\.)
    |(?P<plain>[^\s'"\\;&|()<>`$\#]++|[$\#])
    |(?P<other>\s)
    """,
    re.VERBOSE | re.DOTALL,
)
_ANSI_ESCAPE = re.compile(r"\\(?:[xuU]([0-9a-fA-F]{1,8})|([0-7]{1,3})|(.))", re.DOTALL)
_DOUBLE_ESCAPE = re.compile(r'\\([$`"\\\n])')
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*+\+?=", re.ASCII)
_LEFT_OUT = str.maketrans("", "", "'\"\\#<")
_REDIRECTIONS = frozenset({">", ">>", ">&", "&>", "&>>", ">|", "<", "<&", "<<<", "<<", "<<-"})
_GRAMMAR = frozenset(["{", "}", "!", "if", "then", "elif", "else", "fi", "do", "done", "while", "until", "coproc"])
# fmt: off
INTERPRETERS = frozenset({
    "sh", "bash", "dash", "zsh", "ksh", "ash", "fish", "busybox", "python", "perl", "ruby", "node", "php", "lua",
    "pwsh", "eval", "source", ".",
})
_WRAPPERS = frozenset({
    "sudo", "doas", "su", "pkexec", "env", "nohup", "setsid", "time", "nice", "ionice", "timeout", "xargs", "exec",
    "command", "builtin", "stdbuf", "chroot", "unshare", "strace", "flock", "ssh", "parallel", "watch", "find", "fd",
    "trap", "disown", "systemd-run", "script", "function",
})
# fmt: on
_STARTERS = INTERPRETERS | _WRAPPERS


@dataclass
class ShellCommand:
    """One start of a program, not to be changed once it was read. Those of one `pipeline` read what earlier ones write.

    `written` and `read` are the words behind `>` and `<`; `substitutes` says that other commands make part of it.
    """

    pipeline: int
    words: list[str] = field(default_factory=list[str])
    written: list[str] = field(default_factory=list[str])
    read: list[str] = field(default_factory=list[str])
    in_background: bool = False
    substitutes: bool = False

    @cached_property
    def arguments(self) -> list[str]:
        """The words from the program on: variables and grammar come before it."""
        for at, word in enumerate(self.words):
            if word not in _GRAMMAR and not _ASSIGNMENT.match(word):
                return self.words[at:]
        return []

    @cached_property
    def program(self) -> str:
        return program_name(self.arguments[0]) if self.arguments else ""

    @cached_property
    def programs(self) -> set[str]:
        """The names of all that it may start: its own, and each word behind a program that starts others."""
        if self.program not in _STARTERS:
            return {self.program}
        return {program_name(word) for word in self.arguments}


class _UnclearError(Exception):
    """A quote without its end, or one within `$(...)` within quotes."""


def program_name(word: str) -> str:
    """`python` for `/usr/bin/python3.13`."""
    name = word.rpartition("/")[2]
    plain = name.rstrip("0123456789.")
    return plain if plain in INTERPRETERS else name


def commands_in(text: str) -> list[ShellCommand]:
    """All commands that a shell might start for this text; those within words come after the ones around them."""
    found: list[ShellCommand] = []
    todo = [(text, 0)]
    while todo:
        part, depth = todo.pop()
        reader = _read(part, first_pipeline=len(found))
        found += reader.commands
        if depth < _DEEPEST:
            todo += [(code, depth + 1) for code in [*reader.inner, *_code_in(reader.commands)]]
    return found


def _code_in(commands: Sequence[ShellCommand]) -> Iterator[str]:
    """Words that are a command line for a program that is started with them, or that reads them from a pipe."""
    piped = defaultdict[int, list[str]](list)
    for command in commands:
        if command.program in _STARTERS:
            yield from filter(_is_code, [*command.words, *command.read])
        if command.program in INTERPRETERS:
            yield from filter(_is_code, piped.pop(command.pipeline, []))
        piped[command.pipeline] += command.words


def _is_code(word: str) -> bool:
    return len(word.split(maxsplit=1)) > 1


def _read(text: str, *, first_pipeline: int) -> "_Reader":
    try:
        return _Reader(text, first_pipeline)
    except _UnclearError:
        return _Reader(text.translate(_LEFT_OUT), first_pipeline)


class _Reader:
    """Reads one text. `inner` is what its quotes and here-documents hold that is run."""

    def __init__(self, text: str, first_pipeline: int) -> None:
        self.commands: list[ShellCommand] = []
        self.inner: list[str] = []
        self._pipelines = first_pipeline
        self._now = ShellCommand(first_pipeline)
        self._word: list[str] | None = None
        self._target = ""
        self._around: list[tuple[str, ShellCommand | None, list[str], str]] = []
        self._documents: list[tuple[str, bool]] = []
        self._endless = False
        self._line_began = 0
        at = 0
        while at < len(text):
            at = self._take(text, at)
        while self._around:
            self._close()
        self._end_command(piped=False)

    def _take(self, text: str, at: int) -> int:
        """Take what is at this place; answers where it goes on."""
        match = _TOKEN.match(text, at)
        if match is None:
            raise _UnclearError
        kind, piece = match.lastgroup, match.group()
        if piece == "#" and self._word is None:
            return _line_end(text, at)
        if kind in ("space", "other"):
            self._end_word()
        elif kind == "operator":
            self._operator(piece)
            if piece == "\n" and self._documents:
                return self._read_documents(text, match.end())
        else:
            self._word = self._word or []
            self._word.append(self._unquoted(kind, piece))
        return match.end()

    def _unquoted(self, kind: str | None, piece: str) -> str:
        match kind:
            case "single":
                return piece[1:-1]
            case "ansi":
                return _ANSI_ESCAPE.sub(_character, piece[2:-1])
            case "escape":
                return piece[1:]
            case "double":
                content = piece[piece.index('"') + 1 : -1]
                self._look_into(content)
                return _DOUBLE_ESCAPE.sub(r"\1", content)
            case _:
                return piece

    def _look_into(self, content: str) -> None:
        """What stands in double quotes and is run."""
        if "$(" in content or "`" in content:
            if content.count("(") != content.count(")") or content.count("`") % 2:
                raise _UnclearError
            self._now.substitutes = True
            self.inner.append(content)

    def _operator(self, piece: str) -> None:
        if piece in ("(", "`"):
            if piece == "`" and self._around and self._around[-1][0] == "`":
                self._close()
            else:
                self._open(piece)
        elif piece == ")":
            self._close()
        elif piece in _REDIRECTIONS:
            self._end_word()
            self._target = piece
        else:
            self._end_word()
            self._now.in_background = piece == "&"
            self._end_command(piped=piece in ("|", "|&"))

    def _open(self, piece: str) -> None:
        """Commands begin within a command: `$(`, `<(` and a backtick make a part of its words, `(` alone does not."""
        word = self._word or []
        part_of_word = piece == "`" or (word[-1:] == ["$"]) or (not word and self._target in ("<", ">"))
        if part_of_word:
            self._now.substitutes = True
            self._around.append((piece, self._now, word, self._target))
            self._word, self._target = None, ""
            self._begin_pipeline()
        else:
            self._end_word()
            self._end_command(piped=False)
            self._around.append((piece, None, [], ""))

    def _close(self) -> None:
        self._end_word()
        self._end_command(piped=False)
        if self._around:
            _, command, word, target = self._around.pop()
            if command is not None:
                self._now, self._word, self._target = command, [*word, "()"], target

    def _end_word(self) -> None:
        if self._word is None:
            return
        word = "".join(self._word)
        if self._target in ("<<", "<<-"):
            self._documents.append((word, self._target == "<<-"))
        elif self._target:
            (self._now.written if ">" in self._target else self._now.read).append(word)
        else:
            self._now.words.append(word)
        self._word, self._target = None, ""

    def _end_command(self, *, piped: bool) -> None:
        self._end_word()
        ended = self._now
        if ended.words or ended.written or ended.read:
            self.commands.append(ended)
        self._target = ""
        if piped:
            self._now = ShellCommand(ended.pipeline)
        else:
            self._begin_pipeline()

    def _begin_pipeline(self) -> None:
        self._pipelines += 1
        self._now = ShellCommand(self._pipelines)

    def _read_documents(self, text: str, at: int) -> int:
        """Skip the here-documents of the line that ended; one that never ends is read as commands."""
        of_line = self.commands[self._line_began :]
        is_code = any(command.program in _STARTERS for command in of_line)
        for end_word, indented in self._documents:
            end = None if self._endless else _last_line(text, at, end_word, indented=indented)
            if end is None:
                self._endless = True
                break
            body = text[at : end[0]]
            if is_code or "$(" in body or "`" in body:
                self.inner.append(body)
            at = end[1]
        self._documents = []
        self._line_began = len(self.commands)
        return at


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return end if end >= 0 else len(text)


def _last_line(text: str, at: int, word: str, *, indented: bool) -> tuple[int, int] | None:
    """Where the line that ends a here-document begins and ends."""
    while at < len(text):
        end = _line_end(text, at)
        line = text[at:end]
        if (line.lstrip("\t") if indented else line) == word:
            return at, end
        at = end + 1
    return None


def _character(match: re.Match[str]) -> str:
    code, octal, other = match.groups()
    number = int(code, 16) if code else int(octal, 8) if octal else None
    if number is None:
        return other
    return chr(number) if number <= 0x10FFFF else ""
