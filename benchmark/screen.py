"""Text on its way to a person: everything is shown, nothing is obeyed.

Names, messages and titles come from files and archives of strangers. A terminal obeys control characters in them, and
a line break in a name forges a line. Here, where text is shown, both become visible: ``\\x1b``, ``\\n``.
"""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console
from rich.text import Text

_OBEYED = re.compile(  # controls but tab and line feed, marks that hide or reorder text, halves of characters
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    r"\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """`text` with all that a terminal would obey, but tabs and line breaks, written out: ``\\x1b``."""
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """:func:`visible`, on one line: ``\\n`` for a line break."""
    return visible(text.replace("\n", "\\n"))


class Screen(Console):
    """rich's console, on which every string is :func:`visible`."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(visible(text), **how)

    def say(self, text: str) -> None:
        """Print `text` as it is, on one line however long."""
        self.print(one_line(text), markup=False, highlight=False, soft_wrap=True)
