"""The peers: how each of them is installed, started and subscribed to. It must not know the load tool.

The folder `peers/` has their programs, each the smallest that the peer's own documentation makes of the task: send each
message published on the Redis channel `hello` to every WebSocket.

`python -m tests.bench.peers DIRECTORY` installs what it can in that directory. The variable BENCH_PEERS names the
directory to use; a peer that is not installed there is reported as one that failed, with its own error.
"""

# ruff: noqa: T201 # a command prints

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = "BENCH_PEERS"
PROGRAMS = Path(__file__).parent / "peers"

PIP = ("picows", "fastapi", "uvicorn", "websockets", "httptools", "uvloop", "redis[hiredis]")
NPM = ("ws", "socket.io", "@socket.io/redis-adapter", "redis")
APT = (
    "nginx",
    "libnginx-mod-nchan",
    "golang-go",
    "golang-github-centrifugal-centrifuge-dev",
    # That package's sources import these, and the package does not depend on them.
    *("golang-github-centrifugal-protocol-dev", "golang-github-fzambia-eagle-dev"),
    *("golang-github-igm-sockjs-go-dev", "golang-github-mna-redisc-dev"),
)
GO_SOURCES = "/usr/share/gocode"  # of Debian's packages


@dataclass(frozen=True)
class Peer:
    """A server of another project."""

    name: str
    language: str
    program: str  # in `peers/`
    path: str = "/ws"
    wsload: tuple[str, ...] = ()  # options of the load tool: what a client sends after its handshake, and waits for
    bridge: str | None = None  # the program that feeds the server, which cannot read Redis; its cost is not measured


# Engine.IO's fourth protocol: a session over WebSocket alone, whose server sends "2" as a ping and receives "3".
ENGINE_IO = "/socket.io/?EIO=4&transport=websocket"
# Socket.IO over Engine.IO: "40" connects to the main namespace, and the answer contains the session.
SOCKET_IO = ("--greet", "40", "--expect", "40{", "--reply", "2=3")
# The client's first command; the answer has its id.
CENTRIFUGE = ("--greet", '{"id":1,"params":{}}', "--expect", '"client"')

PEERS = (
    Peer("picows", "Cython", "with_picows.py"),
    Peer("nginx + nchan", "C", "with_nchan.py", bridge="nchan_bridge.py"),
    Peer("websockets", "Python", "with_websockets.py"),
    Peer("ws", "JavaScript", "with_ws.js"),
    # The version is named, since it is years behind. Centrifugo, the server built on it, has no package.
    Peer("Centrifuge 0.15", "Go", "with_centrifuge.go", path="/connection/websocket", wsload=CENTRIFUGE),
    Peer("FastAPI", "Python", "with_fastapi.py"),
    Peer("Socket.IO", "JavaScript", "with_socketio.js", path=ENGINE_IO, wsload=SOCKET_IO),
)


def command(program: str, port: int, redis_port: int) -> list[str]:
    """Return the command of a program in `peers/`, for a server at `port` that reads from the Redis at `redis_port`.

    It stays one process, and writes files to TMPDIR only.
    """
    folder, file = Path(os.environ[FOLDER]).resolve(), PROGRAMS / program
    words = {
        ".py": [f"{folder}/venv/bin/python", str(file)],
        ".js": ["env", f"NODE_PATH={folder}/node/node_modules", "node", str(file)],
        ".go": [f"{folder}/{file.stem}"],
    }[file.suffix]
    return [*words, str(port), str(redis_port)]


def main() -> int:
    """Install the peers that need no root rights; the exit code is 0 if every step succeeded, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.peers",
        description="Install the peers that hello is compared with.",
        epilog=f"Some peers need Debian's packages: `apt-get install nodejs npm {' '.join(APT)}`.",
    )
    parser.add_argument("directory", type=Path, help="directory for a Python environment, Node's modules and a program")
    directory: Path = parser.parse_args().directory.resolve()
    (directory / "node").mkdir(parents=True, exist_ok=True)
    environment = {"GO111MODULE": "off", "GOPATH": GO_SOURCES, "GOFLAGS": ""}  # so that nothing is downloaded
    succeeded = [
        _do(sys.executable, "-m", "venv", directory / "venv"),
        _do(directory / "venv/bin/python", "-m", "pip", "install", "--quiet", "--upgrade", *PIP),
        _do("npm", "install", "--no-audit", "--no-fund", "--prefix", directory / "node", *NPM),
        _do("go", "build", "-o", directory / "with_centrifuge", PROGRAMS / "with_centrifuge.go", **environment),
    ]
    print(f"{FOLDER}={directory} python -m tests.bench")
    return 0 if all(succeeded) else 1


def _do(program: str | Path, *words: str | Path, **environment: str) -> bool:
    print("$", program, *words, flush=True)
    if shutil.which(program) is None:
        print(f"  there is no {program}; continuing without it")
        return False
    return subprocess.run([program, *words], env=os.environ | environment).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
