"""What characters may reach an output: no user's text moves a cursor, reorders a line, or takes room nobody can see.

Names of models and data sets, messages of errors and the like are whatever a user, or a library, made of them.
"""

from __future__ import annotations

import re
import unicodedata

_LINE_BREAK = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_UNKNOWN = "\ufffd"
_DELETE, _DELETE_PICTURE, _PICTURES = 0x7F, "\u2421", 0x2400

_SHAPERS = re.compile("[\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef\U0001f3fb-\U0001f3ff]")
"""What changes the look of its neighbours: joiners, variation selectors, tones of skin."""


def clean(text: str, *, lines: bool = False, shapers: bool = False) -> str:
    """Text in which every character can be seen, and every width can be told.

    Control characters become their pictures (`␛`); those of format, which reorder a line or hide in it, and what is no
    character at all become `�`, so that two names that differ still look different.

    Args:
        text: anything.
        lines: whether its line breaks stay, as `\\n`; else each is a space.
        shapers: whether joiners, variation selectors and tones of skin stay. Browsers know them; of terminals no two
            agree on how wide what is joined would be, so there its parts are shown one by one.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _LINE_BREAK.sub("\n" if lines else " ", text)
    if not shapers:
        text = _SHAPERS.sub("", text)
    return "".join(map(_visible, text))


def _visible(char: str) -> str:
    if char == "\n" or _SHAPERS.match(char):
        return char
    if char == "\t":
        return " "
    code = ord(char)
    if code < 0x20:
        return chr(_PICTURES + code)
    if code == _DELETE:
        return _DELETE_PICTURE
    no_character = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return _UNKNOWN if no_character or unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") else char
