"""Numbers and words of measured claims as one sets them: the sources have Python's signs."""

from __future__ import annotations

import re

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
FORMULA = r'<span class="math [^>]*>.*?</span>'
MARKUP = re.compile(rf"({FORMULA}|<[^>]*>)", re.DOTALL)
HELD = re.compile(rf"([(\[‘“]*)({FORMULA})([,.;:!?)\]’”]*)", re.DOTALL)


def signs(text: str) -> str:
    """``text`` as one sets it: 10⁻⁶ for 1e-06, 2.5·10⁻⁷ for 2.5e-07, minus signs, apostrophes, "eq. 3" on one line."""

    def power(number: re.Match[str]) -> str:
        factor = "" if number[1] == "1" else f"{number[1]}·"
        return f"{factor}10{str(int(number[2])).translate(RAISED)}"

    text = re.sub(r"(?<![\w.])(\d+(?:\.\d+)?)e([+-]\d+)\b", power, text)
    text = re.sub(r"\b(eqs?\.|Fig\.|Figs\.|Sec\.) (?=\d)", "\\1\N{NO-BREAK SPACE}", text)
    text = re.sub(r"(?<![\w.)\]])-(?=\d)", "−", text)
    return re.sub(r"(?<=\w)(?:'|&#x27;)(?=\w)", "’", text)


def typeset(fragment: str) -> str:
    """HTML with the ``signs`` of its words, and each formula on one line with the punctuation beside it."""

    def held(found: re.Match[str]) -> str:
        return f'<span class="held">{found[0]}</span>' if found[1] or found[3] else found[0]

    parts = MARKUP.split(fragment)
    parts[::2] = map(signs, parts[::2])
    return HELD.sub(held, "".join(parts))
