"""An extension of griffe, which reads the docstrings for the reference.

It knows the section ``Examples:``; the docstrings of this project say ``Example:``, the
other spelling of Google's style, which would be shown as a quotation.
"""

import re
from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Reads ``Example:`` as ``Examples:``."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", text)
