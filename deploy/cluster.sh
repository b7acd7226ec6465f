# The scripts in this folder source this file, which names the cluster, calls minikube and kubectl for that cluster, and
# prints errors. This file must not know the shapes, nor what is deployed. It needs bash 3.2 (macOS) or newer.
# shellcheck shell=bash

# kubectl's context has the same name as Minikube's profile.
profile=${MINIKUBE_PROFILE:-minikube}

# The name is complete, since not every container runtime expands a short name.
image=docker.io/library/hello

log() {
  printf '%s\n' "$@"
}

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# Every call names its cluster, since kubectl's current context may point at any other cluster.
cluster() {
  minikube -p "$profile" "$@"
}

kube() {
  kubectl --context "$profile" "$@"
}

# require_cluster: returns if Minikube runs and kubectl's context points at it; ends the script otherwise.
require_cluster() {
  local tool status
  for tool in minikube kubectl curl; do
    command -v "$tool" >/dev/null ||
      die "$tool is missing: install it and put it on the PATH (deploy/README.md, Prerequisites)."
  done

  # The exit code shows only that something is wrong; the status shows what. Minikube may print other lines around the status.
  status=$(cluster status --format '{{.Host}}/{{.APIServer}}/{{.Kubeconfig}}' 2>/dev/null) || true
  case $status in
    *Running/Running/Configured*) ;;
    *Running/*/Misconfigured*)
      die "kubectl's context '$profile' does not point at Minikube: run 'minikube update-context -p $profile'."
      ;;
    *Running/Paused/*)
      die "Minikube '$profile' is paused: run 'minikube unpause -p $profile'."
      ;;
    *Running/*)
      die "Minikube '$profile' runs, but Kubernetes in it does not: run 'minikube start -p $profile'."
      ;;
    *Stopped/*)
      die "Minikube '$profile' is stopped: run 'minikube start -p $profile'."
      ;;
    *)
      die "there is no Minikube '$profile': run 'minikube start -p $profile', or set MINIKUBE_PROFILE."
      ;;
  esac

  kube get --raw /version --request-timeout=10s >/dev/null ||
    die "kubectl does not reach Minikube '$profile': run 'minikube update-context -p $profile'."
}

# image_names: prints the complete name of each image of hello in the cluster, one per line.
image_names() {
  cluster image ls | awk -v name="$image:" 'index($0, name) == 1'
}

# image_id NAME: prints the id of the image with this complete name, and nothing if there is none. Each node builds the
# image for itself, so that the ids may differ between nodes: then it prints all ids, sorted, on one line.
image_id() {
  cluster image ls --format json | tr -d '\n' | tr '{' '\n' |
    awk -v name="\"$1\"" 'index($0, name) && match($0, /"id": *"[^"]*"/) {
      split(substr($0, RSTART, RLENGTH), part, "\"")
      print part[4]
    }' |
    sort -u | paste -s -d ' ' -
}
