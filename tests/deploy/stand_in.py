"""Plays minikube and kubectl for the scripts in deploy/: its first argument says which of them.

Its cluster is one JSON file, named by STAND_IN, that a test writes before and reads after. It knows nothing of what the
scripts are for, and plays only as much of each command as they use, the traps included.
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

STAYS = -1  # a tunnel ends when it is told to

# A cluster that runs and holds nothing. A test changes what its story needs.
FRESH: Cluster = {
    "calls": [],  # what was called, word by word
    "status": "Running/Running/Configured",  # host, API server, kubectl's context; empty: no such cluster
    "reachable": True,
    "source": "first",  # what the checkout holds: another source is another image
    "build_works": True,
    "tags_move": True,  # containerd: no
    "removable": True,  # a container that has ended may still hold its image
    "json": "compact",  # how `image ls --format json` writes it: compact, indented or odd (without the ids)
    "images": {},  # name: id
    "objects": [],  # workloads that run
    "secret": "",  # what `kubectl create` was given
    "noted_image": "",  # the annotation at the namespace
    "rollout_works": True,
    "url": "",  # what `minikube service --url` prints
    "tunnel": False,  # whether it then stays
    "tunnel_seconds": 120,  # how long, if nobody ends it: longer than a test waits
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
                print("ERROR: failed to solve: the build says why", file=sys.stderr)
        case ["image", "tag", name, new]:
            if cluster["tags_move"] or new not in images:
                images[new] = images[name]
        case ["image", "rm", _] if not cluster["removable"]:
            print("Error response from daemon: conflict: a stopped container uses it", file=sys.stderr)
            return 1
        case ["image", "rm", name]:
            # containerd removes every name of the image with it.
            gone = [name] if cluster["tags_move"] else [other for other in images if images[other] == images[name]]
            for each in gone:
                del images[each]
        case ["image", "ls", "--format", "json"]:
            ids = dict.fromkeys(images.values())
            key = "digest" if cluster["json"] == "odd" else "id"
            rows = [{key: i, "repoTags": [name for name in images if images[name] == i]} for i in ids]
            print(json.dumps(rows, indent=2 if cluster["json"] == "indented" else None))
        case ["image", "ls"]:
            print("\n".join(["docker.io/library/redis:8-alpine", *images]))
        case ["service", *_]:
            print(cluster["url"], flush=True)
            if cluster["tunnel"]:
                return STAYS
        case _:
            return unknown(words)
    return 0


def kubectl(cluster: Cluster, words: list[str]) -> int:
    # The script's own kubectl may name a namespace as well.
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
            cluster["noted_image"] = annotation.partition("=")[2]
        case ["get", "deployments,statefulsets", *_]:
            print("\n".join(cluster["objects"]))
        case ["get", "secret", *_]:
            print("secret/redis-password" if cluster["secret"] else "")
        case ["create", *_]:
            cluster["secret"] = sys.stdin.read()
        case ["get", "namespace", *_]:
            print(cluster["noted_image"])
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
            cluster |= {"objects": [], "secret": "", "noted_image": ""}
        case _:
            return unknown(words)
    return 0


def unknown(words: list[str]) -> int:
    print("the stand-in does not know:", *words, file=sys.stderr)
    return 99


def main() -> int:
    name, *words = sys.argv[1:]
    with Path(os.environ["STAND_IN"]).open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        cluster = json.load(file)
        cluster["calls"].append([name, *words])
        code = (minikube if name == "minikube" else kubectl)(cluster, words)
        file.seek(0)
        file.truncate()
        json.dump(cluster, file)
    if code == STAYS:
        signal.alarm(cluster["tunnel_seconds"])
        signal.pause()
    return code


if __name__ == "__main__":
    sys.exit(main())
