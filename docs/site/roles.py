"""Docstrings for the site: the roles of reStructuredText, ``:func:`name```, become code."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`~?\.?([^`]+)`")


def without_roles(text: str) -> str:
    return ROLE.sub(lambda role: f"`{role[1]}`", text)


class Roles(griffe.Extension):
    """Rewrites every docstring as it is loaded."""

    def on_instance(self, *, obj: griffe.Object, **rest: Any) -> None:
        if obj.docstring:
            obj.docstring.value = without_roles(obj.docstring.value)
