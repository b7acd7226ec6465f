"""What both overlays render: valid, one set of objects, and true to the rules that keep browsers attached.

The rules are read off the rendered objects, so that it does not matter which file of kustomize/ says a thing.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped] # it brings no types
import pytest
import redis
import yaml

from hello.settings import PREFIX, Settings
from tests.deploy.tools import ROOT, tool
from tests.redis_server import RedisServer

Object = dict[str, Any]

SHAPES = ("split", "combined")
OLDEST, NEWEST = "1.30", "1.37"  # the Kubernetes versions that the manifests are meant for
CLOSE_SECONDS = 5  # for what is still open when a drain's time is up
SLACK_SECONDS = 10  # for a node so busy that everything takes longer
TMP = "/tmp"
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
    """Every value of a nested object with the path that leads to it."""
    if isinstance(value, dict):
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


# Least privilege


@each_shape
def test_the_namespace_comes_first_and_refuses_pods_that_are_not_restricted(shape: str) -> None:
    first = render(shape)[0]
    assert first["kind"] == "Namespace"
    for mode in ("enforce", "warn", "audit"):
        assert first["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] == "restricted"


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
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()


@each_workload
def test_every_container_can_change_nothing_but_its_own_small_tmp(shape: str, name: str) -> None:
    workload = workloads(shape)[name]
    context = container(workload)["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    mounted = {mount["mountPath"]: mount["name"] for mount in container(workload)["volumeMounts"]}
    (tmp,) = (volume for volume in pod(workload)["volumes"] if volume["name"] == mounted[TMP])
    assert quantity(tmp["emptyDir"]["sizeLimit"]) <= quantity("64Mi")


@each_workload
def test_every_container_names_its_ports_and_bounds_what_it_uses(shape: str, name: str) -> None:
    it = container(workloads(shape)[name])
    assert all(port["name"] for port in it["ports"])
    assert it["imagePullPolicy"] == "IfNotPresent"
    assert it["image"].partition(":")[2] not in {"", "latest"}
    for resource in ("cpu", "memory", "ephemeral-storage"):
        assert 0 < quantity(it["resources"]["requests"][resource]) <= quantity(it["resources"]["limits"][resource])


@each_shape
@pytest.mark.parametrize("resource", ["cpu", "memory"])
def test_a_small_minikube_has_room_for_everything_while_any_of_it_is_rolled(shape: str, resource: str) -> None:
    resting, surges = Decimal(), [Decimal()]
    for workload in workloads(shape).values():
        request = quantity(container(workload)["resources"]["requests"][resource])
        resting += workload["spec"]["replicas"] * request
        surges.append(workload["spec"].get("strategy", {}).get("rollingUpdate", {}).get("maxSurge", 0) * request)
    assert resting + max(surges) < quantity({"cpu": "150m", "memory": "300Mi"}[resource])


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
    assert pre_stop + drain + CLOSE_SECONDS + SLACK_SECONDS <= grace


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


def selects(selector: Object, wanted: dict[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}
    return all(wanted.get(label) == value for label, value in selector.get("matchLabels", {}).items())


def allowed(shape: str, direction: str, subject: dict[str, str], peer: dict[str, str] | None, port: int) -> bool:
    """Whether the policies let the pod `subject` talk with `peer` (None: an address that is no pod's) at `port`."""
    peers, rules = ("from", "ingress") if direction == "Ingress" else ("to", "egress")
    policies = [
        policy["spec"]
        for policy in of_kind(shape, "NetworkPolicy")
        if selects(policy["spec"]["podSelector"], subject) and direction in policy["spec"]["policyTypes"]
    ]
    assert policies, f"nothing denies {direction} for {subject}"
    return any(
        port in {allowed_port["port"] for allowed_port in rule["ports"]}
        and (peers not in rule or (peer is not None and any(selects(one["podSelector"], peer) for one in rule[peers])))
        for policy in policies
        for rule in policy.get(rules, [])
    )


STRANGER = {"app": "stranger"}
PROMETHEUS = {"app.kubernetes.io/name": "prometheus"}


@each_of_ours
def test_our_pods_reach_redis_and_names_and_nothing_else(shape: str, name: str) -> None:
    ours, store = labels(workloads(shape)[name]), labels(workloads(shape)["redis"])
    assert allowed(shape, "Egress", ours, store, 6379)
    assert allowed(shape, "Ingress", store, ours, 6379)
    assert allowed(shape, "Egress", ours, None, 53)
    assert not allowed(shape, "Egress", ours, None, 443)
    assert not allowed(shape, "Egress", ours, STRANGER, 6379)


@each_shape
def test_redis_hears_only_its_clients_and_speaks_to_nobody(shape: str) -> None:
    store = labels(workloads(shape)["redis"])
    assert not allowed(shape, "Ingress", store, STRANGER, 6379)
    assert not allowed(shape, "Ingress", store, None, 6379)
    assert not allowed(shape, "Egress", store, None, 53)


@each_shape
def test_everyone_reaches_the_page_whatever_address_they_seem_to_come_from(shape: str) -> None:
    """NodePort traffic arrives with the address of the node."""
    relay = labels(workloads(shape)["relay"])
    assert allowed(shape, "Ingress", relay, None, 8000)
    assert allowed(shape, "Ingress", relay, STRANGER, 8000)


@each_of_ours
def test_the_operators_port_is_for_prometheus_alone(shape: str, name: str) -> None:
    ours = labels(workloads(shape)[name])
    assert allowed(shape, "Ingress", ours, PROMETHEUS, 8001)
    assert not allowed(shape, "Ingress", ours, STRANGER, 8001)
    assert not allowed(shape, "Ingress", ours, None, 8001)


@each_shape
def test_a_new_pod_in_the_namespace_reaches_nobody(shape: str) -> None:
    assert not allowed(shape, "Egress", STRANGER, None, 53)
    assert not allowed(shape, "Ingress", STRANGER, PROMETHEUS, 8001)


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
def test_redis_answers_its_probe_with_a_password_and_without(
    redis_server: RedisServer, configured: list[str], tmp_path: Path, password: str
) -> None:
    (tmp_path / "auth").mkdir()
    if password:
        (tmp_path / "auth" / "auth.conf").write_text(f"requirepass {password}\n")
    redis_server.start(*configured, answer=b"-NOAUTH" if password else b"+PONG")
    _, *words = container(workloads("split")["redis"])["livenessProbe"]["exec"]["command"]
    probe = [tool("redis-cli", REDIS_CLI), "-p", str(redis_server.port), *words]
    environment = {key: value for key, value in os.environ.items() if key != "REDISCLI_AUTH"}
    with_password = environment | ({"REDISCLI_AUTH": password} if password else {})
    assert subprocess.run(probe, env=with_password, check=False, capture_output=True).returncode == 0
    # The probe is one that can fail.
    assert (subprocess.run(probe, env=environment, check=False, capture_output=True).returncode == 0) == (not password)
