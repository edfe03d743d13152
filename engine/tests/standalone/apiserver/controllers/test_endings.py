# SPDX-License-Identifier: GPL-3.0-or-later
"""What a namespace that ends says of what it waits for."""

from turtles.standalone.apiserver.controllers.endings import namespace_conditions


def test_conditions_tell_why_content_can_not_be_deleted() -> None:
    failures = ["widgets b: no", "widgets a: no"]
    found = {one["type"]: one for one in namespace_conditions({"widgets.example.io": 2}, {}, failures)}
    assert found["NamespaceDeletionContentFailure"] == {
        "type": "NamespaceDeletionContentFailure",
        "status": "True",
        "reason": "ContentDeletionFailed",
        "message": "Failed to delete all resource types, 2 remaining: widgets a: no, widgets b: no",
    }
    found = {one["type"]: one["reason"] for one in namespace_conditions({}, {})}
    assert found["NamespaceDeletionContentFailure"] == "ContentDeleted"
