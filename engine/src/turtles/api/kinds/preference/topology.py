# SPDX-License-Identifier: GPL-3.0-or-later
"""As what a guest sees the vCPUs of an instance type (KubeVirt user guide, "Instance types and preferences")."""

from __future__ import annotations

from turtles.api.language import INVALID, Cause
from turtles.api.objects import Object, get
from turtles.api.rules import Spec

CORES, SOCKETS, THREADS, SPREAD, ANY = TOPOLOGIES = ("cores", "sockets", "threads", "spread", "any")
#: Earlier names of topologies, which draw a warning.
DEPRECATED = {f"prefer{name.title()}": name for name in TOPOLOGIES}

SOCKETS_CORES, CORES_THREADS, SOCKETS_CORES_THREADS = "SocketsCores", "CoresThreads", "SocketsCoresThreads"
SPREADS = (SOCKETS_CORES, CORES_THREADS, SOCKETS_CORES_THREADS)

_DEFAULT_RATIO = 2
#: Of the spread across sockets, cores and threads.
_THREADS_PER_CORE = 2
_RATIO = "Spec.PreferSpreadSocketToCoreRatio or Spec.CPU.PreferSpreadOptions.Ratio of {}"


def preferred_topology(preference: Spec | None) -> str:
    """Return the topology that a preference asks for, under its current name."""
    name = get(preference, "cpu", "preferredCPUTopology") or SOCKETS
    return DEPRECATED.get(name, name)


def spread_options(preference: Spec | None) -> tuple[int, str]:
    """Return ratio and kind of the topology spread."""
    options = get(preference, "cpu", "spreadOptions") or {}
    ratio = options.get("ratio") or get(preference, "preferSpreadSocketToCoreRatio") or _DEFAULT_RATIO
    return ratio, options.get("across") or SOCKETS_CORES


def topology(vcpus: int, preference: Spec | None) -> Object:
    """Return cores, sockets and threads of a guest with so many vCPUs."""
    counts = {CORES: 1, SOCKETS: 1, THREADS: 1}
    wanted = preferred_topology(preference)
    if vcpus == 1:
        return counts
    if wanted in counts:
        counts[wanted] = vcpus
    elif wanted == ANY:
        counts[SOCKETS] = vcpus
    elif wanted == SPREAD:
        ratio, across = spread_options(preference)
        if across == SOCKETS_CORES:
            counts |= {CORES: ratio, SOCKETS: vcpus // ratio}
        elif across == CORES_THREADS:
            counts |= {THREADS: ratio, CORES: vcpus // ratio}
        else:
            counts |= {THREADS: _THREADS_PER_CORE, CORES: ratio, SOCKETS: vcpus // _THREADS_PER_CORE // ratio}
    return counts


def spread_cause(instancetype: Spec | None, preference: Spec | None) -> Cause | None:
    """Return why the vCPUs of an instance type can't be spread as a preference asks; None if they can."""
    if instancetype is None or preferred_topology(preference) != SPREAD:
        return None
    vcpus = instancetype["cpu"]["guest"]
    ratio, across = spread_options(preference)
    if across == SOCKETS_CORES_THREADS:
        fits = vcpus % _THREADS_PER_CORE == 0 and vcpus // _THREADS_PER_CORE % ratio == 0
        what = f"the number of threads per core {_THREADS_PER_CORE} and {_RATIO.format(ratio)}"
    elif across == CORES_THREADS:
        fits, what = vcpus % ratio == 0, f"the number of threads per core {ratio}"
    else:
        fits, what = vcpus % ratio == 0, f"the {_RATIO.format(ratio)} provided by the preference"
    if fits:
        return None
    message = f"{vcpus} vCPUs provided by the instance type are not divisible by {what}"
    return Cause(INVALID, message, "instancetype.spec.cpu.guest")
