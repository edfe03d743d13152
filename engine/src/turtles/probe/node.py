# SPDX-License-Identifier: GPL-3.0-or-later
"""What a probe of a node found out, as files in a folder: written where QEMU is, read by the node agent.

On a cluster the agent's image has no QEMU: an init container of its Pod, from the launcher's image, does the probing.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from turtles.probe import kvm

_KVM, _DOMAIN, _HOST, _FEATURES = "kvm.json", "domcapabilities.xml", "capabilities.xml", "features.xml"
#: Below the folder: what libvirt has found out about QEMU, for launchers to start with.
CACHE = "cache"


@dataclass(frozen=True)
class Findings:
    """What was found.

    ``kvm``: outcome of the guest that was run, None without /dev/kvm. The other three are libvirt's documents, empty
    if it gave none: domain capabilities (of KVM where that works), the host's capabilities, and its CPU model with all
    features written out.
    """

    kvm: kvm.Result | None
    domain_capabilities: str = ""
    host_capabilities: str = ""
    features: str = ""


def write(folder: Path, findings: Findings) -> None:
    """Store findings; readers see all of them or the ones of before."""
    for name, text in (
        (_DOMAIN, findings.domain_capabilities),
        (_HOST, findings.host_capabilities),
        (_FEATURES, findings.features),
        (_KVM, json.dumps(asdict(findings.kvm) if findings.kvm else None)),
    ):
        draft = folder / f".{name}"
        draft.write_text(text)
        draft.replace(folder / name)


def read(folder: Path) -> Findings:
    """Return the stored findings.

    :raises OSError, ValueError: if there are none.
    """
    result = json.loads((folder / _KVM).read_text())
    return Findings(
        kvm.Result(**result) if result else None,
        *((folder / name).read_text() for name in (_DOMAIN, _HOST, _FEATURES)),
    )
