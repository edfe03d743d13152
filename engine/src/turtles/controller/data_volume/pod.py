# SPDX-License-Identifier: GPL-3.0-or-later
"""The Pod that imports the content of a DataVolume, as a pure function.

Name, labels, requests and limit of memory are CDI's.
"""

from __future__ import annotations

from dataclasses import dataclass

from turtles.api import cdi
from turtles.api.configuration import DEFAULT, ClusterConfiguration
from turtles.api.import_settings import DEFAULT as NO_SETTINGS
from turtles.api.import_settings import ImportSettings
from turtles.api.kinds.data_volume.validation import ARCHIVE, gcs_address, image_of, is_pulled_by_importer
from turtles.api.objects import Object, owner_reference
from turtles.controller.data_volume.claim import disk_size, is_block, scratch_name
from turtles.controller.pod.config import METRICS_PORT
from turtles.controller.pod.worker import set_arguments, worker_spec

#: Seconds that an import may take.
TIMEOUT = 86400
#: Exit statuses of the importer (:mod:`turtles.importer.errors`).
SCRATCH_NEEDED, REFUSED = 42, 65

_REQUESTS, _LIMITS = {"cpu": "100m", "memory": "60M"}, {"cpu": "2", "memory": "600M"}
#: Endings of files whose content has to be stored before it is converted.
_CONVERTED = (".qcow2", ".vmdk", ".vdi", ".vhd", ".vhdx")
_PACKED = (".gz", ".xz", ".zst")


@dataclass(frozen=True)
class ImporterConfig:
    """What the installation says about importers' Pods.

    :param image: of the container.
    :param cluster: what the KubeVirt object says. :param settings: what the CDIConfig says.
    """

    image: str
    cluster: ClusterConfiguration = DEFAULT
    settings: ImportSettings = NO_SETTINGS


def pod_name(data_volume: Object) -> str:
    """Return the name of a DataVolume's importer. The same one always gets the same name."""
    return cdi.pod_name("importer", data_volume["metadata"]["name"])


def source_of(data_volume: Object) -> str:
    """Return the name of a DataVolume's source, as in spec.source; empty if its DataSource leads to nothing."""
    return next((str(name) for name, value in data_volume["spec"]["source"].items() if value is not None), "")


def is_known_to_need_scratch(data_volume: Object, *, mounts_images: bool = True) -> bool:
    """Say whether the source tells that its content has to be stored before it is converted.

    :param mounts_images: nodes mount images.
    """
    if registry := data_volume["spec"]["source"].get("registry"):
        return is_pulled_by_importer(registry, mounts_images=mounts_images)
    http = file_of(data_volume)
    if http is None or data_volume["spec"].get("contentType") == ARCHIVE:
        return False
    path = http["url"].lower().partition("?")[0].partition("#")[0]
    for ending in _PACKED:
        path = path.removesuffix(ending)
    return bool(path.endswith(_CONVERTED))


def file_of(data_volume: Object) -> Object | None:
    """Return a source that is a server's file, as `http` has it; None for any other one."""
    source = data_volume["spec"]["source"]
    if gcs := source.get("gcs"):
        return {"url": gcs_address(gcs["url"])}
    file: Object | None = source.get("http") or source.get("s3")
    return file


def is_pulled_by_node(data_volume: Object) -> bool:
    """Say whether the source is a registry's image that a node has to mount, because nothing else can be done."""
    registry = data_volume["spec"]["source"].get("registry")
    return registry is not None and not is_pulled_by_importer(registry, mounts_images=False)


def has_scratch(pod: Object) -> bool:
    """Say whether an importer's Pod has scratch space."""
    return any(volume["name"] == "scratch" for volume in pod["spec"].get("volumes") or ())


def importer_pod(
    data_volume: Object,
    target: Object,
    config: ImporterConfig,
    *,
    scratch: bool,
    source: Object | None = None,
    mounts_images: bool = True,
) -> Object:
    """Return the Pod.

    :param target: the claim. :param source: the claim to copy, if the source is one.
    :param scratch: there is a claim for what has to be stored. :param mounts_images: nodes mount images.
    """
    spec = data_volume["spec"]
    pod = worker_pod(data_volume, pod_name(data_volume), cdi.COMPONENT_IMPORTER, config)
    pod_spec = pod["spec"]
    container = pod_spec["containers"][0]
    pod_spec["volumes"].append({"name": "target", "persistentVolumeClaim": {"claimName": target["metadata"]["name"]}})
    registry = spec["source"].get("registry")
    by_importer = registry is not None and is_pulled_by_importer(registry, mounts_images=mounts_images)
    what = "pulled" if by_importer else source_of(data_volume)
    what = "http" if what == "gcs" else what
    arguments = [
        "clone" if source is not None else what,
        f"--owner={data_volume['metadata']['uid']}",
        f"--size={disk_size(data_volume, target, config.settings)}",
        f"--timeout={TIMEOUT}",
        f"--health-port={METRICS_PORT}",
    ]
    if is_block(target):
        container["volumeDevices"] = [{"name": "target", "devicePath": "/dev/cdi-block-volume"}]
        arguments.append("--block")
    else:
        container["volumeMounts"].append({"name": "target", "mountPath": "/data"})
    if spec.get("preallocation", config.settings.preallocation):
        arguments.append("--preallocate")
    if scratch:
        mount(pod_spec, "scratch", {"persistentVolumeClaim": {"claimName": scratch_name(data_volume)}}, "/scratch")
        arguments.append("--scratch=/scratch")
    if (http := file_of(data_volume)) is not None:
        arguments += _http_arguments(http, pod_spec)
    if spec.get("contentType") == ARCHIVE and (http is not None or what == "upload"):
        arguments.append("--archive")
    if source is not None:
        _add_source(source, pod_spec, arguments)
    if by_importer:
        arguments += registry_arguments(registry, pod_spec, config)
    elif registry:
        image = image_of(registry["url"])
        mount(pod_spec, "image", {"image": {"reference": image}}, "/image")
        arguments.append(f"--image={image}")
    set_arguments(container, arguments)
    if spec.get("priorityClassName"):
        pod_spec["priorityClassName"] = spec["priorityClassName"]
    return pod


def worker_pod(owner: Object, name: str, component: str, config: ImporterConfig) -> Object:
    """Return the Pod of an importer that has nothing to do so far.

    :param component: value of CDI's label.
    """
    pod_spec = worker_spec(
        "importer",
        "/usr/bin/virt-importer",
        config.image,
        config.cluster,
        requests=_REQUESTS,
        limits=_LIMITS,
        grace_period=10,
    )
    if config.settings.proxies:
        (container,) = pod_spec["containers"]
        container["env"] = [{"name": name, "value": value} for name, value in config.settings.proxies.items()]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": owner["metadata"]["namespace"],
            "labels": {
                cdi.APP: cdi.APP_IMPORTER,
                cdi.COMPONENT: component,
                "prometheus.cdi.kubevirt.io": "true",
            },
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": pod_spec,
    }


def registry_arguments(registry: Object, pod_spec: Object, config: ImporterConfig) -> list[str]:
    """Return the arguments of an importer that asks a registry itself, and mount what they name."""
    image = image_of(registry["url"])
    arguments = [f"--image={image}"]
    if image.partition("/")[0] in config.settings.insecure:
        arguments.append("--insecure")
    arguments += _access(registry, pod_spec)
    if architecture := (registry.get("platform") or {}).get("architecture"):
        arguments.append(f"--architecture={architecture}")
    return arguments


def _access(source: Object, pod_spec: Object) -> list[str]:
    """Return the arguments about a server's certificate and credentials, and mount what they name."""
    arguments = []
    if source.get("certConfigMap"):
        mount(pod_spec, "authorities", {"configMap": {"name": source["certConfigMap"]}}, "/authorities")
        arguments.append("--authorities=/authorities")
    if source.get("secretRef"):
        mount(pod_spec, "credentials", {"secret": {"secretName": source["secretRef"]}}, "/credentials")
        arguments.append("--credentials=/credentials")
    return arguments


def _add_source(source: Object, pod_spec: Object, arguments: list[str]) -> None:
    claim = {"claimName": source["metadata"]["name"], "readOnly": True}
    if not is_block(source):
        mount(pod_spec, "source", {"persistentVolumeClaim": claim}, "/source")
        pod_spec["containers"][0]["volumeMounts"][-1]["readOnly"] = True
        return
    pod_spec["volumes"].append({"name": "source", "persistentVolumeClaim": claim})
    device = {"name": "source", "devicePath": "/dev/cdi-source-volume"}
    pod_spec["containers"][0].setdefault("volumeDevices", []).append(device)
    arguments.append("--source-block")


def _http_arguments(http: Object, pod_spec: Object) -> list[str]:
    arguments = [f"--url={http['url']}"]
    if http.get("checksum"):
        arguments.append(f"--checksum={http['checksum']}")
    arguments += [f"--header={header}" for header in http.get("extraHeaders") or ()]
    if http.get("insecureSkipVerify"):
        arguments.append("--insecure")
    arguments += _access(http, pod_spec)
    for number, name in enumerate(http.get("secretExtraHeaders") or ()):
        mount(pod_spec, f"headers-{number}", {"secret": {"secretName": name}}, f"/headers/{number}")
        arguments.append(f"--secret-headers=/headers/{number}")
    return arguments


def mount(pod_spec: Object, name: str, source: Object, path: str) -> None:
    """Add a volume to a Pod, and show it to its container; what isn't a claim can't be written."""
    pod_spec["volumes"].append({"name": name, **source})
    mount: Object = {"name": name, "mountPath": path}
    if "persistentVolumeClaim" not in source:
        mount["readOnly"] = True
    pod_spec["containers"][0]["volumeMounts"].append(mount)
