"""A card's equation, which is plain text in the field's notation, as MathML that a browser lays out by itself.

``φ_k = φ_{k−1} − α G`` is nearly TeX already. What differs is replaced here: signs that have a command, raised and
lowered signs of Unicode, and words, which are text or, where they name a function, upright.
"""

import re
import unicodedata

from latex2mathml.converter import convert

COMMANDS = {
    **{"−": "-", "←": r"\leftarrow ", "∇": r"\nabla ", "∂": r"\partial ", "⊙": r"\odot ", "×": r"\times "},
    **{"Σ": r"\sum ", "∏": r"\prod ", "·": r"\cdot ", "‖": r"\Vert ", "≤": r"\le ", "≥": r"\ge ", "∈": r"\in "},
    **{"…": r"\ldots ", "⟨": r"\langle ", "⟩": r"\rangle ", "½": r"\tfrac{1}{2}", "√": r"\surd ", "↦": r"\mapsto "},
    **{"%": r"\%", "#": r"\#", "&": r"\&", "$": r"\$", "~": r"\sim ", "*": r"\ast "},
}
RAISED = dict(zip("ᵀ⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ᵏⁱⁿ", [r"\top", *"0123456789-+kin"], strict=True))
LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₋₊ᵢⱼₖₙ", "0123456789-+ijkn", strict=True))
ACCENTS = {"\N{COMBINING MACRON}": "bar", "\N{COMBINING CIRCUMFLEX ACCENT}": "hat", "\N{COMBINING TILDE}": "tilde"}
TOKEN = re.compile(
    r"(?P<script>[_^])(?P<of>[A-Za-z0-9]+|\w)?"
    rf"|(?P<raised>[{''.join(RAISED)}]+)|(?P<lowered>[{''.join(LOWERED)}]+)"
    r"|(?P<function>log10|log|exp|tanh|(?:min|max|var|[A-Za-z]{2,})(?=\())\b"
    r"|(?P<words>[A-Za-z]{2,}(?:[-'’_ ][A-Za-z]{2,})*\b(?!\())"
    rf"|(?P<accented>\w)(?P<accent>[{''.join(ACCENTS)}])|(?P<space> +)|(?P<other>.)"
)


def tex(line: str) -> str:
    """One line of an equation as TeX."""
    return "".join(_token(match) for match in TOKEN.finditer(unicodedata.normalize("NFD", line)))


def html(line: str) -> str:
    """One line of an equation: formulas as ``<math>``, and the words between them as text, where the line may break."""
    parts: list[str] = []
    formula, depth = "", 0
    for match in TOKEN.finditer(unicodedata.normalize("NFD", line)):
        depth += (match[0] in "([{") - (match[0] in ")]}")
        if depth or (match["words"] is None and match[0] != ","):
            formula += _token(match)
            continue
        parts += [*_math(formula), match[0]]
        formula = ""
    return re.sub(r" (?=[,:])", "", " ".join([*parts, *_math(formula)]))


def _math(formula: str) -> list[str]:
    bare = formula.removeprefix(r"\ ").removesuffix(r"\ ")
    if bare in ("", ":"):
        return [bare] if bare else []
    return [convert(bare)]


def _token(match: re.Match[str]) -> str:
    found = {name: text for name, text in match.groupdict().items() if text is not None}
    if "script" in found:  # M_out, φ_k; braces and brackets that follow speak for themselves
        of = found.get("of", "")
        return found["script"] + (f"{{{_upright(of)}}}" if of else "")
    if "raised" in found:
        return f"^{{{''.join(RAISED[sign] for sign in found['raised'])}}}"
    if "lowered" in found:
        return f"_{{{''.join(LOWERED[sign] for sign in found['lowered'])}}}"
    if "function" in found:
        return r"\log_{10}" if found["function"] == "log10" else _upright(found["function"])
    if "words" in found:
        return rf"\text{{{found['words']}}}"
    if "accented" in found:
        return rf"\{ACCENTS[found['accent']]}{{{found['accented']}}}"
    return r"\ " if "space" in found else COMMANDS.get(found["other"], found["other"])


def _upright(text: str) -> str:
    return text if len(text) == 1 or text.isdigit() else rf"\mathrm{{{text}}}"
