"""The files of the README's "Make it your own". It must not run them."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def files() -> dict[str, str]:
    """Return the texts of the files by their names, from the sections of that title in both READMEs."""
    texts = [(ROOT / name).read_text() for name in ("README.md", "hello/README.md")]
    sections = "".join(text.split("## Make it your own\n")[1].split("\n## ")[0] for text in texts)
    return dict(re.findall(r"<!-- (\S+) -->\n+```\w+\n(.+?)```", sections, re.DOTALL))


def write(folder: Path) -> None:
    """Write the files into this folder, and link its sibling `hello` to this repository."""
    for name, text in files().items():
        (folder / name).write_text(text)
    (folder.parent / "hello").symlink_to(ROOT)
