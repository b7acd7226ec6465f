#!/usr/bin/env bash
# Removes from Minikube all that the other scripts made. Where nothing is left to remove, that is fine.
set -euo pipefail

# Not by the user's CDPATH, which may know another folder of this name.
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/cluster.sh
. "$here/cluster.sh"

usage() {
  cat <<'END'
Usage: deploy/undeploy.sh

Removes hello from Minikube: the namespace with all in it, Redis's data and password included, and the images.

  MINIKUBE_PROFILE  the cluster's name; default: minikube
END
}

case ${1-} in
  -h | --help) usage && exit ;;
  '') ;;
  *) usage >&2 && exit 2 ;;
esac

require_cluster

kube delete namespace hello --ignore-not-found --timeout=180s ||
  die "the namespace is not gone after 180 s: 'kubectl --context $profile get all -n hello' shows what holds it."

# One by one, asking again each time: some runtimes remove every name of an image with its first.
name=$(image_names | sed -n 1p)
while [ -n "$name" ]; do
  cluster image rm "$name" || true
  next=$(image_names | sed -n 1p)
  [ "$next" != "$name" ] ||
    die "hello is gone, but its image $name could not be removed: run this again in a minute, when no pod has it."
  name=$next
done

say "Nothing of hello is left in Minikube '$profile'."
