# SPDX-License-Identifier: GPL-3.0-or-later
"""The Pod that asks a registry which image a tag stands for, as a pure function. Its last word is the digest."""

from __future__ import annotations

from turtles.api import cdi
from turtles.api.objects import Object
from turtles.controller.data_volume.pod import (
    ImporterConfig,
    registry_arguments,
    worker_pod,
)
from turtles.controller.pod.config import METRICS_PORT
from turtles.controller.pod.worker import set_arguments

#: Seconds that an answer may take.
_TIMEOUT = 300


def poller_name(cron: Object) -> str:
    """Return the name of a DataImportCron's poller. The same one always gets the same name."""
    return cdi.pod_name("poll", cron["metadata"]["name"])


def poller_pod(cron: Object, config: ImporterConfig) -> Object:
    """Return the Pod."""
    pod = worker_pod(cron, poller_name(cron), cdi.COMPONENT_POLLER, config)
    pod["metadata"]["labels"] |= {cdi.IMPORT_CRON: cron["metadata"]["name"]}
    spec = pod["spec"]
    container = spec["containers"][0]
    # What skopeo writes beside its answer
    spec["volumes"].append({"name": "work", "emptyDir": {"medium": "Memory", "sizeLimit": "32Mi"}})
    container["volumeMounts"].append({"name": "work", "mountPath": "/work"})
    arguments = ["digest", "--scratch=/work", f"--timeout={_TIMEOUT}", f"--health-port={METRICS_PORT}"]
    arguments += registry_arguments(cron["spec"]["template"]["spec"]["source"]["registry"], spec, config)
    set_arguments(container, arguments)
    return pod
