"""Searching in what was said: from a human's words to a query, and from a find to the words around it."""

import re

_CHARACTERS = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"  # as in the database's moorage_words()
_RUN = f"[{_CHARACTERS}]+"
_WORD = f"(?:(?![{_CHARACTERS}])\\w)(?:(?![{_CHARACTERS}])[\\w.@/+#~%=?-])*"
_TOKEN = re.compile(f'((?<!\\S)-)?(?:"([^"]*)"|({_RUN})|({_WORD}))')
_IN_PHRASE = re.compile(f"[{_CHARACTERS}]|{_WORD}")
_TOKENS = 60
_SOUGHT = 10
_BEFORE = 60
_SNIPPET = 200


def search_query(text: str) -> str:
    """`text` in the syntax of Postgres' websearch_to_tsquery: words, "phrases", OR, -without.

    Chinese, Japanese and Korean come without spaces: there each character is a word, and a run of them a phrase.
    Whatever else is in `text` is left out: that function fails on some of it, on a long row of hyphens for one.
    """
    parts: list[str] = []
    for token in _TOKEN.finditer(text):
        no, phrase, run, word = token.groups()
        if word is None:
            words = _IN_PHRASE.findall(phrase if run is None else run)
            if words:
                parts.append(f'{no or ""}"{" ".join(words)}"')
        elif word.lower() != "or":
            parts.append(f"{no or ''}{word}")
        elif parts and parts[-1] != "OR":
            parts.append("OR")
    return " ".join(parts[:_TOKENS])


def snippet(content: str, text: str) -> str:
    """About 200 characters of `content`, around the first of the first words in `text` that is there."""
    wanted = [token for token in _TOKEN.finditer(text) if not token[1]][:_SOUGHT]
    terms = [term for token in wanted if (term := token[2] or token[3] or token[4])]
    folded = content.lower()
    found = [at for term in terms if (at := folded.find(term.lower())) >= 0]
    start = max(0, min(found, default=0) - _BEFORE)
    cut = " ".join(content[start : start + _SNIPPET].split())
    return ("…" if start else "") + cut + ("…" if start + _SNIPPET < len(content) else "")
