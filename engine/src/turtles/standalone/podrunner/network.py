# SPDX-License-Identifier: GPL-3.0-or-later
"""A Pod's network namespace and its attachment by CNI plugins."""

from pathlib import Path

from turtles.api.objects import Object
from turtles.standalone.podrunner import cni, sandbox
from turtles.standalone.podrunner.config import Config
from turtles.standalone.podrunner.poddir import PodDir


def namespace_path(config: Config, uid: str) -> Path:
    """Return where a Pod's network namespace is mounted."""
    return config.run_dir / "netns" / uid


def set_up(config: Config, pod: Object, directory: PodDir) -> Object:
    """Create a Pod's network namespace and attach it, unless that has been done; return the CNI result.

    :raises turtles.standalone.podrunner.cni.CNIError: a plugin failed; it can be repeated.
    """
    if pod["spec"].get("hostNetwork"):
        return {}
    netns = namespace_path(config, directory.uid)
    attachment = cni.Attachment(config.cni_bin_dir, directory.cni_record)
    if not sandbox.is_mount(netns):
        # Left from before a reboot or a crash: release the old attachment first.
        attachment.delete()
        sandbox.create_netns(netns)
    ports = [
        {
            "hostPort": port["hostPort"],
            "containerPort": port["containerPort"],
            "protocol": (port.get("protocol") or "TCP").lower(),
            "hostIP": port.get("hostIP") or "",
        }
        for container in pod["spec"]["containers"]
        for port in container.get("ports") or []
        if port.get("hostPort")
    ]
    metadata = pod["metadata"]
    return attachment.add(
        cni.load_network(config.cni_conf_dir),
        directory.uid,
        netns,
        "eth0",
        {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": metadata["namespace"],
            "K8S_POD_NAME": metadata["name"],
            "K8S_POD_INFRA_CONTAINER_ID": directory.uid,
            "K8S_POD_UID": metadata["uid"],
        },
        {"portMappings": ports},
    )


def addresses(config: Config, directory: PodDir) -> list[str]:
    """Return the addresses of a Pod's attachment, without any if it has none."""
    return cni.addresses(cni.Attachment(config.cni_bin_dir, directory.cni_record).result() or {})


def tear_down(config: Config, directory: PodDir) -> None:
    """Release a Pod's addresses and port mappings, and its network namespace.

    :raises turtles.standalone.podrunner.cni.CNIError: a plugin failed; it can be repeated.
    """
    cni.Attachment(config.cni_bin_dir, directory.cni_record).delete()
    sandbox.delete_netns(namespace_path(config, directory.uid))
