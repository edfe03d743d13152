# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest

OPTIONS = {"name": "debian", "pvc": "debian-13", "wait": False}


def stored(api):
    return api.get("datasources", "default", "debian")


def test_a_name_for_a_disk(api, run):
    assert run("data_source", check=True, **OPTIONS)["changed"]
    assert stored(api) is None
    made = run("data_source", **OPTIONS, labels={"team": "a"})
    assert made["changed"]
    assert made["result"]["spec"] == {"source": {"pvc": {"namespace": "default", "name": "debian-13"}}}
    assert not run("data_source", **OPTIONS)["changed"]
    assert run("data_source_info", name="debian", namespace="default", hidden_fields=[])["resources"] == [stored(api)]
    assert run("data_source", name="debian", snapshot="newer", source_namespace="images", wait=False)["changed"]
    assert stored(api)["spec"]["source"] == {"snapshot": {"namespace": "images", "name": "newer"}}
    assert run("data_source", name="debian", data_source="other", wait=False)["changed"]
    assert stored(api)["spec"]["source"] == {"dataSource": {"name": "other"}}
    assert run("data_source", name="debian", state="absent")["changed"]
    assert stored(api) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "missing for a new DataSource"),
        ({"pvc": "A b"}, "pvc"),
    ],
)
def test_what_cannot_be(run, options, words):
    assert words in run("data_source", name="debian", wait=False, **options).msg


def test_it_waits_for_the_disk(api, run):
    def admit(method, path, obj):
        if obj.get("kind") == "DataSource":
            condition = {"type": "Ready", "status": "False", "message": "Import DataVolume phase Pending"}
            obj["status"] = {"conditions": [condition]}

    api.admit = admit
    failed = run("data_source", name="debian", pvc="debian-13", wait=True, wait_timeout=1)
    assert "Import DataVolume phase Pending" in failed.msg
