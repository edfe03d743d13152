# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the logs of components are: files or the journal of this machine, and the API for those that run in Pods."""

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from turtles.api import labels
from turtles.errors import ConfigurationError
from turtles.kube.client import ApiError, Client
from turtles.kube.resources import POD

_SYSTEMD = Path("/run/systemd/system")
#: Seconds that a server may be silent while it sends a log.
_SILENCE = 30
#: Label of the Pods of machines, and values of the same label of those of components.
_LAUNCHERS = f"{labels.APP}={labels.APP_LAUNCHER}"
_COMPONENTS = ("virt-api", "virt-controller", "virt-handler")
_LAUNCHER = "compute"


def of_instance(instance: str) -> Iterator[str]:
    """Yield lines of the services of an instance of the engine on this machine.

    :raises ConfigurationError: it has no logs here.
    :raises OSError: they can't be read.
    """
    folder = Path("/var/log") / instance
    # A rotated log has a number at the end.
    files = sorted(folder.glob("*.log*")) if folder.is_dir() else []
    if not files and not _SYSTEMD.is_dir():
        raise ConfigurationError(
            f"there are no logs in {folder}: --instance is the name of an engine on this machine (turtles_instance)"
        )
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as lines:
            yield from lines
    if _SYSTEMD.is_dir():
        command = ["journalctl", "--output=cat", "--quiet", f"--unit={instance}-*"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as journal:
            assert journal.stdout is not None
            yield from journal.stdout


def of_cluster(client: Client, namespace: str) -> Iterator[str]:
    """Yield lines of the components that run in Pods of a namespace.

    :raises ConfigurationError: there are none.
    :raises ApiError: they can't be listed or read.
    """
    labelled = client.list(POD, namespace, label_selector=labels.APP)["items"]
    pods = [pod for pod in labelled if pod["metadata"]["labels"][labels.APP] in _COMPONENTS]
    if not pods:
        raise ConfigurationError(
            f"namespace {namespace} has no Pods of the engine: --engine-namespace is the one with the KubeVirt object, "
            "and --instance is for an engine without Kubernetes"
        )
    for pod in pods:
        for container in pod["spec"]["containers"]:
            yield from _log(client, namespace, pod["metadata"]["name"], container["name"])


def of_launchers(client: Client, namespace: str, name: str) -> Iterator[str]:
    """Yield lines of the launchers of a virtual machine, as long as there are their Pods."""
    for pod in client.list(POD, namespace, label_selector=_LAUNCHERS)["items"]:
        metadata = pod["metadata"]
        if (metadata.get("annotations") or {}).get(labels.DOMAIN) == name:
            yield from _log(client, namespace, metadata["name"], _LAUNCHER)


def _log(client: Client, namespace: str, pod: str, container: str) -> Iterator[str]:
    """Yield a container's log. One that has none yet, or isn't there any more, has no lines."""
    try:
        response = client.stream(POD.path(namespace, pod, "log"), {"container": container}, silence=_SILENCE)
    except ApiError as error:
        if error.status in (400, 404):
            return
        raise
    with closing(response):
        yield from response.data.decode(errors="replace").splitlines()
