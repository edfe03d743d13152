# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import copy
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from aging import aged
from cryptography import x509
from fakeapi import FakeApi

from turtles.api.configuration import Rotation
from turtles.api.kinds import KINDS
from turtles.kube.client import Client
from turtles.kube.kubevirt import RESOURCES
from turtles.kube.resources import SECRET, VALIDATINGWEBHOOK, Resource
from turtles.virt_api import certificates, registered, registration
from turtles.virt_api.authentication import FrontProxy
from turtles.virt_api.certificates import Certificates
from turtles.virt_api.names import CERTIFICATES_SECRET

from .fakes import FakeClient

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ["127.0.0.1", "virt-api.kubevirt.svc"]


def test_certificates_are_kept():
    client = FakeClient()
    first = certificates.ensure(client, "kubevirt", NAMES, NOW)  # type: ignore[arg-type]
    assert client.get(SECRET, "kubevirt", CERTIFICATES_SECRET)["type"] == "kubernetes.io/tls"
    assert certificates.ensure(client, "kubevirt", NAMES, NOW + timedelta(days=20)) == first  # type: ignore[arg-type]


def test_serving_certificate_is_renewed_under_the_same_authority():
    client = FakeClient()
    first = certificates.ensure(client, "kubevirt", NAMES, NOW)  # type: ignore[arg-type]
    second = certificates.ensure(client, "kubevirt", NAMES, NOW + timedelta(days=25))  # type: ignore[arg-type]
    assert second.bundle == first.bundle
    assert second.certificate != first.certificate
    third = certificates.ensure(client, "kubevirt", [*NAMES, "more"], NOW + timedelta(days=25))  # type: ignore[arg-type]
    assert third.certificate != second.certificate


def test_authority_is_replaced_with_both_trusted():
    client = FakeClient()
    first = certificates.ensure(client, "kubevirt", NAMES, NOW)  # type: ignore[arg-type]
    later = NOW + timedelta(days=300)
    second = certificates.ensure(client, "kubevirt", NAMES, later)  # type: ignore[arg-type]
    new, old = x509.load_pem_x509_certificates(second.bundle.encode())
    assert old == x509.load_pem_x509_certificate(first.bundle.encode())
    x509.load_pem_x509_certificate(second.certificate.encode()).verify_directly_issued_by(new)
    x509.load_pem_x509_certificate(first.certificate.encode()).verify_directly_issued_by(old)
    last = certificates.make(NAMES, NOW + timedelta(days=600), second)
    assert len(x509.load_pem_x509_certificates(last.bundle.encode())) == 2


def test_lifetimes_are_those_of_the_kubevirt_object_also_for_what_was_made_before():
    client = FakeClient()
    first = certificates.ensure(client, "kubevirt", NAMES, NOW)  # type: ignore[arg-type]
    hours = Rotation(*(timedelta(hours=count) for count in (48, 24, 24, 12)))

    def at(hour: float) -> Certificates:
        moment = NOW + timedelta(hours=hour)
        return certificates.ensure(client, "kubevirt", NAMES, moment, rotation=hours)  # type: ignore[arg-type]

    # What lives longer than it should goes when it should have gone
    assert at(11) == first
    second = at(13)
    serving = x509.load_pem_x509_certificate(second.certificate.encode())
    assert serving.not_valid_after_utc == NOW + timedelta(hours=13 + 24)
    assert second.bundle == first.bundle
    third = at(25)
    new, old = x509.load_pem_x509_certificates(third.bundle.encode())
    assert old == x509.load_pem_x509_certificate(first.bundle.encode())
    assert new.not_valid_after_utc == NOW + timedelta(hours=25 + 48)


def test_no_serving_certificate_outlives_its_authority():
    week, day = timedelta(days=7), timedelta(days=1)
    same = Rotation(week, day, week, day)
    first = certificates.make(NAMES, NOW, rotation=same)
    later = certificates.make(NAMES, NOW + timedelta(days=3), first, same)
    new, old = x509.load_pem_x509_certificates(later.bundle.encode())
    assert old == x509.load_pem_x509_certificate(first.bundle.encode())
    assert x509.load_pem_x509_certificate(later.certificate.encode()).not_valid_after_utc <= new.not_valid_after_utc


def test_replicas_share_their_certificates_also_while_the_authority_is_replaced():
    client = FakeClient()
    mine = certificates.ensure(client, "kubevirt", NAMES, NOW)  # type: ignore[arg-type]
    assert certificates.ensure(client, "kubevirt", NAMES, NOW) == mine  # type: ignore[arg-type]
    later = NOW + timedelta(days=300)
    # One replica replaces the authority while the other one still serves with the certificate of before
    new = certificates.ensure(client, "kubevirt", NAMES, later)  # type: ignore[arg-type]
    assert new.certificate != mine.certificate
    trusted = x509.load_pem_x509_certificates(new.bundle.encode())
    for serving in (mine, new):
        issuers = {name.subject for name in trusted}
        assert x509.load_pem_x509_certificate(serving.certificate.encode()).issuer in issuers
    assert certificates.ensure(client, "kubevirt", NAMES, later) == new  # type: ignore[arg-type]


def test_the_slower_of_two_replicas_takes_what_the_other_one_made():
    client = FakeClient()
    winner = certificates.make(NAMES, NOW)
    create = client.create

    def slower(resource, obj):
        client.create = create
        create(resource, winner.secret("kubevirt"))
        return create(resource, obj)

    client.create = slower  # type: ignore[method-assign]
    assert certificates.ensure(client, "kubevirt", NAMES, NOW) == winner  # type: ignore[arg-type]


def test_damaged_secret_is_replaced():
    client = FakeClient()
    certificates.ensure(client, "kubevirt", NAMES, NOW)  # type: ignore[arg-type]
    secret = client.get(SECRET, "kubevirt", CERTIFICATES_SECRET)
    for damage in ({"tls.key": "!"}, {"tls.crt": ""}, {"ca.crt": "eA=="}, {"ca.key": None}):
        client.replace(
            SECRET,
            {**client.get(SECRET, "kubevirt", CERTIFICATES_SECRET), "data": {**secret["data"], **damage}},
        )
        found = certificates.ensure(client, "kubevirt", NAMES, NOW)  # type: ignore[arg-type]
        assert found.usable(NAMES, NOW)
    assert Certificates.from_secret(None) is None


def proxy(**data: str) -> tuple[FrontProxy, bytes]:
    made = certificates.make(["front-proxy-client"], NOW)
    der = x509.load_pem_x509_certificate(made.certificate.encode())
    found = FrontProxy.from_configmap({"data": {"requestheader-client-ca-file": made.bundle, **data}})
    from cryptography.hazmat.primitives.serialization import Encoding

    return found, der.public_bytes(Encoding.DER)


def test_front_proxy_is_trusted_by_authority_and_name():
    trusting, der = proxy()
    assert trusting.trusts(der)
    assert not trusting.trusts(None)
    other, _ = proxy()
    assert not other.trusts(der)
    named, der = proxy(**{"requestheader-allowed-names": '["somebody"]'})
    assert not named.trusts(der)
    named, der = proxy(**{"requestheader-allowed-names": '["virt-api"]'})
    assert named.trusts(der)
    for nothing in (None, {}, {"data": {"requestheader-client-ca-file": "x"}}):
        assert not FrontProxy.from_configmap(nothing).trusts(der)


def test_headers_name_the_user():
    found, _ = proxy(**{"requestheader-username-headers": '["X-User", "X-Remote-User"]'})
    user = found.user(
        [
            ("x-remote-user", "jane"),
            ("X-Remote-Group", "a"),
            ("X-Remote-Group", "b"),
            ("X-Remote-Extra-Scopes%2fx", "s"),
            ("X-Remote-Uid", "7"),
        ]
    )
    assert user is not None
    assert (user.name, user.groups, user.uid) == ("jane", ("a", "b"), "7")
    assert user.extra == {"scopes/x": ["s"]}
    assert found.user([("X-Remote-Group", "a")]) is None
    assert FrontProxy.from_configmap({"data": {"requestheader-group-headers": "{"}}).group_headers == (
        "X-Remote-Group",
    )


def test_registration_restores_what_was_changed():
    client = FakeClient()
    loaded: list[Certificates] = []
    found = registration.Registration(client, "kubevirt", loaded.append, "https://127.0.0.1:8443")  # type: ignore[arg-type]
    found.prepare()
    assert not found.done.is_set()
    found.sync()
    assert found.done.is_set()
    assert len(loaded) == 1
    before = client.version
    found.sync()
    assert client.version == before
    path = next(path for path in client.objects if "mutatingwebhook" in path)
    wanted = client.objects[path]["webhooks"]
    client.objects[path]["webhooks"] = wanted[:1]
    client.objects[path]["metadata"]["labels"] = {"mine": "1"}
    found.sync()
    assert client.objects[path]["webhooks"] == wanted
    assert client.objects[path]["metadata"]["labels"]["mine"] == "1"
    del client.objects["/api/v1/namespaces/kubevirt/secrets/kubevirt-virt-api-certs"]
    found.sync()
    assert len(loaded) == 2
    bundle = base64.b64encode(loaded[1].bundle.encode()).decode()
    for hook in client.objects[path]["webhooks"]:
        assert hook["clientConfig"]["caBundle"] == bundle
    endpoints = client.objects["/api/v1/namespaces/kubevirt/endpoints/virt-api"]
    assert endpoints["subsets"] == [
        {"addresses": [{"ip": "127.0.0.1"}], "ports": [{"name": "https", "port": 8443, "protocol": "TCP"}]}
    ]
    found.stop()


def test_what_virt_api_is_asked_about_is_written_once_it_is_ready():
    class Judged(FakeClient):
        def _store(self, resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
            assert resource.kind != "CDIConfig" or found.done.is_set(), "the webhook leads to nobody"
            return super()._store(resource, obj)

    client = Judged()
    found = registration.Registration(client, "kubevirt", lambda _: None)  # type: ignore[arg-type]
    found.sync()
    config = client.objects[RESOURCES["CDIConfig"].path(None, "config")]
    assert config["status"]["uploadProxyCA"].startswith("-----BEGIN")


def test_the_certificate_has_the_name_that_uploads_are_sent_to():
    client = FakeClient()
    found = registration.Registration(client, "kubevirt", lambda _: None)  # type: ignore[arg-type]
    found.sync()
    path = RESOURCES["CDIConfig"].path(None, "config")
    client.objects[path]["spec"] = {"uploadProxyURLOverride": "https://uploads.example.com/proxy"}
    found.sync()
    kept = Certificates.from_secret(client.get(SECRET, "kubevirt", CERTIFICATES_SECRET))
    assert kept is not None
    names = x509.load_pem_x509_certificate(kept.certificate.encode()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert "uploads.example.com" in names.value.get_values_for_type(x509.DNSName)
    assert client.objects[path]["status"]["uploadProxyURL"] == "https://uploads.example.com/proxy"


def test_the_certificate_has_the_host_of_an_ingress_for_exports(api: FakeApi, client: Client):
    def names() -> list[str]:
        kept = Certificates.from_secret(client.get(SECRET, "kubevirt", CERTIFICATES_SECRET))
        assert kept is not None
        certificate = x509.load_pem_x509_certificate(kept.certificate.encode())
        present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return present.value.get_values_for_type(x509.DNSName)

    api.put(
        "/api/v1/namespaces/kubevirt/pods/virt-api-1", {"metadata": {"name": "virt-api-1", "namespace": "kubevirt"}}
    )
    found = registration.Registration(client, "kubevirt", lambda _: None, pod="virt-api-1")
    found.prepare()
    found.start()
    try:
        assert found.done.wait(30)
        path = [{"backend": {"service": {"name": "virt-exportproxy", "port": {"number": 443}}}}]
        for name, host, paths in (("other", "www.example.com", []), ("exports", "exports.example.com", path)):
            obj = {
                "metadata": {"name": name, "namespace": "kubevirt"},
                "spec": {"rules": [{"host": host, "http": {"paths": paths}}]},
            }
            api.put(f"/apis/networking.k8s.io/v1/namespaces/kubevirt/ingresses/{name}", obj)
        api.wait(lambda: "exports.example.com" in names())
        assert "www.example.com" not in names()
    finally:
        found.stop()


def old_bundle(found: Certificates, days: int) -> str:
    """Return the authority as it would be if it had been created so many days earlier."""
    return aged(found.bundle.encode(), found.authority_key.encode(), days).decode()


def test_a_new_authority_is_known_everywhere_before_it_is_shown():
    client = FakeClient()
    path = VALIDATINGWEBHOOK.path(None, "virt-api-validator")

    def registered() -> str:
        return base64.b64decode(client.objects[path]["webhooks"][0]["clientConfig"]["caBundle"]).decode()

    def load(found: Certificates) -> None:
        moments.append(time.monotonic())
        assert len(moments) == 1 or registered() == found.bundle

    moments: list[float] = []
    found = registration.Registration(client, "kubevirt", load, spread=0.5)  # type: ignore[arg-type]
    found.prepare()
    found.sync()
    first = Certificates.from_secret(client.get(SECRET, "kubevirt", CERTIFICATES_SECRET))
    assert first is not None
    due = replace(first, bundle=old_bundle(first, 300)).secret("kubevirt")["data"]
    client.replace(SECRET, {**client.get(SECRET, "kubevirt", CERTIFICATES_SECRET), "data": due})
    begun = time.monotonic()
    found.sync()
    assert moments[-1] - begun >= 0.5
    new, old = x509.load_pem_x509_certificates(registered().encode())
    assert new.public_key() != old.public_key()
    x509.load_pem_x509_certificate(first.certificate.encode()).verify_directly_issued_by(old)
    # Who deletes the Secret wants nothing of before to be trusted: there is nothing to wait for
    del client.objects[SECRET.path("kubevirt", CERTIFICATES_SECRET)]
    begun = time.monotonic()
    found.sync()
    assert moments[-1] - begun < 0.5
    assert len(moments) == 3
    assert len(x509.load_pem_x509_certificates(registered().encode())) == 1


def test_certificates_that_were_replaced_too_late_are_told():
    told: list[tuple[str, ...]] = []
    client = FakeClient()
    options = {"tell": lambda obj, *words: told.append((obj["kind"], *words)), "spread": 0.0}
    found = registration.Registration(client, "kubevirt", lambda _: None, **options)  # type: ignore[arg-type]
    found.prepare()
    first = Certificates.from_secret(client.get(SECRET, "kubevirt", CERTIFICATES_SECRET))
    assert first is not None
    for days, events in ((300, 0), (400, 1)):
        old = replace(first, bundle=old_bundle(first, days)).secret("kubevirt")["data"]
        client.replace(SECRET, {**client.get(SECRET, "kubevirt", CERTIFICATES_SECRET), "data": old})
        registration.Registration(client, "kubevirt", lambda _: None, **options).prepare()  # type: ignore[arg-type]
        assert len(told) == events
    assert told[0][:3] == ("Secret", "Warning", "CertificatesExpired")
    assert "clocks" in told[0][3]


def test_an_earlier_kubernetes_that_drops_fields_is_not_written_to_again_and_again():
    class Earlier(FakeClient):
        writes = 0

        def _store(self, resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
            self.writes += 1
            obj = copy.deepcopy(obj)
            for webhook in obj.get("webhooks", []):
                webhook.pop("matchConditions", None)
            return super()._store(resource, obj)

    client = Earlier()
    found = registration.Registration(client, "kubevirt", lambda _: None)  # type: ignore[arg-type]
    found.sync()
    written = client.writes
    found.sync()
    assert client.writes == written
    webhook = client.objects[VALIDATINGWEBHOOK.path(None, "virt-api-validator")]["webhooks"][0]
    webhook["failurePolicy"] = "Ignore"
    found.sync()
    webhook = client.objects[VALIDATINGWEBHOOK.path(None, "virt-api-validator")]["webhooks"][0]
    assert webhook["failurePolicy"] == "Fail"


def test_webhooks_with_a_service():
    (_, mutating), (_, validating) = registered.webhooks("pem", "kv")
    machines = next(hook for hook in mutating["webhooks"] if hook["rules"][0]["resources"] == ["virtualmachines"])
    service = {"name": "virt-api", "namespace": "kv", "path": "/virtualmachines-mutate", "port": 443}
    assert machines["clientConfig"]["service"] == service
    assert machines["rules"][0]["apiVersions"] == ["v1", "v1alpha3"]
    names = [hook["name"] for hook in mutating["webhooks"] + validating["webhooks"]]
    assert sorted(names) == sorted(
        [
            *(f"{webhook.name}.kubevirt.io" for kind in KINDS for webhook in kind.webhooks),
            "virt-launcher-eviction-interceptor.kubevirt.io",
        ]
    )
    assert len(set(names)) == len(names)
    updates = [hook for hook in mutating["webhooks"] if hook["rules"][0]["operations"] == ["UPDATE"]]
    assert updates
    assert all("virt-handler" in hook["matchConditions"][0]["expression"] for hook in updates)
    (evictions,) = [hook for hook in validating["webhooks"] if hook["rules"][0]["resources"] == ["pods/eviction"]]
    assert evictions["failurePolicy"] == "Ignore", "nobody's drain waits for virt-api"


def test_apiservices_prefer_v1():
    found = [obj for _, obj in registered.apiservices("pem", "kv")]
    assert [obj["metadata"]["name"] for obj in found] == [
        "v1.subresources.kubevirt.io",
        "v1alpha3.subresources.kubevirt.io",
        "v1beta1.upload.cdi.kubevirt.io",
    ]
    assert found[0]["spec"]["versionPriority"] > found[1]["spec"]["versionPriority"]


def test_names():
    names = registration.serving_names("kubevirt", "https://node.example.org:1", "192.0.2.1")
    assert {"virt-api.kubevirt.svc", "node.example.org", "192.0.2.1", "127.0.0.1"} <= set(names)
    assert "0.0.0.0" not in registration.serving_names("kubevirt", None, "0.0.0.0")
