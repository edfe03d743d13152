# SPDX-License-Identifier: GPL-3.0-or-later
"""What the owner of an encrypted guest is told, from libvirt's answers."""

import pytest

from turtles.domain import attestation


@pytest.mark.parametrize(
    ("security", "waits"),
    [
        ({}, False),
        ({"sev": {}}, False),
        ({"snp": {"attestation": {}}}, False),
        ({"sev": {"attestation": {}}}, True),
        ({"sev": {"attestation": {}, "session": "c2Vzc2lvbg=="}}, True),
        ({"sev": {"attestation": {}, "session": "c2Vzc2lvbg==", "dhCert": "Y2VydA=="}}, False),
    ],
)
def test_which_guests_wait_for_a_session(security, waits):
    assert attestation.waits_for_session({"spec": {"domain": {"launchSecurity": security}}}) is waits


def test_a_processors_certificates():
    told = {"pdh": "cGRo", "cert-chain": "Y2hhaW4=", "cpu0-id": "aWQ=", "cbitpos": 47, "reduced-phys-bits": 1}
    assert attestation.certificates(told) == {"pdh": "cGRo", "certChain": "Y2hhaW4="}


def test_the_measurement_of_a_launch():
    told = {
        "sev-measurement": "bWVhc3VyZW1lbnQ=",
        "sev-api-major": 0,
        "sev-api-minor": 24,
        "sev-build-id": 13,
        "sev-policy": 3,
    }
    assert attestation.measurement(told) == {
        "measurement": "bWVhc3VyZW1lbnQ=",
        "apiMajor": 0,
        "apiMinor": 24,
        "buildID": 13,
        "policy": 3,
    }
