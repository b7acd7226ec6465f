"""Tells the code that a person has written from what is installed, for lines that name where something happened."""

import sysconfig

# Folders of installed code, and the modules that Python brings inside itself.
_INSTALLED = ("<frozen ", *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")))


def is_own(file: str) -> bool:
    """Return True if the code in this file is not installed."""
    return not file.startswith(_INSTALLED)
