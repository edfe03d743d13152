# SPDX-License-Identifier: GPL-3.0-or-later
"""Claims that are filled by uploads, against an API server: the test plays the user, the storage and the kubelet."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from fakeapi import FakeApi
from test_data_volume import CLAIM, CRD, DV, SCRATCH, bind, phase
from test_data_volume_plan import CLASSES, LOCAL, data_volume

from turtles import pki
from turtles.api import cdi, uploads
from turtles.api.crd import crd
from turtles.api.kinds.data_volume import DATA_VOLUME
from turtles.controller.data_volume.pod import ImporterConfig
from turtles.controller.data_volume.upload.plan import Observed, Plan, plan
from turtles.controller.data_volume.upload.pod import fingerprint, upload_pod

POD = "/api/v1/namespaces/ns/pods/cdi-upload-disk"
SERVICE = f"/apis/apiregistration.k8s.io/v1/apiservices/{uploads.API_SERVICE}"
AUTHORITY = pki.authority("virt-api", datetime.now(UTC), timedelta(days=1)).certificate_pem


@pytest.fixture
def begin(api: FakeApi, start: Callable[..., Any]) -> Callable[[], None]:
    """Start the controller."""

    def begin() -> None:
        api.put(CRD, crd(DATA_VOLUME))
        api.put("/apis/storage.k8s.io/v1/storageclasses/local-path", {**LOCAL, "kind": "StorageClass"})
        bundle = base64.b64encode(AUTHORITY.encode()).decode()
        api.put(SERVICE, {"metadata": {"name": uploads.API_SERVICE}, "spec": {"caBundle": bundle}})
        start()

    return begin


def run(api: FakeApi, phase: str, **container: Any) -> None:
    api.update(POD, {"status": {"phase": phase, "containerStatuses": [container]}})


def noted(api: FakeApi) -> dict[str, str]:
    return dict(api.objects[CLAIM]["metadata"].get("annotations") or {})


def identity(api: FakeApi) -> dict[str, str]:
    api.wait(lambda: uploads.CERTIFICATE in api.objects.get(POD, {}).get("metadata", {}).get("annotations", {}))
    name = next(v["secret"]["secretName"] for v in api.objects[POD]["spec"]["volumes"] if v["name"] == "identity")
    secret = api.objects[f"/api/v1/namespaces/ns/secrets/{name}"]
    assert secret["metadata"]["ownerReferences"][0]["uid"] == api.objects[POD]["metadata"]["uid"]
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def test_from_a_data_volume_to_an_upload(api: FakeApi, begin: Callable[[], None]) -> None:
    begin()
    api.put(DV, data_volume({"upload": {}}))
    api.wait(lambda: phase(api) == "WaitForFirstConsumer")
    bind(api)
    api.wait(lambda: SCRATCH in api.objects)
    found = identity(api)
    assert found["ca.crt"] == AUTHORITY
    certificate = x509.load_pem_x509_certificate(found["tls.crt"].encode())
    assert found["tls.crt"] == api.objects[POD]["metadata"]["annotations"][uploads.CERTIFICATE]
    assert pki.load_key(found["tls.key"].encode()).public_key() == certificate.public_key()
    api.wait(lambda: phase(api) == "UploadScheduled")
    run(api, "Running", state={"running": {}}, ready=True, restartCount=0)
    api.wait(lambda: phase(api) == "UploadReady")
    assert noted(api)[uploads.READY] == "true"
    # What a client wasn't told any more
    terminated = {"exitCode": 65, "message": "a bomb"}
    run(api, "Running", state={"waiting": {}}, lastState={"terminated": terminated}, ready=False, restartCount=1)
    api.wait(lambda: "a bomb" in str(api.objects[DV]["status"]["conditions"]))
    run(api, "Succeeded", restartCount=1)
    api.wait(lambda: phase(api) == "Succeeded")
    api.wait(lambda: POD not in api.objects and SCRATCH not in api.objects)
    assert api.objects[DV]["status"]["restartCount"] == 1
    assert noted(api)[cdi.POD_PHASE] == "Succeeded"
    api.wait(lambda: any(each.get("reason") == "UploadSucceeded" for each in list(api.objects.values())))


def test_a_claim_of_a_user(api: FakeApi, begin: Callable[[], None]) -> None:
    begin()
    made = claim()
    api.put(CLAIM, made)
    identity(api)
    arguments = api.objects[POD]["spec"]["containers"][0]["args"]
    assert f"--size={int((1 << 30) * 0.94) >> 20 << 20}" in arguments
    run(api, "Running", state={"running": {}}, ready=True)
    api.wait(lambda: noted(api).get(uploads.READY) == "true")
    leaving = {"deletionTimestamp": "2026-11-30T20:00:00Z", "finalizers": ["kubernetes.io/pvc-protection"]}
    api.update(CLAIM, {"metadata": leaving})
    api.wait(lambda: POD not in api.objects)


def claim(bound: bool = True, **annotations: str) -> dict[str, Any]:
    noted = {uploads.TARGET: "", **annotations}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "disk", "namespace": "ns", "uid": "pvc", "annotations": noted},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Bound" if bound else "Pending"},
    }


def pod(status: str = "Running", authorities: str = AUTHORITY, **container: Any) -> dict[str, Any]:
    made = upload_pod(claim(), None, ImporterConfig("importer:1"), "secret", authorities)
    made["metadata"]["annotations"][uploads.CERTIFICATE] = "pem"
    return {**made, "status": {"phase": status, "containerStatuses": [container]}}


def decide(target: dict[str, Any], **observed: Any) -> Plan:
    return plan(target, Observed(classes=CLASSES, **{"authorities": AUTHORITY, **observed}))


@pytest.mark.parametrize(
    ("target", "observed", "created"),
    [
        (claim(), {}, True),
        (claim(bound=False), {}, False),
        (claim(bound=False, **{cdi.BIND_IMMEDIATELY: "true"}), {}, True),
        (claim(), {"authorities": ""}, False),
        (claim(), {"in_the_way": "Pod cdi-upload-disk"}, False),
        (claim(**{cdi.POD_PHASE: "Succeeded"}), {}, False),
        (claim(**{cdi.POD_PHASE: "Failed"}), {}, False),
    ],
)
def test_when_a_server_is_created(target: dict[str, Any], observed: dict[str, Any], created: bool) -> None:
    assert decide(target, **observed).create_pod is created


def test_new_authorities_of_virt_api() -> None:
    old = pod(authorities="old", state={"running": {}}, ready=True)
    assert old["metadata"]["annotations"][uploads.AUTHORITIES] == fingerprint("old")
    assert decide(claim(), pod=old).delete_pod
    assert not decide(claim(), pod=old, is_busy=True).delete_pod
    assert not decide(claim(), pod=pod(state={"running": {}}, ready=True)).delete_pod


def test_restarts_come_to_an_end() -> None:
    ended = {"state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": 1, "message": "no space"}}}
    note = decide(claim(), pod=pod(**ended, restartCount=10)).note
    assert (note[cdi.POD_PHASE], "no space" in note[cdi.FAILURE_MESSAGE]) == ("Failed", True)
    assert cdi.POD_PHASE not in decide(claim(), pod=pod(**ended, restartCount=9)).note


def test_the_server_is_an_importer_that_knows_no_api() -> None:
    spec = pod()["spec"]
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert container["args"][0] == "upload"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["limits"]["memory"] == "600M"


def test_a_server_for_archives() -> None:
    """Of a claim as virtctl makes it, and of a DataVolume."""
    asked = claim(**{cdi.CONTENT_TYPE: "archive"})
    config = ImporterConfig("importer:1")
    made = data_volume({"upload": {}}, contentType="archive")
    for made_by, wanted in ((None, asked), (made, claim())):
        (container,) = upload_pod(wanted, made_by, config, "secret", "pem")["spec"]["containers"]
        assert "--archive" in container["args"]
