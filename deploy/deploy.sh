#!/usr/bin/env bash
# From a checkout to a URL that works, on Minikube. What is deployed stands in ../kustomize.
set -euo pipefail

# Not by the user's CDPATH, which may know another folder of this name.
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/cluster.sh
. "$here/cluster.sh"

usage() {
  cat <<'END'
Usage: deploy/deploy.sh [split|combined]

Builds the image, deploys it to Minikube, waits until it works and prints the URL to open.

  split     the broadcaster in a pod of its own, and two relays (the default)
  combined  one pod runs both

Run it again after a change, or with the other shape: what runs is updated, and open pages miss nothing.

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

# create_password: a password for Redis. On standard input, since other users can read a command line.
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

# wait_for WORKLOAD SECONDS: returns when it is rolled out; otherwise shows why not and ends the script.
wait_for() {
  local pod
  hello rollout status "$1" --timeout="$2s" && return
  {
    say '' 'Pods:'
    hello get pods -o wide
    say '' 'Events:'
    hello get events --sort-by=.lastTimestamp | tail -n 20
    for pod in $(hello get pods -o name); do
      say '' "Log of $pod:"
      hello logs "$pod" --tail=40 || true
      hello logs "$pod" --tail=40 --previous 2>/dev/null || true
    done
  } >&2 || true
  die "$1 did not become ready within $2 s: see above."
}

# works URL: succeeds when the page answers there and a WebSocket can be opened, whatever the user's ~/.curlrc says.
works() {
  local headers
  curl -q --noproxy '*' --silent --fail --max-time 5 --output /dev/null "$1/" || return
  # curl waits for what the open WebSocket brings until its time is out: that is no error.
  headers=$(
    curl -q --noproxy '*' --silent --http1.1 --max-time 3 --output /dev/null --dump-header - \
      -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
      -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: aGVsbG8gV2ViU29ja2V0IQ==' "$1/ws"
  ) || true
  [[ $headers == 'HTTP/1.1 101 '* ]]
}

require_cluster
"$here/build-images.sh"

# Read before anything changes: new pods start from the new image and with the password by themselves.
already_there=$(hello get deployments,statefulsets -o name)
new_image=$(image_id "$image:dev")

say "Deploying the shape '$shape' ..."
kube apply -f "$here/../kustomize/base/namespace.yaml"

password=$(hello get secret redis-password --ignore-not-found -o name)
[ -n "$password" ] || create_password

# The image that was deployed last is noted at the namespace once it works.
old_image=$(kube get namespace hello -o jsonpath='{.metadata.annotations.hello/image-id}')
kube apply -k "$here/../kustomize/overlays/$shape"

# Kubernetes sees neither a new image behind the same tag nor a Secret that is new. Right after the apply: where the
# shape is new as well, a pod that the apply has started is replaced before it counts as ready, and browsers move once.
if [ -n "$already_there" ]; then
  if [ -z "$password" ]; then
    hello rollout restart statefulset/redis deployment/relay deployment/broadcaster
  elif [ "$old_image" != "$new_image" ]; then
    hello rollout restart deployment/relay deployment/broadcaster
  fi
fi

# Redis first, with time to pull its image: the others are ready only once they have reached it.
wait_for statefulset/redis 300
wait_for deployment/broadcaster 180
wait_for deployment/relay 180
kube annotate namespace hello --overwrite "hello/image-id=$new_image" >/dev/null

# Where the driver needs a tunnel, `minikube service` prints the URL and stays; elsewhere it prints the URL and exits. A
# process group of its own (set -m), so that the ssh behind a tunnel ends with it.
output=$(mktemp "${TMPDIR:-/tmp}/hello-url.XXXXXX")
set -m
cluster service hello -n hello --url >"$output" 2>&1 </dev/null &
service=$!
set +m
close_tunnel() {
  exec 2>/dev/null # bash would report the end of the job
  { kill -- "-$service" && wait "$service"; } || true
  rm -f "$output"
}
trap close_tunnel EXIT

url=
deadline=$((SECONDS + 60))
while [ -z "$url" ]; do
  # Asked in this order, or a URL printed in between would be missed.
  running=$(kill -0 "$service" 2>/dev/null && echo yes) || true
  url=$(sed -n 's#.*\(http://[^ ]*:[0-9][0-9]*\).*#\1#p' "$output" | sed -n 1p)
  if [ -z "$url" ]; then
    if [ -z "$running" ] || [ $SECONDS -ge $deadline ]; then
      cat "$output" >&2
      die "hello is deployed, but 'minikube service hello -n hello --url -p $profile' gave no URL: see above."
    fi
    sleep 0.2
  fi
done

deadline=$((SECONDS + 30))
until works "$url"; do
  [ $SECONDS -lt $deadline ] || die "hello is deployed, but $url does not answer with the page and its stream."
  sleep 1
done

if kill -0 "$service" 2>/dev/null; then
  trap 'exit 0' INT
  say "Keep this terminal open: it holds the tunnel. Ctrl-C closes the tunnel, and hello goes on. Open:" "$url"
  wait "$service" ||
    die "minikube closed the tunnel; run 'minikube service hello -n hello --url -p $profile' for a new one."
fi
say "hello runs in the shape '$shape'. Open:" "$url"
