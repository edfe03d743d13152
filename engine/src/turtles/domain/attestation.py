# SPDX-License-Identifier: GPL-3.0-or-later
"""What an encrypted guest's owner is told before the guest runs, from what libvirt says. Pure.

Names on the one side are KubeVirt's (SEVPlatformInfo, SEVMeasurementInfo), on the other libvirt's
(``virNodeGetSEVInfo``, ``virDomainGetLaunchSecurityInfo``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turtles.api.objects import Object, get

_CERTIFICATES = {"pdh": "pdh", "certChain": "cert-chain"}
_MEASUREMENT = {
    "measurement": "sev-measurement",
    "apiMajor": "sev-api-major",
    "apiMinor": "sev-api-minor",
    "buildID": "sev-build-id",
    "policy": "sev-policy",
}


def waits_for_session(vmi: Mapping[str, Any]) -> bool:
    """Say whether a guest may not be launched yet: its owner wants to know where, and hasn't sent a session."""
    sev = get(dict(vmi), "spec", "domain", "launchSecurity", "sev") or {}
    return sev.get("attestation") is not None and not (sev.get("session") and sev.get("dhCert"))


def certificates(information: Mapping[str, Any]) -> Object:
    """Return the certificates of a node's processor."""
    return _named(_CERTIFICATES, information)


def measurement(information: Mapping[str, Any]) -> Object:
    """Return the measurement of a launch."""
    return _named(_MEASUREMENT, information)


def _named(names: Mapping[str, str], information: Mapping[str, Any]) -> Object:
    return {name: information[theirs] for name, theirs in names.items() if theirs in information}
