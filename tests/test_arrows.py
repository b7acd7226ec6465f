"""The rooms of the program and the arrows between them: who may import whom. Nothing points back."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ROOT / "hello"

# Each room may import the rooms named beside it, and no other.
ARROWS: dict[str, set[str]] = {
    "hello": set(),
    "hello.message": set(),
    "hello.metrics": set(),
    "hello.settings": set(),
    "hello.log": {"hello.message"},
    "hello.channel": {"hello.message", "hello.channel.memory", "hello.channel.redis"},
    "hello.channel.memory": {"hello.channel", "hello.log", "hello.message"},
    "hello.channel.redis": {"hello.channel", "hello.message"},
    "hello.broadcaster": {"hello.message"},
    "hello.feed": {"hello.log", "hello.message"},
    "hello.audience": {"hello.feed", "hello.message", "hello.metrics"},
    "hello.relay": {"hello.audience", "hello.channel", "hello.feed", "hello.message", "hello.metrics"},
    "hello.supervisor": {"hello.channel", "hello.message", "hello.metrics"},
    "hello.web": set(),
    "hello.web.origin": set(),
    "hello.web.line": {"hello.audience", "hello.feed"},
    "hello.web.stream": {
        *("hello.audience", "hello.feed", "hello.message", "hello.web.line", "hello.web.origin"),
    },
    "hello.web.public": {"hello.audience", "hello.web.origin", "hello.web.stream"},
    "hello.web.operators": {"hello.metrics"},
    "hello.web.handshake": {"hello.web.line"},
    "hello.web.door": set(),
    "hello.web.protocols": {"hello.web.door", "hello.web.handshake", "hello.web.line"},
    "hello.web.server": {"hello.web.door", "hello.web.line", "hello.web.protocols"},
    "hello.system": {
        *("hello.audience", "hello.channel", "hello.message", "hello.metrics", "hello.relay"),
        *("hello.settings", "hello.supervisor", "hello.web.operators", "hello.web.public"),
    },
    "hello.testing": {"hello.channel", "hello.message", "hello.settings", "hello.system"},
    "hello.watch": {"hello.message"},
    "hello.__main__": {"hello.channel", "hello.settings", "hello.system", "hello.watch", "hello.web.server"},
}

# Who alone may know a library.
KEEPERS = {
    "redis": {"hello.channel.redis"},
    "hiredis": {"hello.channel.redis"},
    "uvicorn": {"hello.web.server", "hello.web.protocols"},
    "httptools": {"hello.web.protocols"},
    "websockets": {"hello.watch", "hello.web.handshake", "hello.web.line"},
    "starlette": {"hello.web.stream", "hello.web.public", "hello.web.operators", "hello.web.server", "hello.system"}
    | {"hello.testing", "hello.__main__"},
    "pydantic": {"hello.settings"},
    "pydantic_settings": {"hello.settings"},
    "prometheus_client": {"hello.metrics", "hello.web.operators"},
}


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {room(path): path for path in sorted(ROOMS.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            assert node.module is not None
            found.add(node.module)
    return found


def test_every_room_is_on_the_map() -> None:
    assert FILES.keys() == ARROWS.keys()


@pytest.mark.parametrize("name", FILES)
def test_arrows_run_one_way(name: str) -> None:
    """A room imports no room but those beside it on the map."""
    assert {found for found in imports(FILES[name]) if found.split(".")[0] == "hello"} <= ARROWS[name]


def test_no_arrow_points_back() -> None:
    """The map itself has no circle, but for a port that opens its own backends."""
    seen: dict[str, int] = {}

    def depth(name: str, path: tuple[str, ...]) -> int:
        assert name not in path, " -> ".join([*path, name])
        if name not in seen:
            beside = {other for other in ARROWS[name] if not other.startswith(f"{name}.") or name == "hello"}
            seen[name] = 1 + max((depth(other, (*path, name)) for other in beside), default=0)
        return seen[name]

    for name in ARROWS:
        depth(name, ())


@pytest.mark.parametrize("name", FILES)
def test_a_library_is_known_where_it_belongs(name: str) -> None:
    """What is not named here comes with Python, or is anyio, which everybody may know."""
    for found in imports(FILES[name]):
        library = found.split(".")[0]
        if library in KEEPERS:
            assert name in KEEPERS[library], f"{name} knows {library}"
        else:
            assert library in {"hello", "anyio"} or library in sys.stdlib_module_names


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_lives_in_it(name: str) -> None:
    """By a docstring whose first line is a sentence of its own."""
    docstring = ast.get_docstring(ast.parse(FILES[name].read_text()))
    assert docstring is not None
    assert re.match(r"\S.{30,}", docstring)
