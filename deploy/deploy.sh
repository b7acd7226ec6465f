#!/usr/bin/env bash
# Builds the image, deploys ../kustomize to Minikube and prints a URL that works.
set -euo pipefail

# CDPATH is empty here: the user's own may lead `cd` to another folder of this name.
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/cluster.sh
. "$here/cluster.sh"

usage() {
  cat <<'END'
Usage: deploy/deploy.sh [split|combined]

Builds the image, deploys it to Minikube, waits until it works and prints the URL to open.

  split     one pod runs the broadcaster, two pods run a relay (the default)
  combined  one pod runs both

Run it again after a change, or to switch the shape: it updates what runs, and open pages miss nothing.

  MINIKUBE_PROFILE  the cluster's name; default: minikube
END
}

case ${1-split} in
  -h | --help) usage && exit ;;
  split | combined) shape=${1-split} ;;
  *) usage >&2 && exit 2 ;;
esac
[ $# -le 1 ] || { usage >&2 && exit 2; }

hello() {
  kube -n hello "$@"
}

# create_password: creates the Secret with a random password for Redis. kubectl reads the Secret from standard input,
# since other users of this machine can read a command line.
create_password() {
  local password
  password=$(od -An -N 24 -t x1 /dev/urandom | tr -d ' \n')
  hello create -f - <<END
apiVersion: v1
kind: Secret
metadata:
  name: redis-password
stringData:
  password: "$password"
  auth.conf: requirepass $password
END
}

# wait_for WORKLOAD SECONDS: returns once the workload is rolled out; after that time prints pods, events and logs, and
# ends the script.
wait_for() {
  local pod
  hello rollout status "$1" --timeout="$2s" && return
  {
    log '' 'Pods:'
    hello get pods -o wide
    log '' 'Events:'
    hello get events --sort-by=.lastTimestamp | tail -n 20
    for pod in $(hello get pods -o name); do
      log '' "Log of $pod:"
      hello logs "$pod" --tail=40 || true
      hello logs "$pod" --tail=40 --previous 2>/dev/null || true
    done
  } >&2 || true
  die "$1 did not become ready within $2 s: see above."
}

# works URL: succeeds if the page answers at the URL and a WebSocket opens. It ignores the user's ~/.curlrc (-q).
works() {
  local headers
  curl -q --noproxy '*' --silent --fail --max-time 5 --output /dev/null "$1/" || return
  # curl reads from the open WebSocket until --max-time ends it: that is no error.
  headers=$(
    curl -q --noproxy '*' --silent --http1.1 --max-time 3 --output /dev/null --dump-header - \
      -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
      -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: aGVsbG8gV2ViU29ja2V0IQ==' "$1/ws"
  ) || true
  [[ $headers == 'HTTP/1.1 101 '* ]]
}

require_cluster
"$here/build-images.sh"

# The script reads what runs before it changes anything: only pods that run already need a restart, since a new pod
# starts with the new image and the password.
already_there=$(hello get deployments,statefulsets -o name)
new_image=$(image_id "$image:dev")
redis_pod=$(hello get pod redis-0 --ignore-not-found \
  -o jsonpath='{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}')

log "Deploying the shape '$shape' ..."
kube apply -f "$here/../kustomize/base/namespace.yaml"

password=$(hello get secret redis-password --ignore-not-found -o name)
[ -n "$password" ] || create_password

# An annotation of the namespace holds the id of the image that was last rolled out completely.
old_image=$(kube get namespace hello -o jsonpath='{.metadata.annotations.hello/image-id}')
kube apply -k "$here/../kustomize/overlays/$shape"

# A StatefulSet does not replace a pod that never became ready, not even by a corrected one (kubernetes/kubernetes#67250).
case $redis_pod in
  '' | *' True') ;;
  *) hello delete pod redis-0 --ignore-not-found --wait=false ;;
esac

# Kubernetes restarts no pod for a new image behind the same tag, nor for a new Secret. The restart follows the apply
# directly: if the shape changes too, the pods of the apply are replaced before they are ready, and clients move once.
if [ -n "$already_there" ]; then
  if [ -z "$password" ]; then
    hello rollout restart statefulset/redis deployment/relay deployment/broadcaster
  elif [ "$old_image" != "$new_image" ]; then
    hello rollout restart deployment/relay deployment/broadcaster
  fi
fi

# Redis is first, with time to pull its image: the other pods are ready only once they have reached Redis.
wait_for statefulset/redis 300
wait_for deployment/broadcaster 180
wait_for deployment/relay 180
kube annotate namespace hello --overwrite "hello/image-id=$new_image" >/dev/null

# `minikube service` prints the URL and exits, but if the driver needs a tunnel, it prints the URL and keeps running.
# `set -m` gives it a process group of its own, so that close_tunnel also ends the ssh that holds the tunnel.
output=$(mktemp "${TMPDIR:-/tmp}/hello-url.XXXXXX")
set -m
cluster service hello -n hello --url >"$output" 2>&1 </dev/null &
service=$!
set +m
close_tunnel() {
  exec 2>/dev/null # otherwise bash reports the end of the job
  { kill -- "-$service" && wait "$service"; } || true
  rm -f "$output"
}
trap close_tunnel EXIT

url=
deadline=$((SECONDS + 60))
while [ -z "$url" ]; do
  # The order matters: a URL that is printed between the two commands is still found.
  running=$(kill -0 "$service" 2>/dev/null && echo yes) || true
  url=$(sed -n 's#.*\(http://[^ ]*:[0-9][0-9]*\).*#\1#p' "$output" | sed -n 1p)
  if [ -z "$url" ]; then
    if [ -z "$running" ] || [ $SECONDS -ge $deadline ]; then
      cat "$output" >&2
      die "hello is deployed, but 'minikube service hello -n hello --url -p $profile' printed no URL: see above."
    fi
    sleep 0.2
  fi
done

deadline=$((SECONDS + 30))
until works "$url"; do
  [ $SECONDS -lt $deadline ] || die "hello is deployed, but the page or the WebSocket does not open at $url."
  sleep 1
done

if kill -0 "$service" 2>/dev/null; then
  trap 'exit 0' INT
  log "Keep this terminal open: it holds the tunnel. Ctrl-C closes the tunnel; hello keeps running. Open:" "$url"
  wait "$service" ||
    die "minikube closed the tunnel; run 'minikube service hello -n hello --url -p $profile' for a new one."
fi
log "hello runs in the shape '$shape'. Open:" "$url"
