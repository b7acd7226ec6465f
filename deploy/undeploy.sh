#!/usr/bin/env bash
# Removes from Minikube everything that the other scripts created. It may run again when nothing is left.
set -euo pipefail

# CDPATH is empty here: the user's own may lead `cd` to another folder of this name.
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/cluster.sh
. "$here/cluster.sh"

usage() {
  cat <<'END'
Usage: deploy/undeploy.sh

Removes hello from Minikube: the namespace, Redis's data and password, and the images.

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
  die "the namespace still exists after 180 s: see 'kubectl --context $profile get all -n hello'."

# The script lists the names again after each removal: some runtimes remove all names of an image with the first one.
name=$(image_names | sed -n 1p)
while [ -n "$name" ]; do
  cluster image rm "$name" || true
  next=$(image_names | sed -n 1p)
  [ "$next" != "$name" ] ||
    die "hello is removed, but its image $name is not: run this again in a minute, when no pod uses the image."
  name=$next
done

log "Nothing of hello is left in Minikube '$profile'."
