"""The servers that `hello` is measured beside: how each is started, subscribed to and installed.

What they run is in the folder `peers/`, each the smallest that its own documentation makes of the task: take what is
published on the Redis channel `hello`, and pass each body on to every WebSocket. This module knows nothing of loads.

`python -m tests.bench.peers DIRECTORY` installs what it can there, and says how to install the rest. They are found in
the folder that the variable BENCH_PEERS names, else only on the PATH and by the Python that runs this.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FOLDER = "BENCH_PEERS"
PROBE_SECONDS = 60.0  # an import takes one or two, also on a busy machine

# With redis-py 8, whose subscriptions take a turn of the loop, broadcaster delivers nothing.
REDIS = "redis[hiredis]<8"
UVICORN = ("uvicorn", "websockets", "httptools", "uvloop", REDIS)
UVICORN_IMPORTS = "httptools, redis, uvicorn, uvloop, websockets"
CHANNELS = ("django", "channels", "channels-redis", *UVICORN)
PIP = ("picows", "fastapi", "starlette", "broadcaster", "python-socketio", *CHANNELS)
NPM = ("ws", "socket.io", "@socket.io/redis-adapter", "redis")
NGINX = ("nginx", "libnginx-mod-nchan")
GO = (
    "golang-go",
    "golang-github-centrifugal-centrifuge-dev",
    # What that package's sources import and it does not depend on.
    "golang-github-centrifugal-protocol-dev",
    "golang-github-fzambia-eagle-dev",
    "golang-github-igm-sockjs-go-dev",
    "golang-github-mna-redisc-dev",
)

SERVERS = Path(__file__).parent / "peers"
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
GO_SOURCES = Path("/usr/share/gocode")  # where Debian's packages put them
CENTRIFUGE = "with_centrifuge"
CENTRIFUGE_SOURCES = GO_SOURCES / "src/github.com/centrifugal/centrifuge"

# Engine.IO's fourth protocol: a session over WebSocket alone, whose server asks "2" now and then and hears "3".
ENGINE_IO = "/socket.io/?EIO=4&transport=websocket"
ENGINE_IO_PING = ("--reply", "2=3")
# Socket.IO on top of it: "40" connects to the main namespace, and the answer tells the session.
SOCKET_IO, SOCKET_IO_READY = "40", "40{"


@dataclass(frozen=True)
class Peer:
    """A server of others.

    `hello`, `ready` and `wsload` are options of the load tool: the texts that a client sends after the handshake, the
    texts that it waits for after each, and whatever else it takes.
    """

    name: str
    language: str
    install: str
    command: Callable[[], list[str]]  # without its last two words, the ports
    installed: Callable[[], bool]
    path: str = "/ws"
    hello: tuple[str, ...] = ()
    ready: tuple[str, ...] = ()
    wsload: tuple[str, ...] = ()
    feeder: Callable[[], list[str]] | None = None  # likewise

    def missing(self) -> str | None:
        """How to install it, in one line; None if it is installed.

        It is tried rather than looked for, which takes a second at most.
        """
        return None if self.installed() else self.install

    def start(self, port: int, redis_port: int) -> list[str]:
        """The command that serves at this port of 127.0.0.1 what is published in the Redis at that one.

        It stays one process. What it writes, it writes into the folder for temporary files (TMPDIR).
        """
        return [*self.command(), str(port), str(redis_port)]

    def bridge(self, port: int, redis_port: int) -> list[str] | None:
        """The command that feeds the server from Redis if it cannot read there itself: no part of the server's cost.

        It is started once the server listens, and ended after it.
        """
        return None if self.feeder is None else [*self.feeder(), str(port), str(redis_port)]


def _folder() -> Path | None:
    folder = os.environ.get(FOLDER)
    return Path(folder).resolve() if folder else None


def _python() -> str:
    folder = _folder()
    return str(folder / "venv/bin/python") if folder else sys.executable


def _node() -> list[str]:
    folder = _folder()
    return ["env", f"NODE_PATH={folder / 'node/node_modules'}", "node"] if folder else ["node"]


def _nginx() -> str:
    # Debian's is where only root's PATH leads.
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "nginx"


def _runs(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _pip(*packages: str) -> str:
    return f"pip install {shlex.join(packages)}"


def _by_python(server: str) -> Callable[[], list[str]]:
    return lambda: [_python(), str(SERVERS / server)]


def _imports(code: str) -> Callable[[], bool]:
    return lambda: _runs(_python(), "-c", code)


def _by_node(server: str) -> Callable[[], list[str]]:
    return lambda: [*_node(), str(SERVERS / server)]


def _requires(code: str) -> Callable[[], bool]:
    return lambda: _runs(*_node(), "-e", code)


def _centrifuge(folder: Path | None) -> Path:
    return (folder or SERVERS) / "go" / CENTRIFUGE


PEERS: tuple[Peer, ...] = (
    Peer(
        "uWebSockets.js",
        "C++",
        # Its author gives it out as a repository only, and calls no package of that name his: so nobody's is installed
        # unasked. `@btc-vision/uwebsockets.js` is others' build of the same source, and needs glibc 2.38.
        "npm install redis, and uNetworking/uWebSockets.js#v20.57.0 or @btc-vision/uwebsockets.js",
        _by_node("with_uwebsockets.js"),
        _requires("require('redis'); try{require('uWebSockets.js')} catch {require('@btc-vision/uwebsockets.js')}"),
    ),
    Peer(
        "picows",
        "Cython",
        _pip("picows", "uvloop", REDIS),
        _by_python("with_picows.py"),
        _imports("import picows, redis, uvloop"),
    ),
    Peer(
        "nginx + nchan",
        "C",
        f"apt-get install {' '.join(NGINX)}",
        lambda: [_python(), str(SERVERS / "with_nchan.py"), _nginx(), str(NCHAN)],
        lambda: NCHAN.exists() and _runs(_nginx(), "-v") and _runs(_python(), "-c", "import redis"),
        feeder=_by_python("nchan_bridge.py"),
    ),
    Peer(
        "websockets",
        "Python",
        _pip("websockets", "uvloop", REDIS),
        _by_python("with_websockets.py"),
        _imports("import redis, uvloop, websockets"),
    ),
    Peer(
        "ws",
        "JavaScript",
        "npm install ws redis",
        _by_node("with_ws.js"),
        _requires("require('redis'); require('ws')"),
    ),
    Peer(
        # By its version, as that is years behind the project's own. Centrifugo, the server made of it, has no package.
        "Centrifuge 0.15",
        "Go",
        f"apt-get install {' '.join(GO)}, then python -m tests.bench.peers DIRECTORY",
        lambda: [str(_centrifuge(_folder()))],
        lambda: _centrifuge(_folder()).exists(),
        path="/connection/websocket",
        hello=('{"id":1,"params":{}}',),
        ready=('"client"',),
    ),
    Peer(
        "FastAPI",
        "Python",
        _pip("fastapi", *UVICORN),
        _by_python("with_fastapi.py"),
        _imports(f"import fastapi, {UVICORN_IMPORTS}"),
    ),
    Peer(
        "Socket.IO",
        "JavaScript",
        "npm install socket.io @socket.io/redis-adapter redis",
        _by_node("with_socketio.js"),
        _requires("require('redis'); require('socket.io'); require('@socket.io/redis-adapter')"),
        path=ENGINE_IO,
        hello=(SOCKET_IO,),
        ready=(SOCKET_IO_READY,),
        wsload=ENGINE_IO_PING,
    ),
    Peer(
        "broadcaster",
        "Python",
        _pip("broadcaster", "starlette", *UVICORN),
        _by_python("with_broadcaster.py"),
        _imports(f"import broadcaster, starlette, {UVICORN_IMPORTS}; assert redis.VERSION[0] < 8"),
        # When several first subscribers come at once it forgets all but one of them, so one comes ahead.
        wsload=("--lead", "1"),
    ),
    Peer(
        "python-socketio",
        "Python",
        _pip("python-socketio", *UVICORN),
        _by_python("with_python_socketio.py"),
        _imports(f"import socketio, {UVICORN_IMPORTS}"),
        path=ENGINE_IO,
        hello=(SOCKET_IO,),
        ready=(SOCKET_IO_READY,),
        wsload=ENGINE_IO_PING,
    ),
    Peer(
        "Django Channels",
        "Python",
        _pip(*CHANNELS),
        _by_python("with_channels.py"),
        _imports(f"import channels, channels_redis, django, {UVICORN_IMPORTS}"),
    ),
)


def main() -> int:
    """Install what can be had without root's rights; the code is 0 if all peers are there, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.peers", description="Install the servers that hello is measured beside."
    )
    parser.add_argument("directory", type=Path, help="where to: a Python environment, Node's modules and a program")
    directory: Path = parser.parse_args().directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    _do(sys.executable, "-m", "venv", str(directory / "venv"))
    _do(str(directory / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--upgrade", *PIP)
    if shutil.which("npm"):
        (directory / "node").mkdir(exist_ok=True)
        _do("npm", "install", "--no-audit", "--no-fund", "--prefix", str(directory / "node"), *NPM)
    if shutil.which("go") and CENTRIFUGE_SOURCES.exists():
        # The sources are Debian's: nothing is fetched.
        environment = {"GO111MODULE": "off", "GOPATH": str(GO_SOURCES), "GOFLAGS": ""}
        program = _centrifuge(directory)
        _do("go", "build", "-o", str(program), str(SERVERS / f"{CENTRIFUGE}.go"), **environment)
    os.environ[FOLDER] = str(directory)
    missing = [(peer.name, how) for peer in PEERS if (how := peer.missing()) is not None]
    for peer in PEERS:
        how = dict(missing).get(peer.name)
        _say(f"{peer.name}: {'installed' if how is None else f'missing: {how}'}")
    _say(f"{FOLDER}={directory} python -m tests.bench")
    return 1 if missing else 0


def _do(*command: str, **environment: str) -> None:
    _say(f"$ {' '.join(command)}")
    if code := subprocess.run(command, env=os.environ | environment).returncode:
        _say(f"  failed with code {code}; going on without it")


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  a command that reports


if __name__ == "__main__":
    sys.exit(main())
