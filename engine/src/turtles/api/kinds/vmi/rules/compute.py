# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about processors, memory, and what the Pod requests for them."""

from __future__ import annotations

import re

from turtles.api import quantity
from turtles.api.configuration import ClusterConfiguration
from turtles.api.feature_gates import RESERVED_OVERHEAD
from turtles.api.guests import MAX_VCPUS
from turtles.api.kinds.vmi.defaults import completed
from turtles.api.kinds.vmi.headroom import memory_obstacle
from turtles.api.kinds.vmi.rules.common import Rule
from turtles.api.language import INVALID, NOT_SUPPORTED, REQUIRED, Cause
from turtles.api.objects import get
from turtles.api.rules import Causes, Spec

#: libvirt's names of features.
_FEATURE = re.compile(r"[A-Za-z0-9_.-]+")
_MIN_MEMORY = 10**6
_POLICIES = ("", "force", "require", "optional", "disable", "forbid")
_IO_THREADS_POLICIES = ("shared", "auto", "supplementalPool")
_FORMAT_WRONG = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"  # Kubernetes' words
)
_MORE_SOCKETS = "Number of sockets in CPU topology is greater than the maximum sockets allowed"


class _Amounts:
    """What a machine's Pod requests and what it may use, for the rules that compare them."""

    def __init__(self, spec: Spec, path: str) -> None:
        resources = get(spec, "domain", "resources") or {}
        self._amounts = {kind: resources.get(kind) or {} for kind in ("requests", "limits")}
        self._path = path

    def field(self, kind: str, name: str) -> str:
        """Return the path of an amount."""
        return f"{self._path}.domain.resources.{kind}.{name}"

    def value(self, kind: str, name: str) -> int:
        """Return an amount in whole units, rounded up, 0 if there is none."""
        return quantity.to_int(self._amounts[kind].get(name) or 0)

    def milli(self, kind: str, name: str) -> int:
        """Return an amount in thousandths."""
        return quantity.to_milli(self._amounts[kind].get(name) or 0)

    def text(self, kind: str, name: str) -> str:
        """Return an amount as Kubernetes writes it."""
        return quantity.canonical(self._amounts[kind].get(name) or 0)

    def negative(self, kind: str, name: str) -> Causes:
        """Refuse a negative amount."""
        if self.milli(kind, name) < 0:
            here = self.field(kind, name)
            yield Cause(INVALID, f"{here} '{self.text(kind, name)}': must be greater than or equal to 0.", here)

    def exceeded(self, name: str) -> Causes:
        """Refuse to request more than may be used."""
        if 0 < self.milli("limits", name) < self.milli("requests", name):
            request, limit = self.field("requests", name), self.field("limits", name)
            message = f"{request} '{self.text('requests', name)}' is greater than {limit} '{self.text('limits', name)}'"
            yield Cause(INVALID, message, request)


def _requested_memory(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    amounts = _Amounts(spec, path)
    here = amounts.field("requests", "memory")
    yield from amounts.negative("requests", "memory")
    if 0 < amounts.value("requests", "memory") < _MIN_MEMORY:
        message = f"{here} '{amounts.text('requests', 'memory')}': must be greater than or equal to 1M."
        yield Cause(INVALID, message, here)
    yield from amounts.negative("limits", "memory")
    yield from amounts.exceeded("memory")


def _hugepages(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    hugepages = get(spec, "domain", "memory", "hugepages")
    if hugepages is None:
        return
    page, here = hugepages.get("pageSize") or "", f"{path}.domain.memory.hugepages.pageSize"
    try:
        size = quantity.to_int(page)
    except quantity.QuantityError:
        yield Cause(INVALID, f"{here} '{page}': {_FORMAT_WRONG}", here)
        return
    if size <= 0:
        yield Cause(INVALID, f"{here} '{page}': must be greater than 0", here)
        return
    amounts = _Amounts(spec, path)
    guest = quantity.to_int(get(spec, "domain", "memory", "guest") or 0)
    amount = amounts.value("requests", "memory") or guest or amounts.value("limits", "memory")
    field = amounts.field("requests", "memory")
    start = f"{field} '{amounts.text('requests', 'memory')}'"
    if 0 < amount < size:
        yield Cause(INVALID, f"{start} must be equal to or larger than page size {here} '{page}'", field)
    elif amount % size:
        yield Cause(INVALID, f"{start} is not a multiple of the page size {here} '{page}'", field)


def _guest_memory(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    memory = get(spec, "domain", "memory") or {}
    guest, here = memory.get("guest"), f"{path}.domain.memory.guest"
    # Where memory can be added while the machine runs, its Pod's limit grows along.
    limit = quantity.to_int(get(spec, "domain", "resources", "limits", "memory") or 0)
    if guest is not None and not config.live_update and 0 < limit < quantity.to_int(guest):
        amounts = _Amounts(spec, path)
        message = (
            f"{here} '{quantity.canonical(guest)}' must be equal to or less than the memory limit "
            f"{amounts.field('limits', 'memory')} '{amounts.text('limits', 'memory')}'"
        )
        yield Cause(INVALID, message, here)
    for name in ("guest", "maxGuest", "reservedOverhead.addedOverhead"):
        amount = get(memory, *name.split("."))
        if amount is not None and quantity.parse(amount) < 0:
            here = f"{path}.domain.memory.{name}"
            yield Cause(INVALID, f"{here} '{amount}': must be greater than or equal to 0.", here)


def _little_memory(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Tell of a guest that has less memory than a kernel."""
    guest, here = get(spec, "domain", "memory", "guest"), f"{path}.domain.memory.guest"
    if guest is not None and quantity.parse(guest) < _MIN_MEMORY:
        yield Cause(INVALID, f"{here} '{guest}': must be greater than or equal to 1M.", here)


def reserved_overhead(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Refuse to reserve more memory than the engine reckons with, if that isn't switched on."""
    if get(spec, "domain", "memory", "reservedOverhead") is not None and not config.has_gate(RESERVED_OVERHEAD):
        message = "Reserved overhead memlock feature gate is not enabled in kubevirt-config"
        yield Cause(INVALID, message, f"{path}.domain.memory.reservedOverhead")


def _requested_cpu(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    amounts = _Amounts(spec, path)
    yield from amounts.negative("requests", "cpu")
    yield from amounts.negative("limits", "cpu")
    yield from amounts.exceeded("cpu")


def _other_resources(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Refuse negative amounts of anything else: they would be refused in the Pod."""
    amounts = _Amounts(spec, path)
    for kind in ("requests", "limits"):
        for name in get(spec, "domain", "resources", kind) or ():
            if name not in ("cpu", "memory"):
                yield from amounts.negative(kind, name)


def _vcpus(cpu: Spec) -> int:
    """Return the virtual processors a topology says; 0 if it says nothing."""
    counts = [cpu.get(key) or 0 for key in ("cores", "sockets", "threads")]
    total = 1
    for count in counts:
        total *= count or 1
    return total if any(counts) else 0


def _dedicated(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    cpu = get(spec, "domain", "cpu") or {}
    if not cpu.get("dedicatedCpuPlacement"):
        return
    amounts, here = _Amounts(spec, path), f"{path}.domain.cpu.dedicatedCpuPlacement"
    memory_request, memory_limit = amounts.field("requests", "memory"), amounts.field("limits", "memory")
    cpu_request, cpu_limit = amounts.field("requests", "cpu"), amounts.field("limits", "cpu")
    request, limit, vcpus = amounts.value("requests", "cpu"), amounts.value("limits", "cpu"), _vcpus(cpu)
    memory = get(spec, "domain", "memory") or {}
    said = memory.get("hugepages") is not None or quantity.to_int(memory.get("guest") or 0)
    if not said and not any(amounts.value(kind, "memory") for kind in ("requests", "limits")):
        others = f"{path}.domain.memory.hugepages or {path}.domain.memory.guest"
        yield Cause(INVALID, f"{memory_request}, {memory_limit}, {others} should be provided", memory_limit)
    for kind in ("requests", "limits"):
        if amounts.value(kind, "cpu") > 0 and amounts.value(kind, "cpu") * 1000 != amounts.milli(kind, "cpu"):
            message = f"provided resources CPU {kind} must be an interger"  # KubeVirt's spelling
            yield Cause(INVALID, message, amounts.field(kind, "cpu"))
    if 0 < amounts.value("requests", "memory") != amounts.value("limits", "memory") > 0:
        yield Cause(INVALID, f"{memory_request} must be equal to {memory_limit}", memory_request)
    if not (request or limit or vcpus):
        message = (
            f"either {cpu_request} or {cpu_limit} or {path}.domain.cpu.cores must be provided "
            "when DedicatedCPUPlacement is true "
        )
        yield Cause(INVALID, message, here)
    if 0 < request != limit > 0:
        message = f"{cpu_request} or {cpu_limit} must be equal when DedicatedCPUPlacement is true "
        yield Cause(INVALID, message, here)
    if (request > 0 or limit > 0) and vcpus > 0 and vcpus not in (request, limit):
        message = (
            f"{cpu_request} or {cpu_limit} must not be provided at the same time with {path}.domain.cpu.cores "
            "when DedicatedCPUPlacement is true "
        )
        yield Cause(INVALID, message, here)
    threads = cpu.get("threads") or 0
    got = f"{path}.domain.cpu.threads (got {threads})"
    if threads > 1 and spec.get("architecture") == "arm64":
        message = f"threads must not be greater than 1 at {got} when {path}.architecture is arm64"
        yield Cause(INVALID, message, f"{path}.architecture")
    if threads > 2:
        message = f"Not more than two threads must be provided at {got} when DedicatedCPUPlacement is true"
        yield Cause(INVALID, message, here)


def _numa(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    cpu, here = get(spec, "domain", "cpu") or {}, f"{path}.domain.cpu.numa.guestMappingPassthrough"
    if get(cpu, "numa", "guestMappingPassthrough") is None:
        return
    end = f"when NUMA topology strategy is set in {here}"
    if not cpu.get("dedicatedCpuPlacement"):
        yield Cause(INVALID, f"{path}.domain.cpu.dedicatedCpuPlacement must be set to true {end}", here)
    if get(spec, "domain", "memory", "hugepages") is None:
        yield Cause(INVALID, f"{path}.domain.memory.hugepages must be requested {end}", here)


def _emulator_thread(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    cpu = get(spec, "domain", "cpu") or {}
    if cpu.get("isolateEmulatorThread") and not cpu.get("dedicatedCpuPlacement"):
        message = "IsolateEmulatorThread should be only set in combination with DedicatedCPUPlacement"
        yield Cause(INVALID, message, f"{path}.domain.cpu.isolateEmulatorThread")


def _cpu_features(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    for index, feature in enumerate(get(spec, "domain", "cpu", "features") or ()):
        policy = feature.get("policy") or ""
        if policy not in _POLICIES:
            message = f"CPU feature {feature['name']} uses policy {policy} that is not supported."
            yield Cause(NOT_SUPPORTED, message, f"{path}.domain.cpu.features[{index}].policy")


def _sockets(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    cpu = get(spec, "domain", "cpu") or {}
    if 0 < (cpu.get("maxSockets") or 0) < (cpu.get("sockets") or 0):
        yield Cause(INVALID, _MORE_SOCKETS, f"{path}.domain.cpu.sockets")


def too_many(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Refuse more virtual processors than any machine can have. Each is an element of the domain's definition."""
    cpu = get(spec, "domain", "cpu") or {}
    most = _vcpus({**cpu, "sockets": max(cpu.get("sockets") or 0, cpu.get("maxSockets") or 0)})
    if most > MAX_VCPUS:
        here = f"{path}.domain.cpu"
        yield Cause(INVALID, f"{here}: {most} virtual processors exceed the maximum of {MAX_VCPUS}", here)


def _feature_names(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Tell of names that no feature of a processor can have."""
    for index, feature in enumerate(get(spec, "domain", "cpu", "features") or ()):
        if not _FEATURE.fullmatch(feature["name"]):
            here = f"{path}.domain.cpu.features[{index}].name"
            yield Cause(INVALID, f"{here} '{feature['name']}': must be letters, digits, '-', '_' and '.'", here)


def realtime(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Refuse realtime scheduling without the processors it needs."""
    cpu, here = get(spec, "domain", "cpu") or {}, f"{path}.domain.cpu"
    if cpu.get("realtime") is None:
        return
    used = f"when {here}.realtime is used"
    if not cpu.get("dedicatedCpuPlacement"):
        field = f"{here}.dedicatedCpuPlacement"
        yield Cause(REQUIRED, f"{field} must be set to true {used}", field)
    if get(cpu, "numa", "guestMappingPassthrough") is None:
        field = f"{here}.numa.guestMappingPassthrough"
        yield Cause(REQUIRED, f"{field} must be defined {used}", field)


def io_threads(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Check the policy of IO threads."""
    domain = spec["domain"]
    policy = domain.get("ioThreadsPolicy")
    if policy is None:
        return
    if policy not in _IO_THREADS_POLICIES:
        yield Cause(INVALID, f"Invalid IOThreadsPolicy ({policy})", f"{path}.domain.ioThreadsPolicy")
    if policy == "supplementalPool" and not get(domain, "ioThreads", "supplementalPoolThreadCount"):
        message = "the number of iothreads needs to be set and positive for the dedicated policy"
        yield Cause(INVALID, message, f"{path}.domain.ioThreads.count")


def no_memory(spec: Spec, path: str) -> Causes:
    """Tell if nothing says how much memory the machine has. A template may leave that to its instances."""
    memory = get(spec, "domain", "memory") or {}
    has_memory = memory.get("guest") is not None or memory.get("hugepages") is not None
    if not has_memory and not any(_Amounts(spec, path).value(kind, "memory") for kind in ("requests", "limits")):
        message = (
            f"no memory requested, at least one of '{path}.domain.memory.guest', "
            f"'{path}.domain.memory.hugepages.pageSize' or '{path}.domain.resources.requests.memory' must be set"
        )
        yield Cause(REQUIRED, message)


def live_update(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Tell if a VirtualMachine's template says that its instances may grow, and they can't.

    :param spec: the template's.
    """
    if not config.live_update:
        return
    spec = completed(spec, config)
    yield from _sockets(spec, path, config)
    most = get(spec, "domain", "memory", "maxGuest")
    if most is not None and (obstacle := memory_obstacle(spec, most)):
        yield Cause(INVALID, obstacle, f"{path}.domain.memory.guest")


MEMORY: tuple[Rule, ...] = (_requested_memory, _hugepages, _guest_memory)
PROCESSORS: tuple[Rule, ...] = (
    _requested_cpu,
    _other_resources,
    _dedicated,
    _numa,
    _emulator_thread,
    _cpu_features,
    _sockets,
)
RULES: tuple[Rule, ...] = (*MEMORY, *PROCESSORS, realtime, io_threads)
FUTILE: tuple[Rule, ...] = (_little_memory, _feature_names)
