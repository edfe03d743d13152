# SPDX-License-Identifier: GPL-3.0-or-later
import json

import pytest

from turtles.domain.handover import HandoverError, launcher_view, read_view

IDENTITY = ("default", "testvm", "uid-1")
VMI = {
    "apiVersion": "kubevirt.io/v1",
    "metadata": {
        "namespace": "default",
        "name": "testvm",
        "uid": "uid-1",
        "labels": {"app": "web"},
        "annotations": {"note": "x" * 200_000},
        "managedFields": [{}],
    },
    "spec": {"domain": {}, "volumes": [{"name": "seed", "cloudInitNoCloud": {"userData": "pässword: 🐢\n"}}]},
    "status": {"phase": "Scheduled", "volumeStatus": [{"name": "disk", "target": ""}]},
}


def test_the_launcher_gets_what_it_needs_and_nothing_more() -> None:
    assert read_view(launcher_view(VMI), *IDENTITY) == {
        "metadata": {"namespace": "default", "name": "testvm", "uid": "uid-1"},
        "spec": VMI["spec"],
        "status": {"volumeStatus": [{"name": "disk", "target": ""}]},
    }
    assert "status" not in read_view(launcher_view({**VMI, "status": {"phase": "Scheduled"}}), *IDENTITY)


@pytest.mark.parametrize("data", [
    b"", b"{", b"[]", b"{}", b"\xff", b'{"metadata": {"name": "testvm"}}', b'{"metadata": [], "spec": {}}',
    b'{"metadata": {"namespace": "default", "name": "testvm", "uid": "uid-1"}, "spec": []}',
])  # fmt: skip
def test_what_is_no_vmi(data: bytes) -> None:
    with pytest.raises(HandoverError, match="no VirtualMachineInstance"):
        read_view(data, *IDENTITY)


@pytest.mark.parametrize("key", ["namespace", "name", "uid"])
def test_another_vmi(key: str) -> None:
    other = {**VMI, "metadata": {**VMI["metadata"], key: "another"}}
    with pytest.raises(HandoverError, match=r"another.* instead of default/testvm \(uid-1\)"):
        read_view(launcher_view(other), *IDENTITY)


def test_an_error_quotes_nothing_of_the_vmi() -> None:
    broken = json.dumps(VMI).encode()[:-5] + b"secret"
    with pytest.raises(HandoverError) as raised:
        read_view(broken, *IDENTITY)
    assert "secret" not in str(raised.value)
