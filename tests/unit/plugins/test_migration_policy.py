# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest

DATABASES = {"name": "databases", "instance_labels": {"tier": "database"}}


def stored(api):
    return api.get("migrationpolicies", "", "databases")


def test_a_policy_is_made_changed_and_removed_once(api, run):
    options = {**DATABASES, "bandwidth": "64Mi", "completion_timeout_per_gib": 600, "allow_post_copy": False}
    assert run("migration_policy", check=True, **options)["changed"]
    assert stored(api) is None
    made = run("migration_policy", **options)
    assert made["changed"]
    assert made["result"]["spec"] == {
        "selectors": {"virtualMachineInstanceSelector": {"tier": "database"}},
        "bandwidthPerMigration": "64Mi",
        "completionTimeoutPerGiB": 600,
        "allowPostCopy": False,
    }
    assert not run("migration_policy", **options)["changed"]

    changed = run("migration_policy", name="databases", allow_post_copy=True)
    assert changed["diff"]["before"]["spec"]["allowPostCopy"] is False
    assert stored(api)["spec"] == {**made["result"]["spec"], "allowPostCopy": True}

    assert run("migration_policy", check=True, name="databases", state="absent")["changed"]
    assert run("migration_policy", name="databases", state="absent")["result"] == {}
    assert stored(api) is None
    assert not run("migration_policy", name="databases", state="absent")["changed"]


def test_labels_are_replaced_whole(api, run):
    run("migration_policy", **DATABASES)
    run("migration_policy", name="databases", instance_labels={"app": "db"}, namespace_labels={"stage": "test"})
    assert stored(api)["spec"]["selectors"] == {
        "virtualMachineInstanceSelector": {"app": "db"},
        "namespaceSelector": {"stage": "test"},
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "databases"}, "instance_labels, namespace_labels: missing for a new policy"),
        ({**DATABASES, "name": "Not_a_name"}, "name: 'Not_a_name' isn't a Kubernetes name"),
        ({"name": "databases", "instance_labels": {"a": [1]}}, "instance_labels.a"),
    ],
)
def test_bad_input_names_the_option(api, run, options, message):
    assert message in run("migration_policy", **options).msg
    assert stored(api) is None
