"""The components for Redis, over either shape: the kustomizations of deploy/README.md, as a whole.

`python -m tests.lint` validates each object, and by checkov that each pod has few rights.
"""

import re
from typing import Any

import pytest

from tests.deploy.manifests import SHAPES, Object, build, leaves, overlay, render
from tests.deploy.network_policies import Peer, allowed

OURS = ("relay", "broadcaster")
SERVERS = ("redis", "sentinel")
REDIS = "/StatefulSet/redis/spec"


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def sentinel(shape: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Object]:
    return build(overlay(tmp_path_factory.mktemp("sentinel"), shape, "sentinel"))


@pytest.fixture(scope="module")
def external(shape: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Object]:
    return build(overlay(tmp_path_factory.mktemp("external"), shape, "external redis"))


def pod(objects: dict[str, Object], name: str) -> Any:
    return objects[f"StatefulSet/{name}"]["spec"]["template"]["spec"]


def config(objects: dict[str, Object], name: str) -> dict[str, str]:
    (found,) = (each for each in objects if each.startswith(f"ConfigMap/{name}-"))
    return dict(objects[found]["data"])


def channel(objects: dict[str, Object], name: str) -> dict[str, Any]:
    """The variables that differ from those of the plain shape, by their names."""
    (container,) = objects[f"Deployment/{name}"]["spec"]["template"]["spec"]["containers"]
    (plain,) = render()[f"Deployment/{name}"]["spec"]["template"]["spec"]["containers"]
    return {
        each["name"]: each for each in container["env"] if each not in plain["env"] and "ACTORS" not in each["name"]
    }


def connections(objects: dict[str, Object]) -> set[tuple[str, str, str]]:
    """Who may connect to whom, and at which port: what both the one's and the other's network policies allow."""
    workloads = {name: each for name, each in objects.items() if name.startswith(("Deployment/", "StatefulSet/"))}
    labels = {
        name.rpartition("/")[2]: each["spec"]["template"]["metadata"]["labels"] for name, each in workloads.items()
    }
    # Pods of one workload may connect to each other, too.
    peers = [Peer(name + suffix, labels[name], "hello") for name in labels for suffix in ("", "-1")]
    peers += [Peer("new pod", {"app": "new"}, "hello"), Peer("outside", {}, "")]
    policies = [each["spec"] for each in objects.values() if each["kind"] == "NetworkPolicy"]
    ports = ["TCP 6379", "TCP 26379", "TCP 16379", "TCP 443"]
    out = allowed("Egress", policies, "hello", peers, ports)
    into = {(one, other, port) for other, one, port in allowed("Ingress", policies, "hello", peers, ports)}
    found = {each for each in out if each in into or each[1] == "outside"}
    return {(one.removesuffix("-1"), other.removesuffix("-1"), port) for one, other, port in found}


def test_sentinel_is_an_addition(shape: str, sentinel: dict[str, Object]) -> None:
    """Nothing else of the shape changes: so the component may be applied over it, and the first volume is kept."""
    plain, found = leaves(render(shape)), leaves(sentinel)
    changed = {path for path in plain if not path.startswith("/ConfigMap/") and found.get(path, 0) != plain[path]}
    container = f"{REDIS}/template/spec/containers/redis"
    assert {path for path in changed if "/Deployment/" not in path} == {
        f"{REDIS}/replicas",
        f"{container}/command/0",
        f"{container}/command/1",
        *(f"{container}/readinessProbe/exec/command/{n}" for n in range(3)),
        f"{container}/startupProbe/failureThreshold",
        f"{REDIS}/template/spec/volumes/config/projected/sources/0/configMap/name",
        "/PodDisruptionBudget/redis/spec/unhealthyPodEvictionPolicy",
    }
    for name in OURS:
        assert channel(sentinel, name)["HELLO_REPLICAS_ACK"]["value"] == "1"
    assert sentinel["StatefulSet/redis"]["spec"]["podManagementPolicy"] == "Parallel"
    for each in sentinel.values():
        assert each["metadata"]["labels"]["app.kubernetes.io/part-of"] == "hello"
        assert each["metadata"].get("namespace", each["metadata"]["name"]) == "hello"


@pytest.mark.parametrize("name", SERVERS)
def test_names(sentinel: dict[str, Object], name: str) -> None:
    """Each Redis and each sentinel has a name with one address for ever, at which it is found before it is ready."""
    spec = sentinel[f"StatefulSet/{name}"]["spec"]
    assert spec["replicas"] == 3
    (port,) = spec["template"]["spec"]["containers"][0]["ports"]
    for n in range(3):
        service = sentinel[f"Service/{name}-{n}"]["spec"]
        assert service.get("clusterIP") != "None"
        assert service["publishNotReadyAddresses"] is True
        one = {"statefulset.kubernetes.io/pod-name": f"{name}-{n}"}
        assert service["selector"] == {**spec["selector"]["matchLabels"], **one}
        (found,) = service["ports"]
        assert (found["port"], found["targetPort"]) == (port["containerPort"], port["name"])
    budget = sentinel[f"PodDisruptionBudget/{name}"]["spec"]
    assert (budget["maxUnavailable"], budget["selector"]) == (1, spec["selector"])


def test_url_of_sentinels(sentinel: dict[str, Object]) -> None:
    """Clients, Redis and sentinels know the same primary by one name, and a majority decides who it is."""
    hosts = ",".join(f"sentinel-{n}" for n in range(3))
    for name in OURS:
        assert channel(sentinel, name)["HELLO_CHANNEL"]["value"] == f"redis+sentinel://{hosts}/hello"
    files = config(sentinel, "sentinel-config")
    assert re.findall("^sentinel monitor .*", files["sentinel.conf"], re.MULTILINE) == [
        "sentinel monitor hello redis-0 6379 2"
    ]
    assert set(re.findall(r"sentinel-\d", config(sentinel, "redis-config")["redis.sh"])) == set(hosts.split(","))


def test_network_policies(sentinel: dict[str, Object], external: dict[str, Object]) -> None:
    """Only what has to connect connects; a Redis of one's own may be anywhere."""
    servers = (("redis", "TCP 6379"), ("sentinel", "TCP 26379"))
    assert connections(sentinel) == {(name, *server) for name in (*OURS, *SERVERS) for server in servers}
    ports = ("TCP 6379", "TCP 26379", "TCP 16379", "TCP 443")
    assert connections(external) == {(name, "outside", port) for name in OURS for port in ports}


def test_external_redis(shape: str, external: dict[str, Object]) -> None:
    """Nothing of the Redis here is left, and the URL comes from a ConfigMap whose change restarts the pods."""
    gone = {name for name in render(shape) if name not in external}
    assert {re.sub("-[0-9a-z]{10}$", "", name) for name in gone} == {
        *("StatefulSet/redis", "Service/redis", "Service/redis-client", "ServiceAccount/redis"),
        *("PodDisruptionBudget/redis", "NetworkPolicy/redis", "ConfigMap/redis-config"),
    }
    (added,) = external.keys() - render(shape).keys()
    assert re.fullmatch("ConfigMap/external-redis-[0-9a-z]{10}", added)
    for name in OURS:
        reference = {"configMapKeyRef": {"name": external[added]["metadata"]["name"], "key": "url"}}
        assert channel(external, name) == {"HELLO_CHANNEL": {"name": "HELLO_CHANNEL", "valueFrom": reference}}
