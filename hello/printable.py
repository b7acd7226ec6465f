"""Text of others that may be written to a terminal: nothing in it can control the terminal or forge a line."""

import json
import re

# C0, DEL and C1 control a terminal; marks, embeddings and isolates reorder a line; a lone surrogate cannot be written.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return the text in one line, with each unsafe character escaped: ESC as `\x1b`."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_json(value: object) -> str:
    r"""Return the value as JSON in one line, with each unsafe character escaped: ESC as `\u001b`."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
