#!/usr/bin/env bash
# Builds hello:dev inside Minikube, on whatever container runtime it has, and proves that what was built is there.
set -euo pipefail

# Not by the user's CDPATH, which may know another folder of this name.
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/cluster.sh
. "$here/cluster.sh"

usage() {
  cat <<'END'
Usage: deploy/build-images.sh

Builds the image hello:dev inside Minikube and proves that it is there.

  MINIKUBE_PROFILE  the cluster's name; default: minikube
END
}

case ${1-} in
  -h | --help) usage && exit ;;
  '') ;;
  *) usage >&2 && exit 2 ;;
esac

require_cluster

# A tag that cannot exist yet: `minikube image build` exits 0 when the build fails, and an older image proves nothing.
built=$image:build-$(date +%Y%m%d%H%M%S)-$$
say "Building hello:dev in Minikube '$profile' ..."
# On every node, since a pod may start on any.
cluster image build --all -t "$built" "$here/.." || true
names=$(image_names)
[[ $names == *"$built"* ]] || die "the build failed: its last lines above say why."
id=$(image_id "$built")
[ -n "$id" ] || die "'minikube image ls --format json' does not say which image $built is: update Minikube."

tag_as_dev() {
  cluster image tag "$built" "$image:dev" && [ "$(image_id "$image:dev")" = "$id" ]
}

# containerd leaves a tag where it is, and minikube exits 0 all the same: take the old one away, then tag again.
tag_as_dev || { cluster image rm "$image:dev" && tag_as_dev; } ||
  die "the image was built as $built, but could not be tagged as hello:dev."

say "Built hello:dev."
