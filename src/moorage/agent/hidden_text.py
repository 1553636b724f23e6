"""What a human cannot see in the arguments of a call: characters that hide, reorder or imitate others."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

MAX_NAMES = 20
_DEEPEST = 20

_SUSPECT = re.compile(r"[^\t\n\x20-\x7e]")
_WORD = re.compile(r"\w+")

# Letters and marks that show nothing, beside what Unicode itself calls format and control characters.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2028\u2029\u2800\u3164\uffa0")
# Format characters with a shape of their own.
_VISIBLE_FORMAT = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2")
_ZERO_WIDTH_JOINERS = "\u200c\u200d"
_SELECTORS = re.compile("[\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_BETWEEN_EMOJI = re.compile("[\ufe0f\U0001f3fb-\U0001f3ff]")

# Cyrillic and Greek letters that look like Latin ones.
_LOOK_ALIKES = frozenset("аеорсухіјѕһԁԛԝьАВЕЅІЈКМНОРСТУХԌԚԜαγιορνυΑΒΕΖΗΙΚΜΝΟΡΤΥΧϲϳ")


def hidden_characters(args: dict[str, Any]) -> list[dict[str, Any]]:
    """Per field with something to warn of: `{"field": "command", "characters": ["U+202E ..."], "count": 3}`.

    Looks for controls (but tab and line ends), bidirectional and zero-width characters, tags, selectors that select
    nothing, and Cyrillic or Greek letters in Latin words that look like Latin ones. Joined emoji, Persian and Indic
    joiners are as they should be. At most 20 different characters are named per field; all are counted.
    """
    warnings: list[dict[str, Any]] = []
    for field, text in _texts(args, ""):
        found = list(_hidden_in(text))
        if found:
            names = list(dict.fromkeys(map(_name, found)))
            warnings.append({"field": field, "characters": names[:MAX_NAMES], "count": len(found)})
    return warnings


def _texts(value: Any, field: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Every text in `value` with its dotted path; names of fields are texts of the field they name."""
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, dict | list) and depth < _DEEPEST:
        items: Any = value.items() if isinstance(value, dict) else enumerate(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        for name, item in items:
            inner = f"{field}.{name}" if field else str(name)
            if isinstance(name, str):
                yield f"{inner} (name)", name
            yield from _texts(item, inner, depth + 1)


def _hidden_in(text: str) -> Iterator[str]:
    if text.isascii() and text.isprintable():
        return
    for match in _SUSPECT.finditer(text):
        if _is_hidden(text, match.start()):
            yield match.group()
    if not text.isascii():
        for word in _WORD.findall(text):
            if not word.isascii() and any(char.isascii() and char.isalpha() for char in word):
                yield from (char for char in word if char in _LOOK_ALIKES)


def _is_hidden(text: str, at: int) -> bool:
    char = text[at]
    before, after = text[max(0, at - 1) : at], text[at + 1 : at + 2]
    if char == "\r":
        return after != "\n"
    if char in _ZERO_WIDTH_JOINERS:
        return not _joins(text[max(0, at - 3) : at], after)
    if _SELECTORS.match(char):
        return not _selects(before, char)
    if char in _BLANK:
        return True
    return unicodedata.category(char) in ("Cc", "Cf", "Co") and char not in _VISIBLE_FORMAT


def _joins(before: str, after: str) -> bool:
    """Whether a joiner stands between two emoji, or between letters of a script that is written with joiners."""
    base = _BETWEEN_EMOJI.sub("", before)[-1:]
    if not base or not after:
        return False
    if all(unicodedata.category(char) == "So" for char in (base, after)):
        return True
    return all(0x0600 <= ord(char) <= 0x0DFF for char in (base, after))


def _selects(before: str, selector: str) -> bool:
    """Whether a variation selector follows something that has variants: emoji, symbols, keycaps, ideographs."""
    if not before or _SELECTORS.match(before):
        return False
    if selector < "\ufe00":
        return "\u1800" <= before <= "\u18af"  # Mongolian
    if selector > "\ufe0f":
        return unicodedata.name(before, "").startswith("CJK")
    return (
        unicodedata.category(before) in ("So", "Sm", "Po", "Sk")
        or before in "0123456789#*"
        or (unicodedata.name(before, "").startswith("CJK"))
    )


def _name(char: str) -> str:
    return f"U+{ord(char):04X} {unicodedata.name(char, 'CONTROL CHARACTER')}"
