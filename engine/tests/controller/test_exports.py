# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports against an API server: the test plays the user, the storage and the kubelet."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from fakeapi import FakeApi
from test_export_plan import claim, export, machine

from turtles import pki
from turtles.api import exports
from turtles.api.times import now, rfc3339

EXPORT = "/apis/export.kubevirt.io/v1/namespaces/ns/virtualmachineexports/e"
CORE = "/api/v1/namespaces/ns"
CLAIM, POD, SERVICE = (
    f"{CORE}/persistentvolumeclaims/root",
    f"{CORE}/pods/virt-export-e",
    f"{CORE}/services/virt-export-e",
)
LAUNCHER = f"{CORE}/pods/virt-launcher-web"
TOKEN = f"{CORE}/secrets/export-token-e"
VM = "/apis/kubevirt.io/v1/namespaces/ns/virtualmachines/web"
VMI = "/apis/kubevirt.io/v1/namespaces/ns/virtualmachineinstances/web"
API_SERVICE = "/apis/apiregistration.k8s.io/v1/apiservices/v1.subresources.kubevirt.io"
INGRESS = "/apis/networking.k8s.io/v1/namespaces/kubevirt/ingresses/exports"
AUTHORITY = pki.authority("virt-api", datetime.now(UTC), timedelta(days=1)).certificate_pem


@pytest.fixture
def begin(api: FakeApi, start: Callable[..., Any]) -> Callable[..., None]:
    """Start the controller; virt-api may say where it is reached."""

    def begin(address: str = "https://192.0.2.1:8443") -> None:
        annotations = {exports.ADDRESS: address} if address else {}
        bundle = base64.b64encode(AUTHORITY.encode()).decode()
        metadata = {"name": API_SERVICE.rpartition("/")[2], "annotations": annotations}
        api.put(API_SERVICE, {"metadata": metadata, "spec": {"caBundle": bundle}})
        start()

    return begin


def put(api: FakeApi, made: dict[str, Any]) -> None:
    made["metadata"] |= {"creationTimestamp": now()}
    api.put(EXPORT, made)


def status(api: FakeApi) -> dict[str, Any]:
    return dict(api.objects.get(EXPORT, {}).get("status") or {})


def ready(api: FakeApi) -> dict[str, Any]:
    return next((each for each in status(api).get("conditions") or () if each["type"] == "Ready"), {})


def identity(api: FakeApi) -> tuple[str, dict[str, str]]:
    """Wait for the identity of the Pod: the name of Secret and ConfigMap, and what is in the Secret."""
    api.wait(lambda: exports.CERTIFICATE in api.objects.get(POD, {}).get("metadata", {}).get("annotations", {}))
    name = next(each["secret"]["secretName"] for each in volumes(api) if each["name"] == "identity")
    secret = api.objects[f"{CORE}/secrets/{name}"]
    assert secret["metadata"]["ownerReferences"][0]["uid"] == api.objects[POD]["metadata"]["uid"]
    return name, {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def volumes(api: FakeApi) -> list[dict[str, Any]]:
    return list(api.objects[POD]["spec"]["volumes"])


def run(api: FakeApi) -> None:
    api.update(POD, {"status": {"phase": "Running", "containerStatuses": [{"ready": True, "state": {"running": {}}}]}})


def test_from_a_claim_to_links(api: FakeApi, begin: Callable[..., None]) -> None:
    begin()
    api.put(CLAIM, claim())
    put(api, export("PersistentVolumeClaim", "root"))
    _, found = identity(api)
    assert api.objects[SERVICE]["spec"]["selector"] == {exports.SERVICE_LABEL: "virt-export-e"}
    assert api.objects[SERVICE]["spec"]["selector"].items() <= api.objects[POD]["metadata"]["labels"].items()
    for path in (SERVICE, POD, TOKEN):
        assert api.objects[path]["metadata"]["ownerReferences"][0]["name"] == "e"
    assert len(base64.b64decode(api.objects[TOKEN]["data"]["token"])) == 20
    certificate = x509.load_pem_x509_certificate(found["tls.crt"].encode())
    assert pki.covers(certificate, ["virt-export-e.ns.svc"])
    api.wait(lambda: ready(api).get("reason") == "PodPending")
    run(api)
    api.wait(lambda: status(api).get("phase") == "Ready")
    links = status(api)["links"]
    assert links["internal"]["cert"] == found["tls.crt"].strip()
    assert links["external"]["cert"] == AUTHORITY.strip()
    assert links["external"]["volumes"][0]["formats"][0]["url"].startswith("https://192.0.2.1:8443/api/export.kubevirt")
    assert "manifests" not in links["internal"]
    # The Pod of an export that has ended is replaced
    uid = api.objects[POD]["metadata"]["uid"]
    api.update(POD, {"status": {"phase": "Failed"}})
    api.wait(lambda: api.objects.get(POD, {}).get("metadata", {}).get("uid") not in (uid, None))
    assert status(api)["phase"] == "Pending"
    assert len([path for path in api.objects if path.startswith(f"{CORE}/secrets/export-token")]) == 1


def test_a_machine_that_is_started_again(api: FakeApi, begin: Callable[..., None]) -> None:
    begin()
    api.put(CLAIM, claim())
    vm = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", **machine()}
    api.put(VM, vm)
    vmi = {"metadata": {"name": "web", "namespace": "ns"}, "spec": vm["spec"]["template"]["spec"]}
    running = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", **vmi, "status": {"phase": "Running"}}
    # Of somebody else, so that no VirtualMachine stops it; without its Pod it would fail
    running["metadata"] |= {
        "uid": "web",
        "ownerReferences": [{"kind": "Other", "name": "o", "uid": "o", "controller": True}],
    }
    owner = {"kind": "VirtualMachineInstance", "name": "web", "uid": "web", "controller": True}
    metadata = {"name": "virt-launcher-web", "namespace": "ns", "labels": {"kubevirt.io": "virt-launcher"}}
    launcher = {"metadata": {**metadata, "ownerReferences": [owner]}, "spec": {}, "status": {"phase": "Running"}}
    api.put(LAUNCHER, launcher)
    api.put(VMI, running)
    put(api, export())
    api.wait(lambda: ready(api).get("reason") == "InUse")
    assert POD not in api.objects
    api.update(VMI, {"status": {"phase": "Succeeded"}})
    name, found = identity(api)
    run(api)
    api.wait(lambda: status(api).get("phase") == "Ready")
    assert status(api)["virtualMachineName"] == "web"
    data = api.objects[f"{CORE}/configmaps/{name}"]["data"]
    assert {link: [each["kind"] for each in json.loads(text)["items"]] for link, text in data.items()} == {
        link: ["ConfigMap", "VirtualMachine", "DataVolume"] for link in ("internal", "external")
    }
    assert json.loads(data["internal"])["items"][0]["data"]["ca.pem"] == found["tls.crt"]
    api.put(LAUNCHER, launcher)
    api.update(VMI, {"status": {"phase": "Running"}})
    api.wait(lambda: POD not in api.objects)
    api.wait(lambda: ready(api).get("reason") == "InUse" and "links" not in status(api))


def test_a_claim_that_another_pod_has(api: FakeApi, begin: Callable[..., None]) -> None:
    begin()
    other = {"metadata": {"name": "busy", "namespace": "ns"}, "status": {"phase": "Running"}}
    other["spec"] = {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "root"}}]}
    api.put(f"{CORE}/pods/busy", {"apiVersion": "v1", "kind": "Pod", **other})
    api.put(CLAIM, claim())
    put(api, export("PersistentVolumeClaim", "root"))
    api.wait(lambda: ready(api).get("reason") == "InUse")
    assert "Pod busy" in ready(api)["message"]
    api.update(f"{CORE}/pods/busy", {"status": {"phase": "Succeeded"}})
    api.wait(lambda: POD in api.objects)


def test_a_token_of_the_user(api: FakeApi, begin: Callable[..., None]) -> None:
    begin()
    api.put(CLAIM, claim())
    put(api, export("PersistentVolumeClaim", "root", tokenSecretRef="mine"))
    identity(api)
    assert TOKEN not in api.objects
    assert {"name": "token", "secret": {"secretName": "mine"}} in volumes(api)


def test_its_time_is_over(api: FakeApi, begin: Callable[..., None]) -> None:
    begin()
    api.put(CLAIM, claim())
    put(api, export("PersistentVolumeClaim", "root", ttlDuration="2s"))
    api.wait(lambda: EXPORT not in api.objects)


def test_a_server_whose_certificate_nobody_noted(api: FakeApi, begin: Callable[..., None]) -> None:
    """virt-controller died between the Secret and the annotation: nobody can read the Secret any more."""
    begin()
    api.put(CLAIM, claim())
    put(api, export("PersistentVolumeClaim", "root"))
    identity(api)
    uid = api.objects[POD]["metadata"]["uid"]
    api.update(POD, {"metadata": {"annotations": {exports.CERTIFICATE: None}}})
    api.wait(lambda: api.objects.get(POD, {}).get("metadata", {}).get("uid") not in (uid, None))
    identity(api)


@pytest.mark.parametrize(("tls", "certificate"), [(None, AUTHORITY.strip()), ([{"secretName": "public"}], "")])
def test_an_ingress_says_where_virt_api_is(
    api: FakeApi, begin: Callable[..., None], tls: Any, certificate: str
) -> None:
    path = {"path": "/", "backend": {"service": {"name": "virt-exportproxy"}}}
    spec = {"rules": [{"host": "exports.example.com", "http": {"paths": [path]}}], **({"tls": tls} if tls else {})}
    api.put(INGRESS, {"metadata": {"name": "exports", "namespace": "kubevirt"}, "spec": spec})
    begin(address="")
    api.put(CLAIM, claim())
    put(api, export("PersistentVolumeClaim", "root"))
    identity(api)
    run(api)
    api.wait(lambda: status(api).get("phase") == "Ready")
    external = status(api)["links"]["external"]
    assert external["cert"] == certificate
    assert external["volumes"][0]["formats"][0]["url"].startswith("https://exports.example.com/api/export.kubevirt.io/")


def test_the_deadline_of_the_server_is_that_of_the_export(api: FakeApi, begin: Callable[..., None]) -> None:
    begin()
    api.put(CLAIM, claim())
    put(api, export("PersistentVolumeClaim", "root", ttlDuration="1h"))
    identity(api)
    expiry = exports.expires_at(api.objects[EXPORT])
    assert expiry is not None
    assert f"--deadline={rfc3339(expiry)}" in api.objects[POD]["spec"]["containers"][0]["args"]
    api.wait(lambda: status(api).get("ttlExpirationTime") == rfc3339(expiry))
