"""nginx with nchan: writes a configuration to a new folder and executes nginx, as one process without a master.

nchan cannot read a plain Redis channel, so `nchan_bridge.py` posts each message to `/publish`.
"""

import os
import shutil
import sys
from pathlib import Path
from string import Template
from tempfile import mkdtemp

PORT, _REDIS_PORT = sys.argv[1:]
# Debian installs nginx where only the PATH of root leads.
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"

# the number of connections that this process may open
files = os.sysconf("SC_OPEN_MAX")
folder = Path(mkdtemp(prefix="nchan-"))
configuration = Template((Path(__file__).parent / "nchan.conf").read_text())
(folder / "nginx.conf").write_text(configuration.substitute(port=PORT, files=files))
os.execv(NGINX, [NGINX, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"])  # noqa: S606  the path is found above
