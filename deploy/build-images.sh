#!/usr/bin/env bash
# Builds the image hello:dev inside Minikube, on any container runtime, and checks that Minikube has the new image.
set -euo pipefail

# CDPATH is empty here: the user's own may lead `cd` to another folder of this name.
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/cluster.sh
. "$here/cluster.sh"

usage() {
  cat <<'END'
Usage: deploy/build-images.sh

Builds the image hello:dev inside Minikube and checks that Minikube has it.

  MINIKUBE_PROFILE  the cluster's name; default: minikube
END
}

case ${1-} in
  -h | --help) usage && exit ;;
  '') ;;
  *) usage >&2 && exit 2 ;;
esac

require_cluster

# The tag is new for each build. `minikube image build` exits 0 when the build fails (kubernetes/minikube#12556), so
# that only an image under a new tag shows that the build worked.
built=$image:build-$(date +%Y%m%d%H%M%S)-$$
log "Building hello:dev in Minikube '$profile' ..."
# Every node builds the image, since a pod may start on any node.
cluster image build --all -t "$built" "$here/.." || true
names=$(image_names)
[[ $names == *"$built"* ]] || die "the build failed: see its last lines above."
id=$(image_id "$built")
[ -n "$id" ] || die "'minikube image ls --format json' lists no id for the image $built: update Minikube."

tag_as_dev() {
  cluster image tag "$built" "$image:dev" && [ "$(image_id "$image:dev")" = "$id" ]
}

# containerd does not move an existing tag, and minikube exits 0 nevertheless: this removes the old tag and tags again.
tag_as_dev || { cluster image rm "$image:dev" && tag_as_dev; } ||
  die "the image was built as $built, but could not be tagged as hello:dev."

log "Built hello:dev."
