"""The page as one document, with its style and its scripts in it: one request, of which no half can fail.

The files in `page/` need no build to be read or tested: this is done once, at the start of the process.
"""

import gzip
import hashlib
import re
from base64 import b64encode
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parent / "page"

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([a-z-]+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
# Comments on lines of their own, which are a third of the bytes.
_COMMENT = re.compile(r"^[ \t]*(?:/\*(?:[^*]|\*(?!/))*\*/|//.*)\n", re.MULTILINE)
_UNKNOWN = re.compile(r"^(?:import|export)\b.*|\bimport[.(].*|</script.*|<!--.*", re.MULTILINE)


class Document(NamedTuple):
    """The document in both encodings; `sources` allows its scripts and its style in a Content-Security-Policy."""

    html: bytes
    gzipped: bytes
    etag: str
    sources: str


def read_document(folder: Path = PAGE) -> Document:
    """Return index.html with all that it names in it: a style sheet, a script, and the modules of `main.js`.

    Raises ValueError if it names something else, or if a module has what `_bundle` does not understand.
    """
    style, guard, main = _read(folder / "style.css"), _read(folder / "guard.js"), _bundle(folder, "main")
    html = (folder / "index.html").read_text()
    for old, new in (
        ('<link rel="stylesheet" href="page/style.css" />', f"<style>{style}</style>"),
        ('<script src="page/guard.js">', f"<script>{guard}"),
        ('<script type="module" src="page/main.js">', f'<script type="module">{main}'),
    ):
        if old not in html:
            raise ValueError(f"index.html has no {old}")
        html = html.replace(old, new, 1)
    data = html.encode()
    sources = f"script-src {source_of(guard)} {source_of(main)}; style-src {source_of(style)}"
    etag = f'W/"{hashlib.sha256(data).hexdigest()[:32]}"'  # weak, since it is that of both encodings
    return Document(data, gzip.compress(data, mtime=0), etag, sources)


def source_of(text: str) -> str:
    """Return the source that allows an inline script or style (CSP Level 3, 2.3.1)."""
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _read(file: Path) -> str:
    return _COMMENT.sub("", file.read_text())


def _bundle(folder: Path, main: str) -> str:
    """Return a module and all that it imports as one script: each is a function, whose result has what it exports.

    Raises ValueError if modules import each other in a circle, or one has anything but static named imports and
    exports of functions, classes and constants.
    """
    parts: list[str] = []
    done: set[str] = set()

    def add(name: str, importers: tuple[str, ...]) -> None:
        if name in importers:
            raise ValueError(f"modules import each other: {' -> '.join((*importers, name))}")
        if name in done:
            return
        source = _read(folder / f"{name}.js")
        for _, imported in _IMPORT.findall(source):
            add(imported, (*importers, name))
        done.add(name)
        exports = ", ".join(_EXPORT.findall(source))
        body = _EXPORT.sub("", _IMPORT.sub(_destructuring, source))
        if unknown := _UNKNOWN.search(body):
            raise ValueError(f"{name}.js has what a bundle cannot have: {unknown[0]}")
        parts.append(f"const {_variable(name)} = (() => {{\n{body}return {{ {exports} }};\n}})();\n")

    add(main, ())
    return "".join(parts)


def _destructuring(found: re.Match[str]) -> str:
    return f"const {{{found[1].replace(' as ', ': ')}}} = {_variable(found[2])};"


def _variable(name: str) -> str:
    return f"${name.replace('-', '_')}"
