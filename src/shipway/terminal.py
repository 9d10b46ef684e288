"""Text of others on a terminal: what the terminal would obey is shown instead."""

from __future__ import annotations

import re

# Controls but for tab and newline (of C0, and of C1, which terminals obey too), Unicode's own ends of lines, marks that
# turn the direction of writing round, and halves of characters, which cannot be sent to a terminal at all.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return text in which what a terminal would obey can be read, such as `\x1b`.

    Names, parameters, messages and lines of logs come from whoever runs flows or writes to a bucket.
    """
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)


def escaped(document: str) -> str:
    """Return JSON in which what a terminal would obey is escaped; it is the same value to whoever parses it."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", document)
