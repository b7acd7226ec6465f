"""nginx with nchan: writes a configuration to a new folder and executes nginx, as one process without a master.

nchan cannot read a plain Redis channel, so `nchan_bridge.py` posts each message to `/publish`.
"""

import os
import shutil
import sys
from pathlib import Path
from tempfile import mkdtemp

PORT, _REDIS_PORT = sys.argv[1:]
# Debian installs nginx where only the PATH of root leads.
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"

CONFIGURATION = """
load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
daemon off;
master_process off;
pid nginx.pid;
error_log stderr warn;
worker_rlimit_nofile {files};
events {{ worker_connections {files}; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server {{
    listen 127.0.0.1:{port} backlog=65535;
    location = /ws {{ nchan_subscriber websocket; nchan_channel_id hello; nchan_subscriber_first_message newest; }}
    location = /publish {{ nchan_publisher http; nchan_channel_id hello; keepalive_requests 1000000000; }}
  }}
}}
"""

# the number of connections that this process may open
files = os.sysconf("SC_OPEN_MAX")
folder = Path(mkdtemp(prefix="nchan-"))
(folder / "nginx.conf").write_text(CONFIGURATION.format(port=PORT, files=files))
os.execv(NGINX, [NGINX, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"])  # noqa: S606  the path is found above
