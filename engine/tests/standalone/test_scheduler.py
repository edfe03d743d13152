# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Pod goes where, and what is said when it goes nowhere."""

import pytest

from turtles.standalone.scheduler import Unschedulable, choose, matches_terms, pod_requests


def node(name="n1", labels=None, taints=None, ready=True, **allocatable):
    """Return a Node."""
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": {"taints": taints or []},
        "status": {
            "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10", **allocatable},
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def pod(name="p", requests=None, **spec):
    """Return a Pod."""
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": requests or {}}}], **spec},
    }


def test_fewest_pods_wins():
    assert choose(pod(), [node("a"), node("b")], {"a": [pod()]}) == "b"


@pytest.mark.parametrize(
    ("wanted", "where", "message"),
    [
        (pod(requests={"memory": "5Gi"}), node(), "0/1 nodes are available: 1 Insufficient memory."),
        (
            pod(requests={"memory": "5Gi", "cpu": "3", "x.io/y": 1}),
            node(),
            "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 Insufficient x.io/y.",
        ),
        (
            pod(nodeSelector={"a": "b"}),
            node(),
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        ),
        (
            pod(),
            node(taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}]),
            "0/1 nodes are available: 1 node(s) had untolerated taint {k: v}.",
        ),
        (
            pod(),
            node(ready=False),
            "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }.",
        ),
        (pod(), node(pods="0"), "0/1 nodes are available: 1 Too many pods."),
    ],
)
def test_why_not(wanted, where, message):
    with pytest.raises(Unschedulable) as error:
        choose(wanted, [where], {})
    assert str(error.value) == message


def test_no_node():
    with pytest.raises(Unschedulable, match="no nodes available to schedule pods"):
        choose(pod(), [], {})


def test_what_is_there_counts():
    with pytest.raises(Unschedulable, match="Insufficient memory"):
        choose(pod(requests={"memory": "2Gi"}), [node()], {"n1": [pod(requests={"memory": "3Gi"})]})


def test_tolerations():
    taints = [{"key": "k", "value": "v", "effect": "NoExecute"}]
    for toleration in ({"operator": "Exists"}, {"key": "k", "operator": "Exists"}, {"key": "k", "value": "v"}):
        assert choose(pod(tolerations=[toleration]), [node(taints=taints)], {}) == "n1"
    for toleration in ({"key": "k", "value": "w"}, {"key": "k", "value": "v", "effect": "NoSchedule"}):
        with pytest.raises(Unschedulable):
            choose(pod(tolerations=[toleration]), [node(taints=taints)], {})


@pytest.mark.parametrize(
    ("key", "operator", "values", "result"),
    [
        ("a", "In", ["1", "5"], True),
        ("a", "In", ["2"], False),
        ("a", "NotIn", ["2"], True),
        ("z", "NotIn", ["2"], True),
        ("a", "Exists", [], True),
        ("z", "DoesNotExist", [], True),
        ("a", "Gt", ["4"], True),
        ("a", "Lt", ["4"], False),
        ("z", "Gt", ["1"], False),
    ],
)
def test_node_affinity(key, operator, values, result):
    terms = {"nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]}
    assert matches_terms(terms, node(labels={"a": "5"})) is result
    assert matches_terms({"nodeSelectorTerms": [{}]}, node()) is False


def test_host_ports():
    taken = {"containers": [{"name": "c", "ports": [{"hostPort": 80}]}]}
    with pytest.raises(Unschedulable, match="free ports"):
        choose(pod(**taken), [node()], {"n1": [pod(**taken)]})


def test_a_pod_requests_the_larger_of_its_containers_and_its_largest_init_container():
    spec = {
        "containers": [{"resources": {"requests": {"cpu": "1"}}}, {"resources": {"limits": {"cpu": "500m"}}}],
        "initContainers": [{"resources": {"requests": {"cpu": "2"}}}],
    }
    assert pod_requests(spec) == {"cpu": 2}
    spec["initContainers"].clear()
    assert pod_requests(spec) == {"cpu": 1.5}
