# SPDX-License-Identifier: GPL-3.0-or-later
"""Services: cluster IPs and node ports are given out once, checked, kept and given back."""

import ipaddress
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from apiserver.conftest import Server

PATH = "/api/v1/namespaces/default/services"
RANGE = ipaddress.ip_network("10.96.0.0/16")


def service(name: str, **spec: object) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}], **spec},
    }


@pytest.fixture
def make(server):
    """Creates Services that go with the test."""
    made = []

    def create(name: str, **spec: object) -> dict:
        code, body = server.call("POST", PATH, service(name, **spec))
        assert code == 201, body
        made.append(name)
        return body

    yield create
    for name in made:
        server.call("DELETE", f"{PATH}/{name}")


def refused(server, body: dict, method: str = "POST", path: str = PATH) -> str:
    code, answer = server.call(method, path, body)
    assert code == 422, answer
    assert answer["reason"] == "Invalid"
    return answer["message"]


def test_the_server_is_a_service_itself(server):
    code, found = server.call("GET", f"{PATH}/kubernetes")
    assert code == 200
    assert found["spec"]["clusterIP"] == "10.96.0.1"
    assert found["spec"]["ports"] == [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": server.port}]
    _, endpoints = server.call("GET", "/api/v1/namespaces/default/endpoints/kubernetes")
    assert endpoints["subsets"][0]["ports"][0]["port"] == server.port
    _, slices = server.call("GET", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")
    assert slices["endpoints"][0]["addresses"] == ["127.0.0.1"]


def test_an_address_is_given_and_kept(server, make):
    spec = make("web")["spec"]
    assert ipaddress.ip_address(spec["clusterIP"]) in RANGE
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    assert (spec["type"], spec["sessionAffinity"], spec["internalTrafficPolicy"]) == ("ClusterIP", "None", "Cluster")
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    assert spec["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    # kubectl apply and controllers send what they know: no address.
    code, replaced = server.call("PUT", f"{PATH}/web", service("web", ports=[{"port": 81}]))
    assert code == 200, replaced
    assert replaced["spec"]["clusterIP"] == spec["clusterIP"]
    other = service("web", clusterIP="10.96.7.7")
    assert "may not change once set" in refused(server, other, "PUT", f"{PATH}/web")


def test_a_given_address_is_checked(server, make):
    make("fixed", clusterIP="10.96.0.99")
    taken = refused(server, service("second", clusterIP="10.96.0.99"))
    assert taken == (
        'Service "second" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.99"]: failed to allocate IP '
        "10.96.0.99: provided IP is already allocated"
    )
    outside = refused(server, service("second", clusterIP="10.1.2.3"))
    assert "the provided IP (10.1.2.3) is not in the valid range. The range of valid IPs is 10.96.0.0/16" in outside
    assert server.call("DELETE", f"{PATH}/fixed")[0] == 200
    assert make("third", clusterIP="10.96.0.99")["spec"]["clusterIP"] == "10.96.0.99"


def test_headless_and_external_names_have_no_address(server, make):
    assert make("headless", clusterIP="None")["spec"]["clusterIPs"] == ["None"]
    named = make("named", type="ExternalName", externalName="example.org", ports=[])["spec"]
    assert "clusterIP" not in named
    assert "spec.externalName: Required value" in refused(server, service("bad", type="ExternalName"))


def test_node_ports(server, make):
    given = make("np", type="NodePort", ports=[{"name": "a", "port": 80}, {"name": "b", "port": 81}])["spec"]
    numbers = [port["nodePort"] for port in given["ports"]]
    assert len(set(numbers)) == 2
    assert all(30000 <= number <= 32767 for number in numbers)
    assert given["externalTrafficPolicy"] == "Cluster"
    make("fixed", type="NodePort", ports=[{"port": 80, "nodePort": 30007}])
    message = refused(server, service("second", type="NodePort", ports=[{"port": 80, "nodePort": 30007}]))
    assert "spec.ports[0].nodePort: Invalid value: 30007: provided port is already allocated" in message
    message = refused(server, service("second", type="NodePort", ports=[{"port": 80, "nodePort": 8080}]))
    assert "provided port is not in the valid range. The range of valid ports is 30000-32767" in message
    message = refused(server, service("second", ports=[{"port": 80, "nodePort": 30008}]))
    assert "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'" in message
    dns = [{"name": name, "port": 53, "protocol": protocol} for name, protocol in (("t", "TCP"), ("u", "UDP"))]
    shared = make("dns", type="NodePort", ports=dns)["spec"]["ports"]
    assert shared[0]["nodePort"] == shared[1]["nodePort"]


def test_a_change_of_type_takes_and_gives_back(server, make):
    address = make("web")["spec"]["clusterIP"]
    merge = "application/merge-patch+json"
    _, changed = server.call("PATCH", f"{PATH}/web", {"spec": {"type": "NodePort"}}, merge)
    number = changed["spec"]["ports"][0]["nodePort"]
    assert changed["spec"]["clusterIP"] == address
    _, changed = server.call("PATCH", f"{PATH}/web", {"spec": {"type": "ClusterIP"}}, merge)
    assert "nodePort" not in changed["spec"]["ports"][0]
    assert "externalTrafficPolicy" not in changed["spec"]
    make("other", type="NodePort", ports=[{"port": 80, "nodePort": number}])
    external = {"spec": {"type": "ExternalName", "externalName": "example.org"}}
    code, changed = server.call("PATCH", f"{PATH}/web", external, merge)
    assert code == 200, changed
    assert "clusterIP" not in changed["spec"]
    assert make("next", clusterIP=address)["spec"]["clusterIP"] == address


def test_a_dry_run_takes_nothing(server, make):
    body = service("dry", clusterIP="10.96.0.77", type="NodePort", ports=[{"port": 80, "nodePort": 30077}])
    code, answer = server.call("POST", f"{PATH}?dryRun=All", body)
    assert code == 201
    assert answer["spec"]["ports"][0]["nodePort"] == 30077
    make("real", clusterIP="10.96.0.77", type="NodePort", ports=[{"port": 80, "nodePort": 30077}])


def test_of_many_at_once_one_gets_the_port(server):
    bodies = [service(f"race{n}", type="NodePort", ports=[{"port": 80, "nodePort": 30111}]) for n in range(16)]
    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(lambda body: server.call("POST", PATH, body)[0], bodies))
    assert sorted(codes) == [201] + [422] * 15
    for number in range(16):
        server.call("DELETE", f"{PATH}/race{number}")


def test_a_restart_forgets_no_address(stopped):
    stopped.start()
    code, _ = stopped.call("POST", PATH, service("web", clusterIP="10.96.0.50"))
    assert code == 201
    stopped.stop(signal.SIGKILL)
    stopped.start()
    assert "already allocated" in refused(stopped, service("two", clusterIP="10.96.0.50"))


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("Web", {}, "a lowercase RFC 1123 label must consist of"),
        ("a.web", {}, "must not contain dots"),
        ("web", {"ports": []}, "spec.ports: Required value"),
        (
            "web",
            {"ports": [{"port": 0}]},
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        ("web", {"ports": [{"port": 1}, {"port": 2}]}, "spec.ports[0].name: Required value"),
        (
            "web",
            {"ports": [{"port": 1, "protocol": "ICMP"}]},
            'spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"',
        ),
        ("web", {"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 1}]}, "spec.ports[1]: Duplicate value"),
        ("web", {"type": "Magic"}, "spec.type: Unsupported value"),
        ("web", {"sessionAffinity": "Sticky"}, "spec.sessionAffinity: Unsupported value"),
        ("web", {"clusterIP": "None", "type": "NodePort"}, "may not be set to 'None' for NodePort services"),
        ("web", {"ipFamilies": ["IPv6"]}, 'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster'),
        ("web", {"externalTrafficPolicy": "Local"}, "may only be set for externally-accessible services"),
        ("web", {"clusterIP": "nonsense"}, "must be a valid IP address"),
        ("web", {"clusterIP": "fd00::1"}, 'spec.clusterIPs[0]: Invalid value: ["fd00::1"]: IPv6 is not configured'),
        ("web", {"ipFamilyPolicy": "RequireDualStack"}, "this cluster is not configured for dual-stack services"),
        ("web", {"clusterIPs": ["10.96.0.9"]}, "must be empty when `clusterIP` is not specified"),
    ],
)
def test_what_is_no_service_is_refused(server, name, spec, message):
    assert message in refused(server, service(name, **spec))


@pytest.fixture(scope="module")
def dual(tmp_path_factory):
    """A server with cluster IPs of both families."""
    one = Server(tmp_path_factory.mktemp("dual")).start("--service-cidr=10.96.0.0/16,fd00:96::/112")
    yield one
    one.stop()


def families(spec: dict) -> tuple:
    kinds = ["IPv6" if ":" in address else "IPv4" for address in spec["clusterIPs"] if address != "None"]
    return spec["ipFamilyPolicy"], spec["ipFamilies"], kinds


IPV4, IPV6 = ["IPv4"], ["IPv6"]
BOTH, TURNED = ["IPv4", "IPv6"], ["IPv6", "IPv4"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, ("SingleStack", IPV4, IPV4)),
        ({"ipFamilies": IPV6}, ("SingleStack", IPV6, IPV6)),
        ({"clusterIP": "fd00:96::99"}, ("SingleStack", IPV6, IPV6)),
        ({"ipFamilyPolicy": "PreferDualStack"}, ("PreferDualStack", BOTH, BOTH)),
        ({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": IPV6}, ("RequireDualStack", TURNED, TURNED)),
        (
            {"ipFamilyPolicy": "RequireDualStack", "clusterIP": "10.96.9.9", "clusterIPs": ["10.96.9.9", "fd00:96::9"]},
            ("RequireDualStack", BOTH, BOTH),
        ),
        ({"clusterIP": "None", "ipFamilyPolicy": "PreferDualStack"}, ("PreferDualStack", BOTH, [])),
        # Endpoints that somebody else writes may be of any family
        ({"clusterIP": "None", "selector": {}}, ("RequireDualStack", BOTH, [])),
    ],
)
def test_families_that_follow(dual, spec, expected):
    code, body = dual.call("POST", PATH, service("web", **spec))
    assert code == 201, body
    assert families(body["spec"]) == expected
    assert body["spec"]["clusterIP"] == body["spec"]["clusterIPs"][0]
    assert dual.call("DELETE", f"{PATH}/web")[0] == 200


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"ipFamilies": BOTH},
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' "
            "when multiple IP families are specified",
        ),
        (
            {"clusterIP": "10.96.9.9", "clusterIPs": ["10.96.9.9", "10.96.9.8"], "ipFamilyPolicy": "PreferDualStack"},
            "may specify no more than one IP for each IP family",
        ),
        ({"clusterIP": "10.96.9.9", "ipFamilies": IPV6}, "expected an IPv6 value as indicated by `ipFamilies[0]`"),
        ({"ipFamilies": ["IPv4", "IPv4"]}, 'spec.ipFamilies[1]: Duplicate value: "IPv4"'),
        ({"ipFamilies": ["IPX"]}, 'spec.ipFamilies[0]: Unsupported value: "IPX"'),
        ({"clusterIP": "fd00:97::1"}, "The range of valid IPs is fd00:96::/112"),
        ({"clusterIP": "None", "clusterIPs": ["None", "10.96.9.9"]}, "'None' must be the first and only value"),
    ],
)
def test_families_that_make_no_sense(dual, spec, message):
    assert message in refused(dual, service("web", **spec))


def test_a_second_family_comes_and_goes(dual):
    merge = "application/merge-patch+json"

    def patched(**spec: object) -> dict:
        code, body = dual.call("PATCH", f"{PATH}/web", {"spec": spec}, merge)
        assert code == 200, body
        return body["spec"]

    first = dual.call("POST", PATH, service("web"))[1]["spec"]["clusterIP"]
    both = patched(ipFamilyPolicy="PreferDualStack")
    assert (both["clusterIP"], families(both)) == (first, ("PreferDualStack", BOTH, BOTH))
    # A client that knows nothing of families changes something else
    code, body = dual.call("PUT", f"{PATH}/web", service("web", clusterIP=first, ports=[{"port": 81}]))
    assert (code, body["spec"]["clusterIPs"]) == (200, both["clusterIPs"])
    code, body = dual.call("PATCH", f"{PATH}/web", {"spec": {"clusterIPs": [first], "ipFamilies": IPV4}}, merge)
    assert (code, "must be set to 'SingleStack' when releasing the secondary clusterIP" in body["message"]) == (
        422,
        True,
    )
    code, body = dual.call("PATCH", f"{PATH}/web", {"spec": {"ipFamilies": TURNED}}, merge)
    assert (code, "spec.ipFamilies[0]" in body["message"]) == (422, True)
    assert families(patched(ipFamilyPolicy="SingleStack")) == ("SingleStack", IPV4, IPV4)
    # The address that was given back is free
    code, body = dual.call("POST", PATH, service("next", clusterIP=both["clusterIPs"][1]))
    assert code == 201, body
    for name in ("web", "next"):
        assert dual.call("DELETE", f"{PATH}/{name}")[0] == 200
