#!/bin/sh
# Starts a sentinel. It has the configuration as it is now, and remembers what it knew before a restart: the primary, the
# replicas, the other sentinels, and the number of the latest failover.
set -eu

state=/data/sentinel.conf
new=/data/new.conf

{
  # Its id follows from its name: with a random one, the other sentinels would count one that lost its volume twice.
  echo "sentinel myid $(printf %s "$POD" | sha1sum | cut -c 1-40)"
  echo "sentinel announce-ip $POD"
  if grep -q '^sentinel monitor ' "$state" 2>/dev/null; then
    grep -v '^sentinel monitor ' /etc/sentinel/sentinel.conf
    grep -E '^sentinel (monitor|config-epoch|leader-epoch|current-epoch|known-replica|known-sentinel) ' "$state"
  else
    cat /etc/sentinel/sentinel.conf
  fi
  if [ -n "${REDIS_PASSWORD-}" ]; then
    printf 'sentinel auth-pass hello "%s"\n' "$(printf %s "$REDIS_PASSWORD" | sed 's/[\\"]/\\&/g')"
  fi
} >"$new"
mv "$new" "$state"
exec redis-server "$state" --sentinel
