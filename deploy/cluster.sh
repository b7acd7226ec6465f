# Sourced by the scripts beside it: which cluster they speak to, how they ask it, and how they fail.
# It must not know the shapes, nor what is deployed. For bash 3.2 (macOS) and newer.
# shellcheck shell=bash

# Minikube's profile is the name of kubectl's context as well.
profile=${MINIKUBE_PROFILE:-minikube}

# The name in full: not every container runtime completes a short one.
image=docker.io/library/hello

say() {
  printf '%s\n' "$@"
}

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# Every call names its cluster: the context that happens to be current may be anybody's.
cluster() {
  minikube -p "$profile" "$@"
}

kube() {
  kubectl --context "$profile" "$@"
}

# require_cluster: returns when Minikube runs and kubectl's context is Minikube's; ends the script otherwise.
require_cluster() {
  local tool status
  for tool in minikube kubectl curl; do
    command -v "$tool" >/dev/null ||
      die "$tool is missing: install it and put it on the PATH (README.md, Prerequisites)."
  done

  # The exit code says no more than that something is wrong; the words say what. Other output may stand around them.
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
      die "there is no Minikube '$profile': run 'minikube start -p $profile', or name yours in MINIKUBE_PROFILE."
      ;;
  esac

  kube get --raw /version --request-timeout=10s >/dev/null ||
    die "kubectl does not reach Minikube '$profile': run 'minikube update-context -p $profile'."
}

# image_names prints the full name of each of our images that the cluster holds, one a line.
image_names() {
  cluster image ls | awk -v name="$image:" 'index($0, name) == 1'
}

# image_id NAME prints the id behind the full name, and nothing where there is none. Nodes that built the image each for
# themselves may hold different ones: then it prints them all, in one order.
image_id() {
  cluster image ls --format json | tr -d '\n' | tr '{' '\n' |
    awk -v name="\"$1\"" 'index($0, name) && match($0, /"id": *"[^"]*"/) {
      split(substr($0, RSTART, RLENGTH), part, "\"")
      print part[4]
    }' |
    sort -u | paste -s -d ' ' -
}
