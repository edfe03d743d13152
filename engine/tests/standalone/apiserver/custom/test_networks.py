# SPDX-License-Identifier: GPL-3.0-or-later
"""NetworkAttachmentDefinitions, whose configuration the server reads."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ..conftest import Server

MANIFEST = Path(__file__).parents[5] / "roles/handler/files/networks.yaml"
NETWORKS = "/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions"


@pytest.fixture(scope="module")
def networks(server: Server) -> Iterator[Server]:
    """A server with the definition that the role handler applies."""
    definition = yaml.safe_load(MANIFEST.read_text())[0]
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    code, answer = server.call("POST", path, definition)
    assert code == 201, answer
    deadline = time.monotonic() + 10
    while server.call("GET", NETWORKS)[0] != 200:
        assert time.monotonic() < deadline
    yield server
    server.call("DELETE", f"{path}/{definition['metadata']['name']}")


def network(config: object, **metadata: object) -> dict:
    text = config if isinstance(config, str) else json.dumps(config)
    return {"metadata": {"name": "blue", **metadata}, "spec": {"config": text}}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "is not valid JSON: Expecting property name"),
        ({"cniVersion": "0.4.0"}, "lacks the type: the name of a CNI plugin, such as bridge or macvlan"),
        ({"plugins": [{"type": "bridge"}, {"mtu": 1400}]}, "lacks the type of plugins[1]"),
    ],
)
def test_a_configuration_that_is_none_is_refused(networks: Server, config: object, words: str) -> None:
    code, answer = networks.call("POST", NETWORKS, network(config))
    assert (code, answer["details"]["causes"][0]["field"]) == (422, "spec.config")
    assert words in answer["message"]


def test_a_configuration_is_accepted_and_stays_changeable(networks: Server) -> None:
    code, answer = networks.call("POST", NETWORKS, network({"type": "bridge", "bridge": "br1"}))
    assert code == 201, answer
    version = {"resourceVersion": answer["metadata"]["resourceVersion"]}
    code, answer = networks.call("PUT", f"{NETWORKS}/blue", network("[]", **version))
    assert (code, "must be a JSON object" in answer["message"]) == (422, True)
    code, answer = networks.call("PUT", f"{NETWORKS}/blue", network({"plugins": [{"type": "macvlan"}]}, **version))
    assert code == 200, answer
    assert networks.call("DELETE", f"{NETWORKS}/blue")[0] == 200
