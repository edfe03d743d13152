# SPDX-License-Identifier: GPL-3.0-or-later
"""Aggregated discovery, and APIServices of the server's own."""

from ..conftest import Server

ACCEPT = "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"


def aggregated(server: Server, path: str, version: str = "v2") -> tuple[dict, dict]:
    """Return the headers and the document that a client like kubectl gets."""
    accept = f"{ACCEPT.format(version=version)},application/json"
    code, headers, _ = server.raw("GET", path, headers={"Accept": accept})
    assert code == 200
    return headers, server.call("GET", path, headers={"Accept": accept})[1]


def test_aggregated_discovery(server: Server) -> None:
    """Kubernetes documentation, "The Kubernetes API", "Aggregated discovery" (KEP-3352)."""
    for version in ("v2", "v2beta1"):
        headers, document = aggregated(server, "/apis", version)
        assert headers["Content-Type"] == ACCEPT.format(version=version)
        assert headers["Vary"] == "Accept"
        assert (document["kind"], document["apiVersion"]) == (
            "APIGroupDiscoveryList",
            f"apidiscovery.k8s.io/{version}",
        )
        groups = {group["metadata"]["name"]: group["versions"] for group in document["items"]}
        assert {"apps", "example.io", "rbac.authorization.k8s.io"} <= set(groups)
        assert [one["version"] for one in groups["example.io"]] == ["v1", "v1alpha3"]
        (widgets,) = groups["example.io"][0]["resources"]
        assert groups["example.io"][0]["freshness"] == "Current"
        kind = {"group": "example.io", "version": "v1", "kind": "Widget"}
        assert widgets["resource"] == "widgets"
        assert widgets["responseKind"] == kind
        assert (widgets["scope"], widgets["singularResource"]) == ("Namespaced", "widget")
        assert (widgets["shortNames"], widgets["categories"]) == (["wd"], ["all"])
        assert set(widgets["verbs"]) == {
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch",
        }
        below = {one["subresource"]: one for one in widgets["subresources"]}
        assert set(below) == {"scale", "status"}
        assert below["status"]["responseKind"] == kind
        assert below["scale"]["responseKind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}


def test_aggregated_discovery_of_the_core_group(server: Server) -> None:
    _, document = aggregated(server, "/api")
    (core,) = document["items"]
    resources = {one["resource"]: one for one in core["versions"][0]["resources"]}
    assert resources["nodes"]["scope"] == "Cluster"
    pods = resources["pods"]
    assert pods["shortNames"] == ["po"]
    eviction = next(one for one in pods["subresources"] if one["subresource"] == "eviction")
    assert eviction["responseKind"] == {"group": "policy", "version": "v1", "kind": "Eviction"}


def test_who_does_not_ask_gets_the_old_form(server: Server) -> None:
    assert server.call("GET", "/apis")[1]["kind"] == "APIGroupList"
    unknown = ACCEPT.format(version="v9")
    assert server.call("GET", "/apis", headers={"Accept": f"{unknown},application/json"})[1]["kind"] == "APIGroupList"


def test_every_version_has_an_api_service(server: Server) -> None:
    _, listed = server.call("GET", SERVICES)
    found = {one["metadata"]["name"]: one for one in listed["items"]}
    assert {"v1.", "v1.apps", "v1.example.io", "v1alpha3.example.io"} <= set(found)
    label = "kube-aggregator.kubernetes.io/automanaged"
    assert found["v1."]["metadata"]["labels"][label] == "onstart"
    assert found["v1.example.io"]["metadata"]["labels"][label] == "true"
    condition = found["v1.apps"]["status"]["conditions"][0]
    assert (condition["type"], condition["status"], condition["reason"]) == ("Available", "True", "Local")
