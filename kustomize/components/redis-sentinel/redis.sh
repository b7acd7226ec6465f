#!/bin/sh
# Starts Redis as the primary, or as a replica of the primary that the sentinels name.
#
# A Redis that restarts does not know whether it is still the primary, and two primaries would lose messages. So it waits
# until two of the three sentinels reply, and does what the one says that saw the latest failover.
set -eu

password=${REDISCLI_AUTH-}
unset REDISCLI_AUTH # the sentinels have none

# Prints the epoch of the latest failover that this sentinel saw, the name of the primary, and the number of replicas.
# The first command replies with pairs of lines, whose `ip` is still the old primary until the failover has ended; the
# second one replies with the name of the new primary, and its port.
ask() {
  printf '%s\n' 'sentinel master hello' 'sentinel get-master-addr-by-name hello' |
    timeout 2 redis-cli -h "$1" -p 26379 2>/dev/null | awk '
      NR % 2 { key = $0; next }
      { value[key] = $0 }
      END { if ("config-epoch" in value) print value["config-epoch"], key, value["num-slaves"] }'
}

# Prints the reply with the highest epoch if two sentinels reply.
ask_all() {
  for sentinel in sentinel-0 sentinel-1 sentinel-2; do ask "$sentinel" || true; done |
    sort -n | awk '{ latest = $0 } END { if (NR > 1) print latest }'
}

# A primary that restarts gives the sentinels 15 s to promote a replica, which they do after some 3 s: it may have lost
# its volume. The very first primary has no replica, and does not wait.
waited=0
replicaof=
while :; do
  read -r _ primary replicas <<REPLY
$(ask_all)
REPLY
  if [ "$primary" = "$POD" ]; then
    if [ "$replicas" -eq 0 ] || [ "$waited" -ge 15 ]; then break; fi
  elif [ -n "$primary" ]; then
    replicaof="replicaof $primary 6379"
    break
  fi
  waited=$((waited + 1))
  sleep 1
done

# A replica that needs a copy gets it at once. By default the primary waits five seconds for others that need one, too, and
# until then it publishes nothing, for lack of a copy.
cat >/tmp/redis.conf <<CONFIG
include /etc/redis/redis.conf
repl-diskless-sync-delay 0
replica-announce-ip $POD
masterauth "$(printf %s "$password" | sed 's/[\\"]/\\&/g')"
$replicaof
CONFIG
exec redis-server /tmp/redis.conf
