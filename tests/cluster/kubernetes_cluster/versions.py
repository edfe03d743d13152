# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Kubernetes' programs are told, from 1.20 on: options come and go."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from .errors import ClusterError

#: Major and minor number.
Version = tuple[int, int]


def version_of(program: Path) -> Version:
    """The version that a program of Kubernetes says it has.

    :raises ClusterError: it doesn't run, or is something else.
    """
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(f"{program} --version: {error}") from None
    found = re.search(r"\bv(\d+)\.(\d+)\.", done.stdout)
    if found is None:
        raise ClusterError(f"{program} --version names no version of Kubernetes: {done.stdout}{done.stderr}")
    return int(found[1]), int(found[2])


def controllers(version: Version) -> list[str]:
    """Options of kube-controller-manager and kube-scheduler that not every version has."""
    # No port without TLS. The last ones that open one are of 1.22; 1.24 doesn't know the option.
    return ["--port=0"] if version < (1, 23) else []


def kubelet(version: Version, *, socket: str, pause: str) -> list[str]:
    """Options of the kubelet that not every version has.

    :param socket: URL of the container runtime.
    :param pause: the image of Pods' first container.
    """
    options = []
    if version < (1, 24):
        # Docker is the default; 1.27 doesn't know the option.
        options.append("--container-runtime=remote")
    if version < (1, 27):
        # Later ones find the runtime in their configuration, and ask it for the image; 1.35 doesn't know the last one.
        options += [f"--container-runtime-endpoint={socket}", f"--image-service-endpoint={socket}"]
        options.append(f"--pod-infra-container-image={pause}")
    return options


def kubelet_configuration(version: Version, *, socket: str) -> dict[str, object]:
    """Fields of KubeletConfiguration that not every version has.

    :param socket: URL of the container runtime.
    """
    fields: dict[str, object] = {}
    if version >= (1, 27):
        fields["containerRuntimeEndpoint"] = socket
    if version >= (1, 31):
        # From 1.35 on a kubelet refuses to run in control groups of version 1, unless this is false.
        fields["failCgroupV1"] = False
    return fields
