"""What both overlays render, as a whole: who reaches whom, sums of times, memory and requests, the switch of shapes.

`python -m tests.lint` validates each object against Kubernetes' schemas, and by checkov that each pod has few rights.
The shapes differ in three values alone (`test_switch`), so that most tests read the shape `split`.
"""

import os
import re
import subprocess
import tomllib
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate  # type: ignore[import-untyped] # it brings no types
import pytest
import redis
import yaml

from hello.lease import RELEASE_SECONDS
from hello.metrics import Metrics
from hello.settings import Settings, load
from hello.system import CLOSE_SECONDS
from hello.web.http_protocol import MAX_UNSENT
from hello.web.server import GRACE_SECONDS
from tests.deploy.manifests import SHAPES, Object, build, leaves, overlay, quantity, render
from tests.deploy.network_policies import Peer, allowed
from tests.deploy.tools import KUBERNETES_VERSIONS, ROOT, tool
from tests.redis_server import RedisServer

OURS = ("relay", "broadcaster")
WORKLOADS = (*OURS, "redis")
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
SLACK_SECONDS = 10  # for a node so busy that everything takes longer
MEASURED = {"relay": "66Mi", "broadcaster": "58Mi", "redis": "15Mi"}  # with a full history, 1,000 clients at a relay
PROGRAM_BYTES = 84 * 2**20  # an idle relay with a full log and the image's files: 82.3 MiB were measured
STREAM_BYTES = 28 * 2**10  # a client of /events, which costs more than a WebSocket: 27.4 KiB were measured
DEPLOY, SHARED = ((ROOT / "deploy" / name).read_text() for name in ("deploy.sh", "cluster.sh"))


def spec(name: str, shape: str = "split") -> Any:
    """The spec of a workload, or of the KIND/NAME."""
    kind = "StatefulSet/" if name == "redis" else "Deployment/"
    return render(shape)[name if "/" in name else kind + name]["spec"]


def pod(name: str, shape: str = "split") -> Any:
    return spec(name, shape)["template"]["spec"]


def container(name: str, shape: str = "split") -> Any:
    (only,) = pod(name, shape)["containers"]
    return only


def labels(name: str) -> dict[str, str]:
    return dict(spec(name)["template"]["metadata"]["labels"])


def ports(name: str) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container(name)["ports"]}


def settings(name: str, monkeypatch: pytest.MonkeyPatch, shape: str = "split") -> Settings:
    """The settings of the program in the pod `NAME-1`, without a Secret. Raises if the program would reject them."""
    for variable in container(name, shape)["env"]:
        if "value" in variable:
            monkeypatch.setenv(variable["name"], variable["value"])
        elif variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}:
            monkeypatch.setenv(variable["name"], f"{name}-1")
    return load()


def test_switch() -> None:
    """The shapes differ in three values and in no object, so that applying one over the other leaves nothing behind."""
    split, combined = (leaves(render(shape)) for shape in SHAPES)
    assert split.keys() == combined.keys()
    assert {key: (split[key], combined[key]) for key in split if split[key] != combined[key]} == {
        "/Deployment/relay/spec/replicas": (2, 1),
        "/Deployment/broadcaster/spec/replicas": (1, 0),
        "/Deployment/relay/spec/template/spec/containers/hello/env/HELLO_ACTORS/value": ("relay", "broadcaster,relay"),
    }


def test_immutable_fields() -> None:
    """Kubernetes rejects a change of these fields: with other values here, no installation could apply an update."""
    component = {name: {"app.kubernetes.io/name": "hello", "app.kubernetes.io/component": name} for name in OURS}
    for name, selector in (component | {"redis": {"app.kubernetes.io/name": "redis"}}).items():
        assert spec(name)["selector"] == {"matchLabels": selector}
        assert labels(name).items() >= selector.items()
    assert spec("redis")["serviceName"] == "redis"
    assert "podManagementPolicy" not in spec("redis")
    (claim,) = spec("redis")["volumeClaimTemplates"]
    assert claim["metadata"] == {"name": "data"}
    assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    assert (spec("Service/redis")["clusterIP"], spec("Service/hello").get("clusterIP")) == ("None", None)


def test_labels() -> None:
    """One label selects all objects and all pods; our workloads and their pods have the program's version."""
    workloads = [spec(name)["template"] for name in WORKLOADS]
    for each in (*render().values(), *workloads):
        assert each["metadata"]["labels"]["app.kubernetes.io/part-of"] == "hello"
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name in OURS:
        for each in (render()[f"Deployment/{name}"], spec(name)["template"]):
            assert each["metadata"]["labels"]["app.kubernetes.io/version"] == version


@pytest.mark.parametrize("name", WORKLOADS)
def test_selectors(name: str) -> None:
    """Whatever selects the pods does it as their workload does; the ports of their Service exist."""
    of_pods = spec(name)["selector"]
    budget = {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": of_pods}
    assert spec(f"PodDisruptionBudget/{name}") == budget
    assert f"ServiceAccount/{pod(name)['serviceAccountName']}" == f"ServiceAccount/{name}" in render()
    if name != "broadcaster":
        service = spec("Service/hello" if name == "relay" else "Service/redis")
        assert service["selector"] == of_pods["matchLabels"]
        assert {port["targetPort"] for port in service["ports"]} <= ports(name).keys()
    if name == "relay":  # relays prefer different nodes, and all start on a single one
        (spread,) = pod(name)["topologySpreadConstraints"]
        assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
        (apart,) = pod(name)["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
        for rule in (spread, apart["podAffinityTerm"]):
            assert (rule["topologyKey"], rule["labelSelector"]) == ("kubernetes.io/hostname", of_pods)


@pytest.mark.parametrize("shape", SHAPES)
def test_settings(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program accepts each pod's environment; one broadcaster runs, and a relay in each pod of the Service.

    The channel's name has one address for ever: of a headless Service resolvers cache the address, or its absence.
    """
    broadcasters = 0
    for name in OURS:
        found = settings(name, monkeypatch, shape)
        assert ("relay" in found.actors) == (name == "relay")
        broadcasters += ("broadcaster" in found.actors) * spec(name, shape)["replicas"]
        assert found.instance == f"{name}-1"
        assert (found.port, found.ops_port) == (ports("relay")["http"], ports(name)["ops"])
        channel = urlsplit(found.channel)
        service = spec(f"Service/{channel.hostname}")
        assert "clusterIP" not in service
        assert service["selector"] == spec("redis")["selector"]["matchLabels"]
        assert channel.port in [port["port"] for port in service["ports"]]
    assert broadcasters == 1


@pytest.mark.parametrize("name", WORKLOADS)
def test_pod(name: str) -> None:
    """A pod complies with `restricted` also where checkov does not look, and has no variables of Services."""
    assert pod(name)["securityContext"]["runAsNonRoot"] is True
    assert {kind for volume in pod(name)["volumes"] for kind in volume} <= {"name", "emptyDir", "projected"}
    assert {"name": "tmp", "mountPath": "/tmp"} in container(name)["volumeMounts"]  # the root is read-only
    assert pod(name)["enableServiceLinks"] is False  # HELLO_PORT would be the URL of the Service hello


def test_scripts() -> None:
    """The overlays have what scripts and README name: image, workloads, Service, and a `restricted` namespace."""
    (image,) = re.findall(r"^image=docker.io/library/(.*)$", SHARED, re.MULTILINE)
    for name in OURS:
        assert (container(name)["image"], container(name)["imagePullPolicy"]) == (f"{image}:dev", "IfNotPresent")
    assert set(re.findall(r"deployment/\w+|statefulset/\w+", DEPLOY)) < {name.lower() for name in render()}
    (port,) = spec("Service/hello")["ports"]
    assert (spec("Service/hello")["type"], port["port"], port.get("nodePort")) == ("NodePort", 80, None)
    first = next(iter(render().values()))
    assert first == yaml.safe_load((ROOT / "kustomize" / "base" / "namespace.yaml").read_text())
    modes = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    assert first["metadata"]["labels"].items() >= modes.items()
    assert {each["metadata"].get("namespace", each["metadata"]["name"]) for each in render().values()} == {"hello"}


def autoscaled(tmp_path: Path, shape: str, *more: str) -> tuple[Any, dict[str, Object]]:
    """The autoscaler's spec, and the other objects, of the kustomization in the README over this shape."""
    objects = build(overlay(tmp_path, shape, "autoscaled", *more))
    scaler = objects.pop("HorizontalPodAutoscaler/relay")
    for version in KUBERNETES_VERSIONS:
        assert kubernetes_validate.validate(scaler, version, strict=True) == version
    assert scaler["metadata"]["namespace"] == "hello"
    return scaler["spec"], objects


@pytest.mark.parametrize("shape", SHAPES)
def test_autoscaler(shape: str, tmp_path: Path) -> None:
    """The autoscaler alone sets the number of relays, and removes them slowly, since each removal moves clients."""
    scaler, objects = autoscaled(tmp_path, shape)
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "relay"}
    assert "replicas" not in objects["Deployment/relay"]["spec"]
    objects["Deployment/relay"]["spec"]["replicas"] = spec("relay", shape)["replicas"]
    assert objects == render(shape)
    (metric,) = scaler["metrics"]
    assert quantity(metric["resource"]["target"]["averageValue"]) < Decimal("0.7")  # of the one core that a relay uses
    assert scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 600
    assert scaler["behavior"]["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 300}]


def test_autoscaler_by_clients(tmp_path: Path) -> None:
    """The README's example scales by a metric that exists, below the limit of one relay."""
    scaler, _ = autoscaled(tmp_path, "split", "by clients")
    (metric,) = scaler["metrics"]
    assert metric["pods"]["metric"]["name"] in {family.name for family in Metrics().registry.collect()}
    assert quantity(metric["pods"]["target"]["averageValue"]) < Settings.model_fields["max_clients"].default


@pytest.mark.parametrize(("resource", "room"), [("cpu", "150m"), ("memory", "450Mi"), ("ephemeral-storage", "1Gi")])
def test_requests(resource: str, room: str) -> None:
    """A pod requests what it takes, and a small Minikube has room for a rollout: all old pods beside all new ones."""
    total = Decimal()
    for name in WORKLOADS:
        replicas: int = max(spec(name, shape)["replicas"] for shape in SHAPES)
        request, limit = (quantity(container(name)["resources"][kind][resource]) for kind in ("requests", "limits"))
        assert 0 < request <= limit
        assert resource != "memory" or request >= quantity(MEASURED[name])
        total += request * (replicas if name == "redis" else 2 * replicas)  # Redis's pod is replaced in place
        for volume in pod(name)["volumes"]:
            assert "emptyDir" not in volume or quantity(volume["emptyDir"]["sizeLimit"]) <= quantity("64Mi")
    assert total < quantity(room)


def test_memory_for_max_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full relay of slow clients stays below its limit; unread bytes are half in the program, half in the kernel."""
    needed = PROGRAM_BYTES + settings("relay", monkeypatch).max_clients * (STREAM_BYTES + 2 * MAX_UNSENT)
    assert needed < quantity(container("relay")["resources"]["limits"]["memory"]) < 1.5 * needed


@pytest.mark.parametrize("name", OURS)
def test_grace_period(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pod is killed before it has drained; the delay of a relay's drain is tested with its rollout."""
    pre_stop = container(name).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    found = settings(name, monkeypatch)
    delay = pre_stop + found.drain_delay
    needed = delay + found.drain_seconds + RELEASE_SECONDS + CLOSE_SECONDS + GRACE_SECONDS + SLACK_SECONDS
    assert needed <= pod(name)["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("name", OURS)
def test_rollout(name: str) -> None:
    """New pods start at once, before an old one stops; a stuck rollout is reported while deploy.sh still waits."""
    assert spec(name)["strategy"]["rollingUpdate"] == {"maxSurge": "100%", "maxUnavailable": 0}
    assert spec(name)["minReadySeconds"] >= 3
    (waits,) = re.findall(rf"^wait_for deployment/{name} (\d+)$", DEPLOY, re.MULTILINE)
    assert 30 < spec(name)["progressDeadlineSeconds"] < int(waits)


@pytest.mark.parametrize("name", WORKLOADS)
def test_probes(name: str) -> None:
    """A start may take 30 s; a failed pod is unready after 6 s, restarted after 30 s, but not since Redis is down."""
    probes = [container(name)[kind] for kind in PROBES]
    assert [(probe["periodSeconds"], probe["failureThreshold"]) for probe in probes] == [(1, 30), (3, 2), (10, 3)]
    if name in OURS:
        assert [probe["httpGet"]["path"] for probe in probes] == ["/livez", "/readyz", "/livez"]
        assert {probe["httpGet"]["port"] for probe in probes} == {"ops"}
        annotations = spec(name)["template"]["metadata"]["annotations"]
        scraped = {"scrape": "true", "port": str(ports(name)["ops"]), "path": "/metrics"}
        assert annotations.items() >= {f"prometheus.io/{key}": value for key, value in scraped.items()}.items()


def test_network_policies() -> None:
    """Redis accepts its clients, the relay everyone, the ops port Prometheus; our pods reach Redis and DNS."""
    prometheus = {"app.kubernetes.io/name": "prometheus"}
    peers = [Peer(name, labels(name), "hello") for name in WORKLOADS]
    peers += [Peer(f"{name} elsewhere", labels(name), "elsewhere") for name in WORKLOADS]
    peers += [Peer(f"prometheus in {namespace}", prometheus, namespace) for namespace in ("hello", "monitoring")]
    peers += [Peer("new pod", {"app": "new"}, "hello"), Peer("outside", {}, "")]  # a NodePort's traffic is from outside
    ports = ["TCP 6379", "UDP 6379", "TCP 16379", "TCP 8000", "TCP 8001", "UDP 53", "TCP 53", "TCP 443"]
    policies = [each["spec"] for each in render().values() if each["kind"] == "NetworkPolicy"]
    assert allowed("Ingress", policies, "hello", peers, ports) == {
        *(("redis", name, "TCP 6379") for name in OURS),
        *(("relay", peer.name, "TCP 8000") for peer in peers if peer.name != "relay"),
        *((name, peer.name, "TCP 8001") for name in OURS for peer in peers if peer.labels == prometheus),
    }
    others = [(name, peer.name) for name in OURS for peer in peers if peer.name != name]
    assert allowed("Egress", policies, "hello", peers, ports) == {
        *((name, "redis", "TCP 6379") for name in OURS),
        *((*pair, port) for pair in others for port in ("UDP 53", "TCP 53")),
    }


def config() -> str:
    """The rendered redis.conf. Its ConfigMap is named by a hash of it, so that a change restarts Redis's pod."""
    (found,) = (name for name in render() if name.startswith("ConfigMap/"))
    assert re.fullmatch("ConfigMap/redis-config-[0-9a-z]{10}", found)
    return str(render()[found]["data"]["redis.conf"])


def test_redis_storage() -> None:
    """Redis reads the rendered configuration, without the image's entrypoint, and writes to the volume as its group."""
    mounts = {mount["name"]: mount["mountPath"] for mount in container("redis")["volumeMounts"]}
    assert container("redis")["command"] == ["redis-server", f"{mounts['config']}/redis.conf"]
    assert f"\ndir {mounts['data']}\n" in config()
    assert pod("redis")["securityContext"]["fsGroup"] == pod("redis")["securityContext"]["runAsGroup"]
    for service in ("redis", "redis-client"):
        assert spec(f"Service/{service}")["publishNotReadyAddresses"] is True  # hello retries, and logs Redis's reason


def test_password() -> None:
    """Every pod starts without the Secret, reads from it what deploy.sh writes, and no apply overwrites it."""
    found = leaves(render())
    assert not [path for path in found if path.startswith("/Secret/")]
    fields = [(path.rpartition("/")[2], found[path]) for path in found if re.search("/secret(KeyRef)?/", path)]
    used = {("name", "redis-password"): 4, ("optional", True): 4, ("key", "password"): 3, ("key", "auth.conf"): 1}
    assert dict(Counter(fields)) == {**used, ("path", "auth/auth.conf"): 1}
    assert re.search(r"  name: redis-password\nstringData:\n  password: .*\n  auth.conf: requirepass ", DEPLOY)


@pytest.fixture
def configured(redis_server: RedisServer, tmp_path: Path) -> list[str]:
    """The options that start `redis_server` with the rendered configuration, its paths below `tmp_path`."""
    redis_server.kill()
    text = config().replace("/etc/redis", str(tmp_path)).replace("/data", str(tmp_path / "data"))
    (tmp_path / "redis.conf").write_text(text)
    for folder in ("data", "auth"):
        (tmp_path / folder).mkdir()
    return ["--include", str(tmp_path / "redis.conf"), "--bind", "127.0.0.1"]


def test_redis_durability(redis_server: RedisServer, configured: list[str]) -> None:
    """Redis keeps what it acknowledged through a kill, and rejects writes rather than evict entries."""
    redis_server.start(*configured)
    with redis.Redis.from_url(redis_server.url) as client:
        client.xadd("hello", {"text": "Hello world"})
        found = client.config_get("maxmemory-policy", "appendfsync", "maxmemory")
    assert (found["maxmemory-policy"], found["appendfsync"]) == ("noeviction", "always")
    assert 0 < 2 * int(found["maxmemory"]) < quantity(container("redis")["resources"]["limits"]["memory"])
    redis_server.kill()
    redis_server.start(*configured)
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.xlen("hello") == 1


@pytest.mark.parametrize("password", ["", "secret"])
def test_redis_probes(redis_server: RedisServer, configured: list[str], tmp_path: Path, password: str) -> None:
    """Redis's probes succeed with a password and without one, and fail with a wrong one."""
    if password:
        (tmp_path / "auth" / "auth.conf").write_text(f"requirepass {password}\n")
    redis_server.start(*configured, answer=b"-NOAUTH" if password else b"+PONG")
    for kind in PROBES:
        program, *words = container("redis")[kind]["exec"]["command"]
        command = [tool(program, "install Debian's `redis-tools`"), "-p", str(redis_server.port), *words]
        for given, code in (password, 0), ("", 1 if password else 0):
            environment = {**os.environ, "REDISCLI_AUTH": given}
            assert subprocess.run(command, env=environment, check=False, capture_output=True).returncode == code
