# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from turtles.api.cdi import CLONE_SOURCE
from turtles.api.data_sources import CopySource, Unresolved, copy_source, resolve
from turtles.api.kind import Context, Missing
from turtles.api.kinds.data_source import validate
from turtles.api.kinds.data_volume import DATA_VOLUME

LABELS = {"instancetype.kubevirt.io/default-preference": "debian"}
CLAIM = {"pvc": {"namespace": "images", "name": "root"}}
Object = dict[str, Any]


def data_source(name: str = "debian", **source: Any) -> Object:
    metadata = {"name": name, "namespace": "images", "labels": {**LABELS, "team": "a"}}
    return {"metadata": metadata, "spec": {"source": source}}


def finding(*objects: Object) -> Any:
    def find(*key: str) -> Object:
        for obj in objects:
            if (obj["metadata"]["namespace"], obj["metadata"]["name"]) == key[-2:]:
                return obj
        raise Missing(f"{key} not found")

    return find


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (CLAIM, ""),
        ({"snapshot": {"name": "root", "namespace": "images"}}, ""),
        ({"dataSource": {"name": "other"}}, ""),
        ({}, "No source PVC or VolumeSnapshot set"),
        ({"dataSource": {"name": "debian"}}, "cannot self-reference"),
        ({"dataSource": {"name": "other", "namespace": "ns"}}, "in another namespace"),
        ({"dataSource": {"name": "missing"}}, "DataSource images/missing not found"),
        ({"dataSource": {"name": "chain"}}, "maximum depth of 1"),
    ],
)
def test_what_a_data_source_leads_to(source: Object, words: str) -> None:
    find = finding(data_source("other", **CLAIM), data_source("chain", dataSource={"name": "other"}))
    if not words:
        assert resolve(data_source(**source), find).name == "root"
        return
    with pytest.raises(Unresolved, match=words):
        resolve(data_source(**source), find)


def test_a_data_source_names_one_disk() -> None:
    assert validate(data_source()) == validate(data_source(**CLAIM)) == []
    (cause,) = validate(data_source(**CLAIM, dataSource={"name": "other"}))
    assert cause.message == "spec.source: dataSource and pvc are given; name one disk"
    (cause,) = validate(data_source(dataSource={"name": ""}))
    assert cause.field == "spec.source.dataSource.name"


def data_volume(annotation: str = "", **spec: Any) -> Object:
    metadata = {"name": "disk", "namespace": "ns", "annotations": {CLONE_SOURCE: annotation} if annotation else {}}
    form = {"storage": {"resources": {"requests": {"storage": "1Gi"}}}}
    return {"metadata": metadata, "spec": {**form, **spec}}


REFERENCE = {"sourceRef": {"kind": "DataSource", "namespace": "images", "name": "debian"}}


def admitted(obj: Object, *, privileged: bool = False) -> Object:
    assert DATA_VOLUME.default is not None
    return DATA_VOLUME.default(obj, Context(privileged=privileged, find=finding(data_source(**CLAIM))))


def test_admission_notes_what_a_data_source_leads_to() -> None:
    new = admitted(data_volume("pvc/secret/root", **REFERENCE))
    assert copy_source(new) == CopySource("pvc", "images", "root")
    assert new["metadata"]["labels"] == LABELS
    # The engine has noted it already, when it asked for the rights
    assert copy_source(admitted(data_volume("pvc/a/b", **REFERENCE), privileged=True)) == CopySource("pvc", "a", "b")
    # Without a DataSource, the note is nobody's
    assert admitted(data_volume("pvc/secret/root", source={"blank": {}}))["metadata"]["annotations"] == {}
    lost = {"sourceRef": {"kind": "DataSource", "name": "missing"}}
    assert copy_source(admitted(data_volume("pvc/secret/root", **lost))) is None


def test_nobody_changes_the_note() -> None:
    assert DATA_VOLUME.default_update is not None
    old = data_volume("pvc/images/root", **REFERENCE)
    for forged in ("pvc/secret/root", ""):
        assert DATA_VOLUME.default_update(data_volume(forged, **REFERENCE), old, Context()) == old
