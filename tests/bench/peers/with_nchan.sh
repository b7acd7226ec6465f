#!/usr/bin/env bash
# nginx with nchan: writes a configuration to a new folder and executes nginx, as one process without a master.
# nchan cannot read a plain Redis channel, so nchan_bridge.js posts each message to /publish.
set -euo pipefail
folder=$(mktemp -d)
sed "s/\${port}/$1/; s/\${files}/$(ulimit -n)/" "$(dirname "$0")/nchan.conf" >"$folder/nginx.conf"
PATH=$PATH:/usr/sbin # where Debian installs nginx
exec nginx -p "$folder" -c nginx.conf -e stderr
