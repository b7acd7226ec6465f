"""A model of Kubernetes' NetworkPolicies: which traffic the policies of one namespace allow."""

import itertools
from collections.abc import Collection
from typing import Any, Literal, NamedTuple

Spec = dict[str, Any]


class Peer(NamedTuple):
    """A pod, or an address that is not a pod's: then without labels and namespace."""

    name: str
    labels: dict[str, str]
    namespace: str


def allowed(
    direction: Literal["Ingress", "Egress"],
    policies: Collection[Spec],
    namespace: str,
    peers: Collection[Peer],
    ports: Collection[str],
) -> set[tuple[str, str, str]]:
    """All traffic into, or out of, the peers in the namespace: (the peer in it, the other peer, the port).

    `policies` are the specs of all policies of the namespace, and a port is written `TCP 80`.
    """
    key = "from" if direction == "Ingress" else "to"

    def permits(subject: Peer, other: Peer, port: str) -> bool:
        chosen = [
            policy
            for policy in policies
            if direction in policy["policyTypes"] and selects(policy["podSelector"], subject.labels)
        ]
        # Without a policy all traffic is allowed. A rule without peers is for all peers, and likewise for ports.
        return not chosen or any(
            (not rule.get("ports") or port in [f"{each['protocol']} {each['port']}" for each in rule["ports"]])
            and (not rule.get(key) or any(matches(entry, other, namespace) for entry in rule[key]))
            for policy in chosen
            for rule in policy.get(direction.lower(), [])
        )

    return {
        (subject.name, other.name, port)
        for (subject, other), port in itertools.product(itertools.permutations(peers, 2), ports)
        if subject.namespace == namespace and permits(subject, other, port)
    }


def matches(entry: Spec, peer: Peer, namespace: str) -> bool:
    """True if this entry of `from` or `to` selects the peer: in the policy's own namespace, unless it names others."""
    assert set() < entry.keys() <= {"podSelector", "namespaceSelector"}
    if "namespaceSelector" in entry:
        labels = {"kubernetes.io/metadata.name": peer.namespace}
        selected = peer.namespace != "" and selects(entry["namespaceSelector"], labels)
    else:
        selected = peer.namespace == namespace
    return selected and selects(entry.get("podSelector", {}), peer.labels)


def selects(selector: Spec, labels: dict[str, str]) -> bool:
    """True if a selector, here always by `matchLabels`, selects these labels."""
    assert selector.keys() <= {"matchLabels"}
    return bool(selector.get("matchLabels", {}).items() <= labels.items())
