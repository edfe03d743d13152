# SPDX-License-Identifier: GPL-3.0-or-later
"""What is applied to a cluster: manifests with workloads, and the rights in them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from turtles.virt_api import manifests
from turtles.virt_api.workloads import Values, ValuesError

MINIMAL = {"engineImage": "reg/turtles-engine:1", "launcherImage": "reg/turtles-launcher:1"}


def render(**values: Any) -> dict[tuple[str, str], dict[str, Any]]:
    text = manifests.render("kubevirt", Values.from_json({**MINIMAL, **values}))
    return {(found["kind"], found["metadata"]["name"]): found for found in yaml.safe_load_all(text)}


def pod(found: dict[str, Any]) -> dict[str, Any]:
    return found["spec"]["template"]["spec"]


def test_the_unprivileged_components_hold_nothing() -> None:
    found = render()
    for name in ("virt-api", "virt-controller"):
        spec = pod(found["Deployment", name])
        assert spec["serviceAccountName"] == name
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = spec["containers"]
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"]["memory"]
        assert {"livenessProbe", "readinessProbe", "startupProbe"} <= container.keys()
        assert found["Deployment", name]["spec"]["replicas"] == 2
        assert "podAntiAffinity" in spec["affinity"]
        budget = found["PodDisruptionBudget", name]["spec"]
        assert budget["selector"]["matchLabels"].items() <= (
            found["Deployment", name]["spec"]["template"]["metadata"]["labels"].items()
        )
    (api,) = pod(found["Deployment", "virt-api"])["containers"]
    assert "--pod-name=$(POD_NAME)" in api["args"]
    assert api["env"] == [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    (controller,) = pod(found["Deployment", "virt-controller"])["containers"]
    assert "--launcher-image=reg/turtles-launcher:1" in controller["args"]
    assert found["PriorityClass", "kubevirt-cluster-critical"]["value"] == 1_000_000_000


def test_a_dead_node_of_many_does_not_hold_up_the_others() -> None:
    strategy = render()["DaemonSet", "virt-handler"]["spec"]["updateStrategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}}


def test_the_node_agent_sees_the_kubelets_folder_where_it_is() -> None:
    spec = pod(render(kubeletDir="/data/kubelet/")["DaemonSet", "virt-handler"])
    (container,) = spec["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["pods"]["hostPath"]["path"] == mounts["pods"]["mountPath"] == "/data/kubelet/pods"
    assert mounts["pods"]["mountPropagation"] == "HostToContainer"
    assert volumes["device-plugins"]["hostPath"]["path"] == "/var/lib/kubelet/device-plugins", "a constant of kubelets"
    assert "--pods-dir=/data/kubelet/pods" in container["args"]
    assert spec["hostPID"]
    assert container["securityContext"]["privileged"]


def test_values_reach_the_pods() -> None:
    found = render(
        replicas=1,
        imagePullSecrets=["pull"],
        imagePullPolicy="Always",
        policyVersion="policy/v1beta1",
        infra={"nodeSelector": {"role": "infra"}, "affinity": {"nodeAffinity": {}}},
        workloads={"tolerations": [{"operator": "Exists"}]},
        resources={"virt-handler": {"limits": {"memory": "1Gi"}}},
    )
    api, handler = pod(found["Deployment", "virt-api"]), pod(found["DaemonSet", "virt-handler"])
    assert api["nodeSelector"] == {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "role": "infra"}
    critical = {"key": "CriticalAddonsOnly", "operator": "Exists"}
    assert api["tolerations"] == [critical]
    assert api["affinity"].keys() == {"podAntiAffinity", "nodeAffinity"}
    assert api["imagePullSecrets"] == handler["imagePullSecrets"] == [{"name": "pull"}]
    assert handler["tolerations"] == [critical, {"operator": "Exists"}]
    assert handler["containers"][0]["resources"] == {"limits": {"memory": "1Gi"}}
    assert handler["containers"][0]["imagePullPolicy"] == "Always"
    assert found["PodDisruptionBudget", "virt-api"]["apiVersion"] == "policy/v1beta1"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"engineImage": ""}, "engineImage is missing"),
        ({"replicas": 0}, "replicas must be at least 1, not 0"),
        ({"replicas": "2"}, "replicas must be of type int, not str"),
        ({"placement": {}}, "unknown key 'placement'"),
        ({"infra": {"hostNetwork": True}}, "infra has 'hostNetwork'"),
        ({"infra": {"nodeSelector": ["ssd"]}}, r"infra\.nodeSelector must be an object .*, not \['ssd'\]"),
        ({"infra": {"nodeSelector": {"ssd": True}}}, r"infra\.nodeSelector\.ssd must be text, not True"),
        ({"workloads": {"tolerations": {"operator": "Exists"}}}, r"workloads\.tolerations must be a list, such as"),
        ({"workloads": {"tolerations": ["gpu"]}}, r"workloads\.tolerations\[0\] must be an object .*, not 'gpu'"),
        ({"infra": {"affinity": []}}, r"infra\.affinity must be an object"),
        ({"infra": {"affinity": [{}]}}, r"infra\.affinity must be an object"),
        ({"infra": {"affinity": {"nodeAffinity": "here"}}}, r"infra\.affinity\.nodeAffinity must be an object"),
        ({"resources": {"virt-operator": {}}}, "resources has 'virt-operator'"),
        ({"resources": {"virt-api": "200Mi"}}, r"resources\.virt-api must be an object with requests .*, not '200Mi'"),
        ({"resources": {"virt-api": {"memory": "1Gi"}}}, r"resources\.virt-api has 'memory'; it may have requests"),
        ({"resources": {"virt-api": {"limits": ["1Gi"]}}}, r"resources\.virt-api\.limits must be an object"),
        ({"resources": {"virt-api": {"limits": {"cpu": {}}}}}, r"resources\.virt-api\.limits\.cpu must be an amount"),
    ],
)
def test_wrong_values_are_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValuesError, match=words):
        Values.from_json({**MINIMAL, **values})


def test_what_is_null_is_as_if_it_were_not_there() -> None:
    empty = {"nodeSelector": None, "tolerations": None, "affinity": None}
    nothing = {"requests": None}
    assert render(infra=empty, workloads=empty, resources={"virt-api": nothing}).keys() == render().keys()


def test_no_component_has_more_rights_than_it_names() -> None:
    found = render()
    for (kind, name), role in found.items():
        if kind not in ("ClusterRole", "Role"):
            continue
        for rule in role["rules"]:
            words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert not [word for word in words if "*" in word], name
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"]), name
    for (kind, name), binding in found.items():
        if kind in ("ClusterRoleBinding", "RoleBinding"):
            assert binding["roleRef"]["name"] != "cluster-admin", name
    handler = found["ClusterRole", "kubevirt-virt-handler"]["rules"]
    # Nodes' capacity is the kubelet's; as a service of a machine the agent writes it itself
    assert [rule["verbs"] for rule in handler if "nodes" in rule["resources"]] == [["get", "patch"]]
    assert not [rule for rule in handler if "nodes/status" in rule["resources"]]
    local = found["Role", "kubevirt-virt-api"]["rules"]
    # Its Service is part of the installation; as a service of a machine it writes that itself
    assert not [rule for rule in local if "services" in rule["resources"]]
    assert [rule["resourceNames"] for rule in local if "deployments" in rule["resources"]] == [["virt-api"]]


def test_the_renderer_needs_no_installed_engine(tmp_path: Path) -> None:
    values = tmp_path / "values.json"
    values.write_text(json.dumps(MINIMAL))
    # As roles run it: the engine as a wheel, and of what can be installed PyYAML only
    source = Path(manifests.__file__).parents[2]
    wheel = shutil.make_archive(str(tmp_path / "turtles"), "zip", source, "turtles")
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    for module in Path(yaml.__file__).parents[1].glob("*yaml"):
        (libraries / module.name).symlink_to(module)
    command = [sys.executable, "-S", "-m", "turtles.virt_api.manifests", "kubevirt", str(values)]
    environment = {"PYTHONPATH": f"{wheel}:{libraries}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == manifests.render("kubevirt", Values.from_json(MINIMAL))
