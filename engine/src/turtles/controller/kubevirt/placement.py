# SPDX-License-Identifier: GPL-3.0-or-later
"""KubeVirt object → where the engine's components run on a cluster, and how many.

The roles make Deployments and DaemonSet; then infra, workloads, imagePullPolicy, imagePullSecrets and the network of
migrations of the object count, as they do with KubeVirt's operator, and Kubernetes rolls a change out.
:func:`arranged` is pure, :class:`ComponentPlacement` writes.
"""

import copy
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from turtles.api import components, labels
from turtles.api.objects import Object, annotations_of, get
from turtles.kube.client import ApiError, Client, Conflict, NotFound
from turtles.kube.informer import Informer
from turtles.kube.writer import Writer

log = logging.getLogger(__name__)

#: Parts of a Pod's spec that the KubeVirt object decides.
_PLACEMENT = ("nodeSelector", "tolerations", "affinity")
#: Pull policy of the components' images if the object has none (KubeVirt API, imagePullPolicy).
_PULL_POLICY = "IfNotPresent"
#: Annotation of a workload: names of the pull secrets that it has by the KubeVirt object alone, separated by commas.
PULL_SECRETS = "kubevirt.io/object-image-pull-secrets"


def arranged(workload: Mapping[str, Any], spec: Mapping[str, Any]) -> Object:
    """Return a Deployment or DaemonSet of a component as a KubeVirt object's spec wants it.

    :param workload: as it is; its name is the component's. It is not changed.
    """
    component = workload["metadata"]["name"]
    wanted: Object = copy.deepcopy(dict(workload))
    if "replicas" in wanted["spec"]:
        wanted["spec"]["replicas"] = components.asked_replicas(spec)
    pod = wanted["spec"]["template"]["spec"]
    for part in _PLACEMENT:
        pod.pop(part, None)
    pod.update(components.placement(component, components.asked_placement(spec, component)))
    for container in _containers(pod):
        container["imagePullPolicy"] = spec.get("imagePullPolicy") or _PULL_POLICY
    if component == components.HANDLER:
        _attach(wanted["spec"]["template"], get(dict(spec), "configuration", "migrations", "network"))
    _add_pull_secrets(wanted, [reference.get("name") for reference in spec.get("imagePullSecrets") or ()])
    return wanted


def _attach(template: Object, network: str | None) -> None:
    """Have Pods attached to the network of migrations, whatever other networks the installation has chosen for them.

    :param template: of the Pods.
    """
    metadata = dict(template.get("metadata") or {})
    annotations = dict(metadata.pop("annotations", None) or {})
    others = [each.strip() for each in annotations.pop(labels.NETWORKS, "").split(",")]
    others = [each for each in others if each and not each.endswith(f"@{labels.MIGRATION_INTERFACE}")]
    if networks := [*others, *([f"{network}@{labels.MIGRATION_INTERFACE}"] if network else [])]:
        annotations[labels.NETWORKS] = ",".join(networks)
    if annotations:
        metadata["annotations"] = annotations
    template.pop("metadata", None)
    if metadata:
        template["metadata"] = metadata


def _add_pull_secrets(workload: Object, asked: Iterable[str | None]) -> None:
    """Make a workload use the requested secrets, in addition to those of the installation.

    Without the latter its Pods may have no image. They stay: only what was added here is taken away again.
    """
    metadata, pod = workload["metadata"], workload["spec"]["template"]["spec"]
    annotations = dict(metadata.pop("annotations", None) or {})
    before = annotations.pop(PULL_SECRETS, "").split(",")
    there = [reference.get("name") for reference in pod.pop("imagePullSecrets", None) or ()]
    own = [name for name in there if name not in before]
    added = [name for name in dict.fromkeys(asked) if name and name not in own]
    # In their order, where they are there: another one would be another template
    names = [*(name for name in there if name in own or name in added), *(name for name in added if name not in there)]
    if names:
        pod["imagePullSecrets"] = [{"name": name} for name in names]
    if added:
        annotations[PULL_SECRETS] = ",".join(added)
    if annotations:
        metadata["annotations"] = annotations


class ComponentPlacement:
    """Brings the components' workloads to what the KubeVirt object says."""

    def __init__(self, client: Client) -> None:
        """Make one that has written nothing yet."""
        self._writer = Writer(client)
        #: By name: what was wanted, and the generation that the API server made of it. It drops empty values.
        self._written: dict[str, tuple[Object, int]] = {}

    def apply(self, workloads: Iterable[tuple[Informer, Object]], spec: Mapping[str, Any]) -> list[str]:
        """Write what differs.

        :param workloads: Deployments and DaemonSets of components as they are, each with the cache it is from, which
            then knows what was written.
        :param spec: the KubeVirt object's.
        :returns: why some can't be written, in a sentence each.
        """
        refusals = []
        for informer, workload in workloads:
            name, generation = workload["metadata"]["name"], int(workload["metadata"].get("generation") or 0)
            wanted = arranged(workload, spec)
            if wanted == workload or self._written.get(name) == (_asked(wanted), generation):
                continue
            # Lists don't say the kind of what is in them
            whole = {**wanted, "apiVersion": informer.resource.api_version, "kind": informer.resource.kind}
            try:
                stored = self._writer.replace(informer, whole)
            except (NotFound, Conflict):
                continue  # its next event brings it here again
            except ApiError as error:
                part = components.PART[name]
                refusals.append(f"{name} can't be changed to match spec.{part} of the KubeVirt object: {error}")
                continue
            self._written[name] = (_asked(wanted), int(stored["metadata"].get("generation") or 0))
            log.info("component placed", extra={"kind": informer.resource.kind, "object": name})
        return refusals


def _asked(workload: Object) -> Object:
    """Return what of a workload the KubeVirt object decided."""
    pod = workload["spec"]["template"]["spec"]
    policies = [container.get("imagePullPolicy") for container in _containers(pod)]
    annotations = annotations_of(workload)
    return {
        "replicas": workload["spec"].get("replicas"),
        "policies": policies,
        "secrets": pod.get("imagePullSecrets"),
        "added": annotations.get(PULL_SECRETS),
        "networks": get(workload, "spec", "template", "metadata", "annotations", labels.NETWORKS),
        **{part: pod.get(part) for part in _PLACEMENT},
    }


def _containers(pod: Object) -> list[Object]:
    return [*(pod.get("initContainers") or ()), *pod["containers"]]
