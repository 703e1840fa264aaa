r"""Text for pdfLaTeX with no package but what `article` has: every character is set, or stands there by its number.

The library `pylatexenc` does not do that: of the characters below U+3000 it writes more than 200 as commands of other
packages (`\CYRYA`, `\mathbb`, `\texteuro`), which do not compile, and it lacks 850 that are set here.
"""

from __future__ import annotations

import re
import unicodedata

from itopctl.report.formats.characters import clean

# What is of the encoding TS1 is set as mathematics: its fonts, where nobody asks for better ones, are bitmaps.
_ASCII = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"$\mathdollar$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "`": r"$\grave{\ }$",
}  # fmt: skip
_SYMBOLS = {
    "–": "--", "—": "---", "‐": "-", "‑": "-", "‒": "--", "―": "---", "−": "$-$", "‘": "`", "’": "'", "‚": ",",
    "“": "``", "”": "''", "„": ",,", "«": r"$\ll$", "»": r"$\gg$", "‹": "$<$", "›": "$>$", "…": r"\dots{}",
    "±": r"$\pm$", "∓": r"$\mp$", "×": r"$\times$", "÷": r"$\div$", "·": r"$\cdot$", "⋅": r"$\cdot$", "∙": r"$\cdot$",
    "•": r"$\bullet$", "∘": r"$\circ$", "°": r"$^\circ$", "′": r"$'$", "″": r"$''$", "≤": r"$\leq$", "≥": r"$\geq$",
    "≪": r"$\ll$", "≫": r"$\gg$", "≠": r"$\neq$", "≈": r"$\approx$", "≡": r"$\equiv$", "∼": r"$\sim$", "≃": r"$\simeq$",
    "∝": r"$\propto$", "∞": r"$\infty$", "√": r"$\surd$", "∑": r"$\sum$", "∏": r"$\prod$", "∫": r"$\int$",
    "∂": r"$\partial$", "∇": r"$\nabla$", "∈": r"$\in$", "∉": r"$\notin$", "∋": r"$\ni$", "∅": r"$\emptyset$",
    "∩": r"$\cap$", "∪": r"$\cup$", "⊂": r"$\subset$", "⊆": r"$\subseteq$", "⊃": r"$\supset$", "⊇": r"$\supseteq$",
    "∧": r"$\wedge$", "∨": r"$\vee$", "¬": r"$\neg$", "∀": r"$\forall$", "∃": r"$\exists$", "⊕": r"$\oplus$",
    "⊗": r"$\otimes$", "⊙": r"$\odot$", "⊥": r"$\perp$", "∥": r"$\parallel$", "‖": r"$\|$", "∗": r"$\ast$",
    "←": r"$\leftarrow$", "→": r"$\rightarrow$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "↔": r"$\leftrightarrow$",
    "⇐": r"$\Leftarrow$", "⇒": r"$\Rightarrow$", "⇔": r"$\Leftrightarrow$", "↦": r"$\mapsto$", "⟨": r"$\langle$",
    "⟩": r"$\rangle$", "★": r"$\star$", "☆": r"$\star$", "⋆": r"$\star$", "✓": r"$\surd$", "✔": r"$\surd$",
    "✗": r"$\times$", "✘": r"$\times$", "ℓ": r"$\ell$", "ℝ": r"$\mathbf{R}$", "†": r"$\dagger$", "‡": r"$\ddagger$",
    "§": r"$\mathsection$", "¶": r"$\mathparagraph$", "©": "(c)", "®": r"$^{\mathrm{R}}$", "™": r"$^{\mathrm{TM}}$",
    "¹": "$^1$", "²": "$^2$", "³": "$^3$", "£": r"$\mathsterling$", "€": "EUR", "¥": "JPY", "µ": r"$\mu$",
    "¡": r"\textexclamdown{}", "¿": r"\textquestiondown{}", "ß": r"\ss{}", "ẞ": "SS", "æ": r"\ae{}", "Æ": r"\AE{}",
    "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "ȷ": r"\j{}",
    "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ħ": "h", "Ħ": "H", "ŋ": "ng", "Ŋ": "Ng",
    "ϵ": r"$\epsilon$", "ϑ": r"$\vartheta$", "ϕ": r"$\phi$", "ϱ": r"$\varrho$", "ς": r"$\varsigma$", "ϖ": r"$\varpi$",
}  # fmt: skip
_GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER ([A-Z]+)")
_GREEK_AS_LATIN = {
    "ALPHA": "A", "BETA": "B", "EPSILON": "E", "ZETA": "Z", "ETA": "H", "IOTA": "I", "KAPPA": "K", "MU": "M", "NU": "N",
    "OMICRON": "O", "RHO": "P", "TAU": "T", "CHI": "X",
}  # fmt: skip
_GREEK_LETTERS = {
    *_GREEK_AS_LATIN, "GAMMA", "DELTA", "THETA", "LAMDA", "XI", "PI", "SIGMA", "UPSILON", "PHI", "PSI", "OMEGA",
}  # fmt: skip
_GREEK_COMMANDS = {"epsilon": "varepsilon", "phi": "varphi", "lamda": "lambda", "Lamda": "Lambda"}
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0331": "b",
}  # fmt: skip

# What stands for itself as a whole: the exploration rate and the update interval; and hyphens, which would be a dash.
_PHRASES = re.compile(r"\b(R_s)\b|\b(ΔT)\b|(-{2,})|((?<=\d) %)")
_LONG = 16  # letters; longer words may be broken, where a line has to be
_PIECES = re.compile(r"[^\x00-\x7f]|[\x00-\x7f]{1,12}?[/\\:._@,;=\-]+(?=\w)|[\x00-\x7f]{1,12}", re.ASCII)  # of one


def latex_escape(text: str, breakable: bool = False) -> str:
    r"""Text with every character that LaTeX would take for itself made harmless.

    `R_s` and `ΔT` are set as mathematics, as are Greek letters. A letter that Computer Modern has not, such as `模`,
    becomes `[U+6A21]` in small type (`unknown_characters`).

    Args:
        text: one line.
        breakable: whether long words, such as paths, may be broken, which LaTeX does by itself only in those it knows.
    """
    text = clean(text)
    if breakable:
        return " ".join(map(_breakable, text.split(" ")))
    done, end = [], 0
    for found in _PHRASES.finditer(text):
        done += [_escaped(text[end : found.start()]), _phrase(found)]
        end = found.end()
    return "".join(done) + _escaped(text[end:])


def unknown_characters(text: str) -> list[str]:
    """Characters of a text that stand there by their number, each once."""
    return [char for char in dict.fromkeys(_composed(clean(text))) if _known(char) is None]


def _breakable(word: str) -> str:
    if len(word) <= _LONG and not unknown_characters(word):
        return latex_escape(word)
    return r"\allowbreak{}".join(latex_escape(part) for part in _PIECES.findall(_composed(word)))


def _phrase(found: re.Match[str]) -> str:
    if found[3]:
        return "{-}" * len(found[3])
    if found[4]:
        return r"\,\%"
    return "$R_s$" if found[1] else r"$\Delta T$"


def _escaped(text: str) -> str:
    return "".join(_letter(char) for char in _composed(text))


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _letter(char: str) -> str:
    known = _known(char)
    return f"{{\\scriptsize[U+{ord(char):04X}]}}" if known is None else known


def _known(char: str) -> str | None:
    """How LaTeX sets a character; None where it cannot."""
    if char.isascii():
        return _ASCII.get(char, char)
    if char in _SYMBOLS:
        return _SYMBOLS[char]
    if unicodedata.category(char) == "Zs":
        return "~" if char == "\xa0" else " "
    return _greek(char) or _accented(char) or _compatible(char)


def _greek(char: str) -> str | None:
    found = _GREEK.fullmatch(unicodedata.name(char, ""))
    if found is None or found[2] not in _GREEK_LETTERS:
        return None
    small, name = found[1] == "SMALL", found[2]
    if name == "OMICRON" or (not small and name in _GREEK_AS_LATIN):
        latin = _GREEK_AS_LATIN[name]
        return f"$\\mathrm{{{latin.lower() if small else latin}}}$"
    command = name.lower() if small else name.capitalize()
    return f"$\\{_GREEK_COMMANDS.get(command, command)}$"


def _accented(char: str) -> str | None:
    """A letter with one accent or two; where TeX lacks the accent, the letter alone."""
    base, *marks = list(unicodedata.normalize("NFD", char))
    if marks and _greek(base):
        return _greek(base)
    if not (base.isascii() and base.isalpha()):
        return None
    for mark in marks:
        if mark in _ACCENTS:
            bare = {"i": r"\i", "j": r"\j"}.get(base, base) if _ACCENTS[mark] not in "dcb" else base
            base = f"\\{_ACCENTS[mark]}{{{bare}}}"
    return base


def _compatible(char: str) -> str | None:
    """What a character stands for, where that can be set: the letters of a ligature, a digit in a circle."""
    parts = unicodedata.normalize("NFKC", char)
    if parts == char:
        return None
    known = [_known(part) for part in parts]
    return None if None in known else "".join(filter(None, known))
