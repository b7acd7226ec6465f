"""The peers: how each of them is started and subscribed to. It must not know the load tool.

The folder `peers/` has their programs, each the smallest that the peer's own documentation makes of the task: send each
message published on the Redis channel `hello` to every WebSocket. README.md has the commands that install them.

The variable BENCH_PEERS names the directory to use; a peer that is not installed there is reported as one that failed,
with its own error.
"""

import os
from dataclasses import dataclass
from pathlib import Path

FOLDER = "BENCH_PEERS"
PROGRAMS = Path(__file__).parent / "peers"


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
    Peer("nginx + nchan", "C", "with_nchan.sh", bridge="nchan_bridge.js"),
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
        ".sh": ["bash", str(file)],
    }[file.suffix]
    return [*words, str(port), str(redis_port)]
