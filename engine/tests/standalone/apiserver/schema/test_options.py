# SPDX-License-Identifier: GPL-3.0-or-later
"""Options in the body of a deletion: values of a wrong type, in the words of Go's decoder."""

from typing import Any

import pytest

from turtles.standalone.apiserver.schema.decode import check_options
from turtles.standalone.apiserver.wire.errors import StatusError


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"gracePeriodSeconds": "x"}, "string into Go struct field DeleteOptions.gracePeriodSeconds of type int64"),
        ({"gracePeriodSeconds": 1.5}, "number 1.5 into Go struct field DeleteOptions.gracePeriodSeconds of type int64"),
        ({"dryRun": "All"}, "string into Go struct field DeleteOptions.dryRun of type []string"),
        ({"preconditions": []}, "array into Go struct field DeleteOptions.preconditions of type v1.Preconditions"),
        (
            {"preconditions": {"uid": 5}},
            "number into Go struct field Preconditions.preconditions.uid of type types.UID",
        ),
        ({"orphanDependents": 1}, "number into Go struct field DeleteOptions.orphanDependents of type bool"),
    ],
)
def test_wrong_types(options: dict[str, Any], why: str) -> None:
    with pytest.raises(StatusError) as refused:
        check_options(options, "DeleteOptions")
    assert (refused.value.code, refused.value.message) == (400, f"json: cannot unmarshal {why}")


def test_right_types() -> None:
    check_options({"gracePeriodSeconds": 0, "preconditions": None, "dryRun": ["All"], "more": 1}, "DeleteOptions")
