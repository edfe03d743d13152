# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from api import Refused

URL = "https://images.example.com/disk.qcow2"
OPTIONS = {"name": "root", "url": URL, "size": "20Gi", "wait": False}


def stored(api):
    return api.get("datavolumes", "default", "root")


def complete(api, phase="Succeeded", **condition):
    """Play the controller: what is created is in this phase."""

    def admit(method, path, obj):
        if obj.get("kind") == "DataVolume" and method == "POST":
            conditions = [{"type": "Running", "status": "False", **condition}] if condition else []
            obj["status"] = {"phase": phase, "progress": "12.5%", "conditions": conditions}

    api.admit = admit


def test_a_disk_is_made_and_removed_once(api, run):
    assert run("data_volume", check=True, **OPTIONS)["changed"]
    assert stored(api) is None
    made = run("data_volume", **OPTIONS, checksum="sha256:00", labels={"team": "a"})
    assert made["changed"]
    assert made["progress"] == "N/A"
    assert made["result"]["spec"] == {
        "source": {"http": {"url": URL, "checksum": "sha256:00"}},
        "storage": {"resources": {"requests": {"storage": "20Gi"}}},
    }
    assert not run("data_volume", **OPTIONS, checksum="sha256:00", labels={"team": "a"})["changed"]
    assert run("data_volume", name="root", labels={"team": "b"}, wait=False)["changed"]
    assert run("data_volume_info", name="root", namespace="default", hidden_fields=[])["resources"] == [stored(api)]
    assert run("data_volume", name="root", state="absent")["changed"]
    assert stored(api) is None


def test_the_claim(api, run):
    run(
        "data_volume",
        name="root",
        source={"blank": {}},
        size="1Gi",
        storage_class="fast",
        access_modes=["ReadWriteMany"],
        volume_mode="Block",
        preallocation=True,
        bind_immediately=True,
        wait=False,
    )
    assert stored(api)["spec"] == {
        "source": {"blank": {}},
        "storage": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "fast",
            "volumeMode": "Block",
        },
        "preallocation": True,
    }
    assert stored(api)["metadata"]["annotations"] == {"cdi.kubevirt.io/storage.bind.immediate.requested": "true"}


@pytest.mark.parametrize("phase", ["Succeeded", "WaitForFirstConsumer", "PendingPopulation"])
def test_it_waits(api, run, phase):
    complete(api, phase)
    assert run("data_volume", **{**OPTIONS, "wait": True})["phase"] == phase


def test_an_import_that_failed(api, run):
    complete(api, "Failed", reason="Error", message="it has another checksum")
    failed = run("data_volume", **{**OPTIONS, "wait": True})
    assert failed["changed"]
    assert "isn't complete: the import failed" in failed.msg
    assert "it has another checksum" in failed.msg


def test_an_import_that_takes_longer(api, run):
    complete(api, "ImportInProgress")
    failed = run("data_volume", **{**OPTIONS, "wait": True, "wait_timeout": 1})
    assert "within 1 seconds (wait_timeout). It is in phase ImportInProgress, 12.5% done" in failed.msg


def test_a_spec_that_cant_be_changed(api, run):
    run("data_volume", **OPTIONS)

    def admit(method, path, obj):
        if method == "PATCH":
            raise Refused(422, "Invalid", "admission webhook denied the request: Cannot update DataVolume Spec")

    api.admit = admit
    failed = run("data_volume", **{**OPTIONS, "size": "30Gi"})
    assert "DataVolume default/root exists, but was created from something else" in failed.msg


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "1Gi"}, "url: missing for a new DataVolume"),
        ({"url": URL}, "size: missing for a new DataVolume"),
    ],
)
def test_what_is_missing(run, options, message):
    assert message in run("data_volume", name="root", **options).msg


def test_a_copy_of_what_a_data_source_leads_to(api, run):
    options = {"name": "root", "size": "1Gi", "wait": False}
    run("data_volume", source_ref="images/debian", **options)
    assert stored(api)["spec"]["sourceRef"] == {"kind": "DataSource", "namespace": "images", "name": "debian"}
    assert not run("data_volume", source_ref="images/debian", **options)["changed"]
    assert "source_ref" in run("data_volume", **{**options, "source_ref": "images/"}).msg
