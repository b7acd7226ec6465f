"""The files of the README's "Make it your own", as somebody would write them into a folder. It runs nothing."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def files() -> dict[str, str]:
    """Their texts by their names."""
    section = (ROOT / "README.md").read_text().split("## Make it your own\n")[1].split("\n## ")[0]
    return dict(re.findall(r"<!-- (\S+) -->\n+```\w+\n(.+?)```", section, re.DOTALL))


def write(folder: Path) -> None:
    """Write them into this folder, whose sibling `hello` is this repository."""
    for name, text in files().items():
        (folder / name).write_text(text)
    (folder.parent / "hello").symlink_to(ROOT)
