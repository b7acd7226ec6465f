"""What both overlays render: valid, one set of objects, and true to the rules that keep browsers attached.

The rules are read off the rendered objects, so that it does not matter which file of kustomize/ says a thing.
"""

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped] # it brings no types
import pytest
import redis
import yaml

from hello.lease import RELEASE_SECONDS
from hello.metrics import Metrics
from hello.settings import PREFIX, Settings
from hello.system import CLOSE_SECONDS
from hello.web.http_protocol import MAX_UNSENT
from hello.web.server import GRACE_SECONDS
from tests.deploy.tools import ROOT, tool
from tests.redis_server import RedisServer

Object = dict[str, Any]

SHAPES = ("split", "combined")
OLDEST, NEWEST = "1.30", "1.37"  # the Kubernetes versions that the manifests are meant for
SLACK_SECONDS = 10  # for a node so busy that everything takes longer
PROGRAM_BYTES = 64 * 2**20  # a relay at rest with a full log, the image's files included: 63.9 MiB were measured
STREAM_BYTES = 28 * 2**10  # a browser on /events, which costs more than a WebSocket: 27.4 KiB were measured
TMP = "/tmp"
README = (ROOT / "README.md").read_text()
REDIS_CLI = "install Debian's `redis-tools`"


def build(folder: Path) -> list[Object]:
    command = [tool("kubectl"), "kustomize", str(folder)]
    return list(yaml.safe_load_all(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


@functools.cache
def render(shape: str) -> list[Object]:
    return build(ROOT / "kustomize" / "overlays" / shape)


def of_kind(shape: str, *kinds: str) -> list[Object]:
    return [thing for thing in render(shape) if thing["kind"] in kinds]


def workloads(shape: str) -> dict[str, Object]:
    return {thing["metadata"]["name"]: thing for thing in of_kind(shape, "Deployment", "StatefulSet")}


def get(shape: str, kind: str, name: str) -> Object:
    (found,) = (thing for thing in of_kind(shape, kind) if thing["metadata"]["name"] == name)
    return found


def pod(workload: Object) -> Object:
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def container(workload: Object) -> Object:
    (only,) = pod(workload)["containers"]
    assert isinstance(only, dict)
    return only


def labels(workload: Object) -> dict[str, str]:
    found: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return found


def variables(workload: Object) -> dict[str, Object]:
    return {variable["name"]: variable for variable in container(workload)["env"]}


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every value of a nested object, empty ones as well, with the path that leads to it."""
    if not value:
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            name = inner.get("name", index) if isinstance(inner, dict) else index
            yield from leaves(inner, f"{path}/{name}")
    else:
        yield path, value


def quantity(text: str) -> Decimal:
    """A Kubernetes quantity such as 25m or 64Mi as a number of cores or bytes."""
    for suffix, factor in (("Mi", 2**20), ("Gi", 2**30), ("m", Decimal("0.001"))):
        if text.endswith(suffix):
            return Decimal(text.removesuffix(suffix)) * factor
    return Decimal(text)


each_shape = pytest.mark.parametrize("shape", SHAPES)


def each_of(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("shape", "name"), [(shape, name) for shape in SHAPES for name in names])


each_of_ours = each_of("relay", "broadcaster")
each_workload = each_of("relay", "broadcaster", "redis")


# The two shapes


@each_shape
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_valid_to_the_letter(shape: str, version: str) -> None:
    for thing in render(shape):
        assert kubernetes_validate.validate(thing, version, strict=True) == version


def test_the_shapes_differ_in_replicas_and_one_variable_so_that_applying_one_over_the_other_switches() -> None:
    """No object is left behind, and nothing that Kubernetes forbids to change is changed."""
    split, combined = (
        {
            (thing["kind"], thing["metadata"]["name"], path): value
            for thing in render(shape)
            for path, value in leaves(thing)
        }
        for shape in SHAPES
    )
    assert split.keys() == combined.keys()
    assert {key: (split[key], combined[key]) for key in split if split[key] != combined[key]} == {
        ("Deployment", "relay", "/spec/replicas"): (2, 1),
        ("Deployment", "broadcaster", "/spec/replicas"): (1, 0),
        ("Deployment", "relay", "/spec/template/spec/containers/hello/env/HELLO_ACTORS/value"): (
            "relay",
            "broadcaster,relay",
        ),
    }


# What Kubernetes lets nobody change, word for word: with another value here, those who have hello could not apply it.
SELECTORS = {
    "relay": {"app.kubernetes.io/name": "hello", "app.kubernetes.io/component": "relay"},
    "broadcaster": {"app.kubernetes.io/name": "hello", "app.kubernetes.io/component": "broadcaster"},
    "redis": {"app.kubernetes.io/name": "redis"},
}
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


@each_shape
def test_what_can_never_be_changed_stays_as_it_was(shape: str) -> None:
    for name, selector in SELECTORS.items():
        assert workloads(shape)[name]["spec"]["selector"] == {"matchLabels": selector}
    spec = workloads(shape)["redis"]["spec"]
    assert spec["serviceName"] == "redis"
    assert "podManagementPolicy" not in spec
    (claim,) = spec["volumeClaimTemplates"]
    assert (claim["metadata"], claim["spec"]) == ({"name": "data"}, CLAIM)
    assert get(shape, "Service", "redis")["spec"]["clusterIP"] == "None"
    assert "clusterIP" not in get(shape, "Service", "hello")["spec"]


@each_workload
def test_a_workload_selects_its_own_pods_by_all_their_labels(shape: str, name: str) -> None:
    workload = workloads(shape)[name]
    assert workload["spec"]["selector"] == {"matchLabels": labels(workload)}


@each_shape
def test_one_pod_speaks_and_only_the_pods_behind_the_service_relay(shape: str) -> None:
    speaking = 0
    for name in ("relay", "broadcaster"):
        workload = workloads(shape)[name]
        actors = variables(workload)["HELLO_ACTORS"]["value"].split(",")
        speaking += workload["spec"]["replicas"] if "broadcaster" in actors else 0
        assert ("relay" in actors) == (name == "relay")
    assert speaking == 1
    assert workloads(shape)["relay"]["spec"]["replicas"] >= 1


@each_shape
def test_the_names_that_people_type(shape: str) -> None:
    assert {(thing["kind"], thing["metadata"]["name"]) for thing in render(shape)} > {
        ("Namespace", "hello"),
        ("Service", "hello"),
        ("Deployment", "relay"),
        ("Deployment", "broadcaster"),
        ("StatefulSet", "redis"),
        ("Service", "redis"),
    }
    for thing in render(shape):
        assert thing["kind"] == "Namespace" or thing["metadata"]["namespace"] == "hello"
    for name in ("relay", "broadcaster"):
        assert container(workloads(shape)[name])["image"] == "hello:dev"


# The autoscaler, which is an option


def autoscaled(tmp_path: Path, shape: str, more: str = "") -> list[Object]:
    """What the kustomization renders that the README gives, over this shape, with `more` added to it."""
    shutil.copytree(ROOT / "kustomize", tmp_path / "kustomize")
    (text,) = re.findall(r"<!-- autoscaled -->\n+```yaml\n(.+?)```", README, re.DOTALL)
    folder = tmp_path / "kustomize" / "overlays" / "autoscaled"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(text.replace("../split", f"../{shape}") + more)
    return build(folder)


@each_shape
def test_the_autoscaler_alone_says_how_many_relays_there_are(shape: str, tmp_path: Path) -> None:
    """Nothing else differs from the shape that it is laid over."""
    rendered = {(thing["kind"], thing["metadata"]["name"]): thing for thing in autoscaled(tmp_path, shape)}
    scaler = rendered.pop(("HorizontalPodAutoscaler", "relay"))
    relay = rendered["Deployment", "relay"]
    assert "replicas" not in relay["spec"]
    relay["spec"]["replicas"] = workloads(shape)["relay"]["spec"]["replicas"]
    assert rendered == {(thing["kind"], thing["metadata"]["name"]): thing for thing in render(shape)}
    assert scaler["metadata"]["namespace"] == relay["metadata"]["namespace"]
    target = scaler["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": relay["apiVersion"], "kind": "Deployment", "name": "relay"}
    for version in (OLDEST, NEWEST):
        assert kubernetes_validate.validate(scaler, version, strict=True) == version


def test_relays_are_added_for_work_that_lasts_and_taken_away_slowly(tmp_path: Path) -> None:
    """Each one that goes moves its browsers."""
    (scaler,) = (thing for thing in autoscaled(tmp_path, "split") if thing["kind"] == "HorizontalPodAutoscaler")
    spec = scaler["spec"]
    assert 2 == spec["minReplicas"] < spec["maxReplicas"]
    (metric,) = spec["metrics"]
    assert metric["resource"]["name"] == "cpu"
    # An amount and no percentage: one process uses one core at most, whatever it requests.
    assert metric["resource"]["target"].keys() == {"type", "averageValue"}
    assert quantity(metric["resource"]["target"]["averageValue"]) < Decimal("0.7")
    down = spec["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] >= 600
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 300}]
    assert spec["behavior"]["scaleUp"]["stabilizationWindowSeconds"] > 0


def test_the_readme_tells_how_to_scale_by_browsers_instead(tmp_path: Path) -> None:
    (text,) = re.findall(r"<!-- by browsers -->\n+```yaml\n(.+?)```", README, re.DOTALL)
    (scaler,) = (t for t in autoscaled(tmp_path, "split", text) if t["kind"] == "HorizontalPodAutoscaler")
    for version in (OLDEST, NEWEST):
        assert kubernetes_validate.validate(scaler, version, strict=True) == version
    (metric,) = scaler["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] in {family.name for family in Metrics().registry.collect()}
    assert quantity(metric["pods"]["target"]["averageValue"]) < Settings.model_fields["max_clients"].default


# Least privilege


@each_shape
def test_the_namespace_comes_first_and_refuses_pods_that_are_not_restricted(shape: str) -> None:
    first = render(shape)[0]
    assert first["kind"] == "Namespace"
    for mode in ("enforce", "warn", "audit"):
        assert first["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] == "restricted"


def test_what_the_scripts_apply_first_is_the_whole_namespace() -> None:
    """Otherwise each run of theirs would take off what the overlay has put on, and put it on again."""
    first = yaml.safe_load((ROOT / "kustomize" / "base" / "namespace.yaml").read_text())
    assert [render(shape)[0] for shape in SHAPES] == [first, first]


@each_workload
def test_every_pod_runs_as_nobody_with_no_rights_of_its_own(shape: str, name: str) -> None:
    spec = pod(workloads(shape)[name])
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == 10001
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["serviceAccountName"] == name
    assert get(shape, "ServiceAccount", name)["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers", "initContainers"} & spec.keys()
    # The other kinds that the restricted profile grants are used by nobody here.
    kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"emptyDir", "projected"}


@each_workload
def test_every_container_can_change_nothing_but_its_own_small_tmp(shape: str, name: str) -> None:
    workload = workloads(shape)[name]
    assert container(workload)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = {mount["mountPath"]: mount["name"] for mount in container(workload)["volumeMounts"]}
    (tmp,) = (volume for volume in pod(workload)["volumes"] if volume["name"] == mounted[TMP])
    assert quantity(tmp["emptyDir"]["sizeLimit"]) <= quantity("64Mi")


@each_workload
def test_every_container_names_its_ports_and_bounds_what_it_uses(shape: str, name: str) -> None:
    it = container(workloads(shape)[name])
    assert all(port.keys() == {"name", "containerPort"} for port in it["ports"])
    assert it["imagePullPolicy"] == "IfNotPresent"
    assert it["image"].partition(":")[2] not in {"", "latest"}
    for resource in ("cpu", "memory", "ephemeral-storage"):
        assert 0 < quantity(it["resources"]["requests"][resource]) <= quantity(it["resources"]["limits"][resource])


@pytest.mark.parametrize(("resource", "room"), [("cpu", "150m"), ("memory", "300Mi")])
def test_a_small_minikube_has_room_for_everything_while_all_of_it_is_rolled_or_switched(
    resource: str, room: str
) -> None:
    """A pod that drains counts until it has gone, so that all old pods may stand beside all new ones, of either shape.

    Redis is replaced in its place.
    """
    requests = Decimal()
    for name in SELECTORS:
        both = [workloads(shape)[name] for shape in SHAPES]
        replicas: int = max(workload["spec"]["replicas"] for workload in both)
        pods = replicas if name == "redis" else 2 * replicas
        requests += pods * max(quantity(container(workload)["resources"]["requests"][resource]) for workload in both)
    assert requests < quantity(room)


@each_shape
def test_a_relay_has_memory_for_as_many_browsers_as_it_lets_in_however_slow_they_are(shape: str) -> None:
    """What a slow one has not read waits half in the program and half in the kernel; both count."""
    relay = workloads(shape)["relay"]
    default = Settings.model_fields["max_clients"].default
    browsers = int(variables(relay).get("HELLO_MAX_CLIENTS", {}).get("value", default))
    needed = PROGRAM_BYTES + browsers * (STREAM_BYTES + 2 * MAX_UNSENT)
    # A limit far above would not be one.
    assert needed < quantity(container(relay)["resources"]["limits"]["memory"]) < 1.5 * needed


# Start and stop


@each_of_ours
def test_our_settings_are_known_to_the_program(shape: str, name: str) -> None:
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    assert {variable for variable in variables(workloads(shape)[name]) if variable.startswith(PREFIX)} <= known


@each_of_ours
def test_every_message_names_the_pod_that_it_passed(shape: str, name: str) -> None:
    where = variables(workloads(shape)[name])["HELLO_INSTANCE"]["valueFrom"]
    assert where == {"fieldRef": {"fieldPath": "metadata.name"}}


@each_workload
def test_no_variable_is_pieced_together_since_a_missing_part_would_stay_as_it_stands(shape: str, name: str) -> None:
    assert not any("$(" in variable.get("value", "") for variable in variables(workloads(shape)[name]).values())


@each_workload
def test_probes_are_quick_to_see_a_start_and_slow_to_restart(shape: str, name: str) -> None:
    it = container(workloads(shape)[name])
    timings = {
        probe: (it[probe]["periodSeconds"], it[probe]["failureThreshold"])
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert timings == {"startupProbe": (1, 30), "readinessProbe": (3, 2), "livenessProbe": (10, 3)}


@each_of_ours
def test_our_probes_ask_the_operators_port_and_liveness_never_depends_on_redis(shape: str, name: str) -> None:
    it = container(workloads(shape)[name])
    assert {port["name"]: port["containerPort"] for port in it["ports"]}["ops"] == 8001
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        assert it[probe]["httpGet"] == {"path": path, "port": "ops"}


@each_of_ours
def test_metrics_are_announced_on_the_operators_port(shape: str, name: str) -> None:
    annotations = workloads(shape)[name]["spec"]["template"]["metadata"]["annotations"]
    assert {key.removeprefix("prometheus.io/"): value for key, value in annotations.items()} == {
        "scrape": "true",
        "port": "8001",
        "path": "/metrics",
    }


@each_workload
def test_few_old_revisions_are_kept(shape: str, name: str) -> None:
    assert workloads(shape)[name]["spec"]["revisionHistoryLimit"] == 5


@each_of_ours
def test_a_rollout_that_is_stuck_is_called_failed(shape: str, name: str) -> None:
    spec = workloads(shape)[name]["spec"]
    assert spec["minReadySeconds"] == 3
    assert spec["progressDeadlineSeconds"] == 120


@each_of_ours
def test_a_new_pod_is_ready_before_an_old_one_goes(shape: str, name: str) -> None:
    strategy = workloads(shape)[name]["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


@each_shape
def test_a_relay_goes_on_serving_while_the_nodes_learn_that_it_leaves(shape: str) -> None:
    assert container(workloads(shape)["relay"])["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}


@each_of_ours
def test_no_pod_is_killed_before_its_drain_is_over(shape: str, name: str) -> None:
    workload = workloads(shape)[name]
    pre_stop = container(workload).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    default = Settings.model_fields["drain_seconds"].default
    drain = float(variables(workload).get("HELLO_DRAIN_SECONDS", {}).get("value", default))
    grace = pod(workload)["terminationGracePeriodSeconds"]
    assert pre_stop + drain + RELEASE_SECONDS + CLOSE_SECONDS + GRACE_SECONDS + SLACK_SECONDS <= grace


# Disruption


@each_workload
def test_a_node_can_be_drained_one_pod_at_a_time_even_of_pods_that_are_not_well(shape: str, name: str) -> None:
    assert get(shape, "PodDisruptionBudget", name)["spec"] == {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": labels(workloads(shape)[name])},
    }


@each_shape
def test_relays_are_spread_over_hosts_but_all_start_on_a_single_one(shape: str) -> None:
    relay = workloads(shape)["relay"]
    (spread,) = pod(relay)["topologySpreadConstraints"]
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    (apart,) = pod(relay)["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    for rule in (spread, apart["podAffinityTerm"]):
        assert rule["topologyKey"] == "kubernetes.io/hostname"
        assert rule["labelSelector"]["matchLabels"] == labels(relay)


# Who reaches whom


@dataclass(frozen=True)
class Pod:
    """Who sends or hears."""

    labels: dict[str, str]
    namespace: str = "hello"


def selects(selector: Object, wanted: dict[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}
    return all(wanted.get(label) == value for label, value in selector.get("matchLabels", {}).items())


def names(shape: str, one: Object, peer: Pod) -> bool:
    """Whether this `from` or `to` means the pod: without a namespace selector it means those of its own namespace."""
    assert one
    assert one.keys() <= {"podSelector", "namespaceSelector"}
    of_namespace = {"kubernetes.io/metadata.name": peer.namespace}
    if peer.namespace == "hello":
        of_namespace |= get(shape, "Namespace", "hello")["metadata"]["labels"]
    near = selects(one["namespaceSelector"], of_namespace) if "namespaceSelector" in one else peer.namespace == "hello"
    return near and selects(one.get("podSelector", {}), peer.labels)


def allowed(shape: str, direction: str, subject: Pod, peer: Pod | None, port: str) -> bool:
    """Whether the policies let `subject` talk with `peer` (None: an address that is no pod's) at `port`, as "TCP 80".

    As in Kubernetes, a rule without peers means everyone, and one without ports every port.
    """
    peers, rules = ("from", "ingress") if direction == "Ingress" else ("to", "egress")
    policies = [
        policy["spec"]
        for policy in of_kind(shape, "NetworkPolicy")
        if selects(policy["spec"]["podSelector"], subject.labels) and direction in policy["spec"]["policyTypes"]
    ]
    assert policies, f"nothing denies {direction} for {subject}"
    for rule in (rule for policy in policies for rule in policy.get(rules, [])):
        assert all(one.keys() == {"protocol", "port"} for one in rule.get("ports", []))
        at_port = not rule.get("ports") or port in {f"{one['protocol']} {one['port']}" for one in rule["ports"]}
        if at_port and (
            not rule.get(peers) or (peer is not None and any(names(shape, one, peer) for one in rule[peers]))
        ):
            return True
    return False


def of(shape: str, name: str, namespace: str = "hello") -> Pod:
    return Pod(labels(workloads(shape)[name]), namespace)


STRANGER = Pod({"app": "stranger"})
PROMETHEUS = Pod({"app.kubernetes.io/name": "prometheus"})
REDIS, DNS, PAGE, METRICS = "TCP 6379", ("UDP 53", "TCP 53"), "TCP 8000", "TCP 8001"


@each_of_ours
def test_our_pods_reach_redis_and_names_and_nothing_else(shape: str, name: str) -> None:
    ours, store = of(shape, name), of(shape, "redis")
    assert allowed(shape, "Egress", ours, store, REDIS)
    assert allowed(shape, "Ingress", store, ours, REDIS)
    for dns in DNS:
        assert allowed(shape, "Egress", ours, None, dns)
    for peer, port in (
        (None, "TCP 443"),
        (None, REDIS),
        (STRANGER, REDIS),
        (store, "UDP 6379"),
        (store, "TCP 22"),
        (of(shape, "redis", "elsewhere"), REDIS),
    ):
        assert not allowed(shape, "Egress", ours, peer, port), (peer, port)


@each_shape
def test_redis_hears_only_its_clients_and_speaks_to_nobody(shape: str) -> None:
    store = of(shape, "redis")
    for peer, port in (
        (STRANGER, REDIS),
        (None, REDIS),
        (PROMETHEUS, REDIS),
        # A namespace of somebody else's may label its pods as it likes.
        (of(shape, "relay", "elsewhere"), REDIS),
        (of(shape, "relay"), "UDP 6379"),
        (of(shape, "relay"), "TCP 16379"),
    ):
        assert not allowed(shape, "Ingress", store, peer, port), (peer, port)
    for port in (*DNS, REDIS, PAGE):
        assert not allowed(shape, "Egress", store, None, port)
        assert not allowed(shape, "Egress", store, of(shape, "relay"), port)


@each_shape
def test_everyone_reaches_the_page_whatever_address_they_seem_to_come_from(shape: str) -> None:
    """NodePort traffic arrives with the address of the node."""
    for peer in (None, STRANGER, Pod({}, "ingress-nginx")):
        assert allowed(shape, "Ingress", of(shape, "relay"), peer, PAGE)
        assert not allowed(shape, "Ingress", of(shape, "broadcaster"), peer, PAGE)


@each_of_ours
def test_the_operators_port_is_for_prometheus_alone(shape: str, name: str) -> None:
    for namespace in ("hello", "monitoring"):
        assert allowed(shape, "Ingress", of(shape, name), Pod(PROMETHEUS.labels, namespace), METRICS)
        assert not allowed(shape, "Ingress", of(shape, name), Pod(STRANGER.labels, namespace), METRICS)
    assert not allowed(shape, "Ingress", of(shape, name), None, METRICS)


@each_shape
def test_a_new_pod_in_the_namespace_reaches_nobody_and_nobody_it(shape: str) -> None:
    for port in (*DNS, REDIS, PAGE, METRICS):
        assert not allowed(shape, "Egress", STRANGER, None, port)
        assert not allowed(shape, "Ingress", STRANGER, PROMETHEUS, port)


@each_shape
def test_the_service_leads_to_the_relays_by_a_node_port_that_the_cluster_chooses(shape: str) -> None:
    spec = get(shape, "Service", "hello")["spec"]
    assert spec["type"] == "NodePort"
    assert spec["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    assert spec["selector"] == labels(workloads(shape)["relay"])
    ports = {port["name"]: port["containerPort"] for port in container(workloads(shape)["relay"])["ports"]}
    assert ports["http"] == 8000


# Redis


@each_shape
def test_redis_is_found_by_name_and_keeps_its_data_on_a_volume_of_the_default_class(shape: str) -> None:
    service, store = get(shape, "Service", "redis")["spec"], workloads(shape)["redis"]
    assert service["clusterIP"] == "None"
    # A name that is asked for before Redis is ready would be unknown, and be remembered as such.
    assert service["publishNotReadyAddresses"] is True
    assert service["ports"] == [{"name": "redis", "port": 6379, "targetPort": "redis"}]
    assert {port["name"]: port["containerPort"] for port in container(store)["ports"]} == {"redis": 6379}
    assert service["selector"] == labels(store)
    assert store["spec"]["serviceName"] == "redis"
    (claim,) = store["spec"]["volumeClaimTemplates"]
    assert "storageClassName" not in claim["spec"]
    assert claim["metadata"] == {"name": "data"}
    assert {"name": claim["metadata"]["name"], "mountPath": "/data"} in container(store)["volumeMounts"]
    assert pod(store)["securityContext"]["fsGroup"] == 10001
    for name in ("relay", "broadcaster"):
        assert variables(workloads(shape)[name])["HELLO_CHANNEL"]["value"] == "redis://redis:6379"


@each_shape
def test_redis_starts_without_the_modules_that_the_images_entrypoint_would_load(shape: str) -> None:
    it = container(workloads(shape)["redis"])
    assert it["image"] == "redis:8-alpine"
    assert it["command"] == ["redis-server", "/etc/redis/redis.conf"]


def test_a_change_of_the_configuration_rolls_redis(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "kustomize", tmp_path / "kustomize")
    with (tmp_path / "kustomize" / "base" / "redis.conf").open("a") as file:
        file.write("maxclients 1000\n")
    changed = build(tmp_path / "kustomize" / "overlays" / "split")
    (store,) = (thing for thing in changed if thing["kind"] == "StatefulSet")
    assert pod(store) != pod(workloads("split")["redis"])


@each_shape
def test_the_password_is_optional_everywhere_and_no_apply_overwrites_it(shape: str) -> None:
    assert not of_kind(shape, "Secret")
    references = [
        variables(workloads(shape)["relay"])["HELLO_CHANNEL_PASSWORD"]["valueFrom"]["secretKeyRef"],
        variables(workloads(shape)["broadcaster"])["HELLO_CHANNEL_PASSWORD"]["valueFrom"]["secretKeyRef"],
        variables(workloads(shape)["redis"])["REDISCLI_AUTH"]["valueFrom"]["secretKeyRef"],
    ]
    assert references == [{"name": "redis-password", "key": "password", "optional": True}] * 3
    (sources,) = (
        volume["projected"]["sources"] for volume in pod(workloads(shape)["redis"])["volumes"] if "projected" in volume
    )
    (secret,) = (source["secret"] for source in sources if "secret" in source)
    assert secret == {
        "name": "redis-password",
        "optional": True,
        "items": [{"key": "auth.conf", "path": "auth/auth.conf"}],
    }


@pytest.fixture
def configured(redis_server: RedisServer, tmp_path: Path) -> list[str]:
    """The words that start `redis_server` with the rendered configuration; its paths lie below `tmp_path`."""
    redis_server.kill()
    (config,) = of_kind("split", "ConfigMap")
    text = config["data"]["redis.conf"].replace("/etc/redis", str(tmp_path)).replace("/data", str(tmp_path / "data"))
    (tmp_path / "redis.conf").write_text(text)
    (tmp_path / "data").mkdir()
    return ["--include", str(tmp_path / "redis.conf"), "--bind", "127.0.0.1"]


def test_redis_keeps_what_it_acknowledged_and_refuses_rather_than_forgets(
    redis_server: RedisServer, configured: list[str]
) -> None:
    redis_server.start(*configured)
    with redis.Redis.from_url(redis_server.url) as client:
        client.xadd("hello", {"text": "Hello world"})
        settings = client.config_get("maxmemory-policy", "appendfsync", "appendonly")
        assert settings == {"maxmemory-policy": "noeviction", "appendfsync": "always", "appendonly": "yes"}
        limit = quantity(container(workloads("split")["redis"])["resources"]["limits"]["memory"])
        assert 0 < 2 * int(client.config_get("maxmemory")["maxmemory"]) < limit
    redis_server.kill()
    redis_server.start(*configured)
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.xlen("hello") == 1


@pytest.mark.parametrize("password", ["", "secret"])
def test_redis_answers_its_probes_with_a_password_and_without(
    redis_server: RedisServer, configured: list[str], tmp_path: Path, password: str
) -> None:
    (tmp_path / "auth").mkdir()
    if password:
        (tmp_path / "auth" / "auth.conf").write_text(f"requirepass {password}\n")
    redis_server.start(*configured, answer=b"-NOAUTH" if password else b"+PONG")
    without = {key: value for key, value in os.environ.items() if key != "REDISCLI_AUTH"}
    given = without | ({"REDISCLI_AUTH": password} if password else {})
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        program, *words = container(workloads("split")["redis"])[kind]["exec"]["command"]
        probe = [tool(program, REDIS_CLI), "-p", str(redis_server.port), *words]
        assert subprocess.run(probe, env=given, check=False, capture_output=True).returncode == 0
        # It is one that can fail.
        refused = subprocess.run(probe, env=without, check=False, capture_output=True).returncode != 0
        assert refused == bool(password), kind
