# SPDX-License-Identifier: GPL-3.0-or-later
"""What Hyper-V enlightenments need of each other. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from turtles.api.objects import Object

#: What each enlightenment needs: those that others need come last.
_NEEDS = (
    ("evmcs", "vapic"),
    ("ipi", "vpindex"),
    ("tlbflush", "vpindex"),
    ("synictimer", "synic"),
    ("synic", "vpindex"),
)


def is_on(hyperv: Object, name: str) -> bool:
    """Say whether an enlightenment is switched on."""
    return bool((hyperv.get(name) or {}).get("enabled"))


def dependencies(hyperv: Object) -> Iterator[tuple[str, str]]:
    """Give each enlightenment that is on with the one it needs. Asks again after each, as that may be switched on."""
    for name, needed in _NEEDS:
        if is_on(hyperv, name):
            yield name, needed


def needs_vmx(hyperv: Object) -> bool:
    """Say whether the processor needs the feature vmx: for the enlightened VMCS, unless it is switched off."""
    evmcs = hyperv.get("evmcs")
    return evmcs is not None and evmcs.get("enabled") is not False
