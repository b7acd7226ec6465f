"""A fake minikube and kubectl for the tests of deploy/*.sh: the first argument is the name of the program.

A test writes the fake cluster to a JSON file before a script runs and reads the file afterwards; FAKE_CLUSTER holds the
file's path. The fake supports only the commands that the scripts use, with the faults that minikube really has.
"""

# ruff: noqa: T201 # a command prints

import fcntl
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

Cluster = dict[str, Any]

KEEPS_RUNNING = -1  # instead of an exit code: a tunnel runs until a signal ends it

# A cluster that runs and is empty. A test changes the fields that it needs.
FRESH: Cluster = {
    "calls": [],  # each call as a list of words
    "status": "Running/Running/Configured",  # host, API server, kubectl's context; empty if there is no cluster
    "reachable": True,
    "source": "first",  # the content of the checkout: another source gives an image with another id
    "build_works": True,
    "tags_move": True,  # False as on containerd, where `image tag` leaves an existing tag unchanged
    "removable": True,  # False if a stopped container still uses the image
    "json": "compact",  # the layout of `image ls --format json`: compact, indented or without_ids
    "images": {},  # name: id
    "objects": [],  # the workloads that run
    "redis_pod": "",  # its name, and whether it is ready: `redis-0 True`
    "secret": "",  # the input of `kubectl create`
    "image_annotation": "",  # of the namespace
    "rollout_works": True,
    "url": "",  # the output of `minikube service --url`
    "tunnel": False,  # True if `minikube service` then keeps running
    "tunnel_seconds": 120,  # until the tunnel ends by itself: longer than a test waits
}


def minikube(cluster: Cluster, words: list[str]) -> int:
    images = cluster["images"]
    match words[2:]:  # after -p PROFILE
        case ["status", *_]:
            print(cluster["status"] or "Profile not found. To start a cluster, run: minikube start")
            return 0 if cluster["status"] == FRESH["status"] else 85
        case ["image", "build", *_, "-t", tag, _]:
            if cluster["build_works"]:
                images[tag] = f"the id of the {cluster['source']}"
            else:
                print("ERROR: failed to solve", file=sys.stderr)
        case ["image", "tag", name, new]:
            if cluster["tags_move"] or new not in images:
                images[new] = images[name]
        case ["image", "rm", _] if not cluster["removable"]:
            print("Error response from daemon: conflict: a stopped container uses it", file=sys.stderr)
            return 1
        case ["image", "rm", name]:
            # containerd removes all names of the image.
            removed = [name] if cluster["tags_move"] else [other for other in images if images[other] == images[name]]
            for each in removed:
                del images[each]
        case ["image", "ls", "--format", "json"]:
            ids = dict.fromkeys(images.values())
            key = "digest" if cluster["json"] == "without_ids" else "id"
            rows = [{key: i, "repoTags": [name for name in images if images[name] == i]} for i in ids]
            print(json.dumps(rows, indent=2 if cluster["json"] == "indented" else None))
        case ["image", "ls"]:
            print("\n".join(["docker.io/library/redis:8-alpine", *images]))
        case ["service", *_]:
            print(cluster["url"], flush=True)
            if cluster["tunnel"]:
                return KEEPS_RUNNING
        case _:
            return unsupported(words)
    return 0


def kubectl(cluster: Cluster, words: list[str]) -> int:
    # Some calls name a namespace too.
    match words[4:] if words[2] == "-n" else words[2:]:  # after --context CONTEXT
        case _ if not cluster["reachable"]:
            return 1
        case ["get", "--raw", *_]:
            pass
        case ["apply", "-f", path] if Path(path).is_file():
            pass
        case ["apply", "-k", path] if Path(path).is_dir():
            cluster["objects"] = ["statefulset/redis", "deployment/relay", "deployment/broadcaster"]
        case ["annotate", "namespace", "hello", "--overwrite", annotation]:
            cluster["image_annotation"] = annotation.partition("=")[2]
        case ["get", "deployments,statefulsets", *_]:
            print("\n".join(cluster["objects"]))
        case ["get", "pod", "redis-0", *_]:
            print(cluster["redis_pod"])
        case ["delete", "pod", "redis-0", *_]:
            cluster["redis_pod"] = ""
        case ["get", "secret", *_]:
            print("secret/redis-password" if cluster["secret"] else "")
        case ["create", *_]:
            cluster["secret"] = sys.stdin.read()
        case ["get", "namespace", *_]:
            print(cluster["image_annotation"])
        case ["get", "pods", "-o", "name"]:
            print("pod/relay-1")
        case ["get", "pods" | "events" as what, *_]:
            print(f"the {what} of the namespace")
        case ["logs", pod, *options]:
            print(f"the {'previous ' if '--previous' in options else ''}log of {pod}")
        case ["rollout", "status", *_]:
            return 0 if cluster["rollout_works"] else 1
        case ["rollout", "restart", *_]:
            pass
        case ["delete", "namespace", *_]:
            cluster |= {"objects": [], "secret": "", "image_annotation": ""}
        case _:
            return unsupported(words)
    return 0


def unsupported(words: list[str]) -> int:
    print("the fake cluster does not support:", *words, file=sys.stderr)
    return 99


def main() -> int:
    name, *words = sys.argv[1:]
    with Path(os.environ["FAKE_CLUSTER"]).open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        cluster = json.load(file)
        cluster["calls"].append([name, *words])
        code = (minikube if name == "minikube" else kubectl)(cluster, words)
        file.seek(0)
        file.truncate()
        json.dump(cluster, file)
    if code == KEEPS_RUNNING:
        signal.alarm(cluster["tunnel_seconds"])
        signal.pause()
    return code


if __name__ == "__main__":
    sys.exit(main())
