"""Every README of the repository as text, and the examples in them. It does not know what a README should contain."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("deploy", "hello", "kustomize", "tests")
READMES = {
    path: path.read_text()
    for path in [ROOT / "README.md", *(found for name in FOLDERS for found in sorted((ROOT / name).rglob("README.md")))]
    if "node_modules" not in path.parts
}
ALL = "\n".join(READMES.values())


def example(name: str) -> str:
    """Return the code block below the comment `<!-- name -->`, which stands in exactly one README."""
    (found,) = re.findall(rf"<!-- {re.escape(name)} -->\n+```\w*\n(.+?)\n```", ALL, re.DOTALL)
    return str(found)


def least_rights() -> str:
    """Return the rights of an ACL user that deploy/README.md names for a channel, as Redis takes them."""
    (found,) = re.findall(r"`(~hello ~\{hello\}:\* &hello -@all [^`]*)`", " ".join(ALL.split()))
    return str(found)
