"""The peers: how each of them is installed, started and subscribed to. It must not know the load tool.

The folder `peers/` has their programs, each the smallest that the peer's own documentation makes of the task: send each
message published on the Redis channel `hello` to every WebSocket.

`python -m tests.bench.peers DIRECTORY` installs what it can in that directory, and prints how to install the rest. The
variable BENCH_PEERS names the directory to use; without it only the PATH and the current Python are searched.
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
PROBE_SECONDS = 60.0  # an import takes one or two

# broadcaster delivers nothing with redis-py 8, which no longer subscribes in the same step of the event loop.
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
    # That package's sources import these, and the package does not depend on them.
    "golang-github-centrifugal-protocol-dev",
    "golang-github-fzambia-eagle-dev",
    "golang-github-igm-sockjs-go-dev",
    "golang-github-mna-redisc-dev",
)

SERVERS = Path(__file__).parent / "peers"
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
GO_SOURCES = Path("/usr/share/gocode")  # of Debian's packages
CENTRIFUGE = "with_centrifuge"
CENTRIFUGE_SOURCES = GO_SOURCES / "src/github.com/centrifugal/centrifuge"

# Engine.IO's fourth protocol: a session over WebSocket alone, whose server sends "2" as a ping and receives "3".
ENGINE_IO = "/socket.io/?EIO=4&transport=websocket"
ENGINE_IO_PING = ("--reply", "2=3")
# Socket.IO over Engine.IO: "40" connects to the main namespace, and the answer contains the session.
SOCKET_IO, SOCKET_IO_READY = "40", "40{"


@dataclass(frozen=True)
class Peer:
    """A server of another project.

    `greetings` are the texts that a client sends after the handshake, `expected` the texts that it waits for after
    each, and `wsload` more options of the load tool.
    """

    name: str
    language: str
    install: str
    command: Callable[[], list[str]]  # without its last two arguments, the ports
    installed: Callable[[], bool]
    path: str = "/ws"
    greetings: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    wsload: tuple[str, ...] = ()
    feeder: Callable[[], list[str]] | None = None  # the command of the bridge, likewise

    def missing(self) -> str | None:
        """Return how to install the peer, in one line, or None if it is installed; this runs it for a second."""
        return None if self.installed() else self.install

    def start(self, port: int, redis_port: int) -> list[str]:
        """Return the command of the server, which listens on `port` and reads from the Redis at `redis_port`.

        It stays one process, and writes files to TMPDIR only.
        """
        return [*self.command(), str(port), str(redis_port)]

    def bridge(self, port: int, redis_port: int) -> list[str] | None:
        """Return the command that feeds the server from Redis, or None if the server reads Redis itself.

        It starts once the server listens, and its cost is not measured.
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
    # Debian installs nginx where only the PATH of root leads.
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
        # Its author publishes a repository and no package, so that none is installed without asking. The package
        # `@btc-vision/uwebsockets.js` is another party's build of the same source, and needs glibc 2.38.
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
        # The version is named, since it is years behind. Centrifugo, the server built on it, has no package.
        "Centrifuge 0.15",
        "Go",
        f"apt-get install {' '.join(GO)}, then python -m tests.bench.peers DIRECTORY",
        lambda: [str(_centrifuge(_folder()))],
        lambda: _centrifuge(_folder()).exists(),
        path="/connection/websocket",
        greetings=('{"id":1,"params":{}}',),
        expected=('"client"',),
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
        greetings=(SOCKET_IO,),
        expected=(SOCKET_IO_READY,),
        wsload=ENGINE_IO_PING,
    ),
    Peer(
        "broadcaster",
        "Python",
        _pip("broadcaster", "starlette", *UVICORN),
        _by_python("with_broadcaster.py"),
        _imports(f"import broadcaster, starlette, {UVICORN_IMPORTS}; assert redis.VERSION[0] < 8"),
        # If several first subscribers connect at once it loses all but one of them, so one connects first.
        wsload=("--lead", "1"),
    ),
    Peer(
        "python-socketio",
        "Python",
        _pip("python-socketio", *UVICORN),
        _by_python("with_python_socketio.py"),
        _imports(f"import socketio, {UVICORN_IMPORTS}"),
        path=ENGINE_IO,
        greetings=(SOCKET_IO,),
        expected=(SOCKET_IO_READY,),
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
    """Install the peers that need no root rights; the exit code is 0 if all peers are installed, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.peers", description="Install the peers that hello is compared with."
    )
    parser.add_argument("directory", type=Path, help="directory for a Python environment, Node's modules and a program")
    directory: Path = parser.parse_args().directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    _do(sys.executable, "-m", "venv", str(directory / "venv"))
    _do(str(directory / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--upgrade", *PIP)
    if shutil.which("npm"):
        (directory / "node").mkdir(exist_ok=True)
        _do("npm", "install", "--no-audit", "--no-fund", "--prefix", str(directory / "node"), *NPM)
    if shutil.which("go") and CENTRIFUGE_SOURCES.exists():
        # The sources are Debian's: nothing is downloaded.
        environment = {"GO111MODULE": "off", "GOPATH": str(GO_SOURCES), "GOFLAGS": ""}
        program = _centrifuge(directory)
        _do("go", "build", "-o", str(program), str(SERVERS / f"{CENTRIFUGE}.go"), **environment)
    os.environ[FOLDER] = str(directory)
    missing = [(peer.name, how) for peer in PEERS if (how := peer.missing()) is not None]
    for peer in PEERS:
        how = dict(missing).get(peer.name)
        _print(f"{peer.name}: {'installed' if how is None else f'missing: {how}'}")
    _print(f"{FOLDER}={directory} python -m tests.bench")
    return 1 if missing else 0


def _do(*command: str, **environment: str) -> None:
    _print(f"$ {' '.join(command)}")
    if code := subprocess.run(command, env=os.environ | environment).returncode:
        _print(f"  failed with code {code}; continuing without it")


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201  a command's output


if __name__ == "__main__":
    sys.exit(main())
