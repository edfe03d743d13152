# SPDX-License-Identifier: GPL-3.0-or-later
"""What admission says about what populators fill claims from, and which claims name it."""

from __future__ import annotations

from typing import Any

import pytest

from turtles.api.data_sources import CopySource
from turtles.api.kinds.volume_clone_source import VOLUME_CLONE_SOURCE, copied
from turtles.api.kinds.volume_import_source import VOLUME_IMPORT_SOURCE
from turtles.api.kinds.volume_upload_source import VOLUME_UPLOAD_SOURCE
from turtles.api.populators import CLONE, IMPORT, UPLOAD, Reference, prime_name, reference_of, uploaded_into

KINDS = {kind.kind: kind for kind in (VOLUME_IMPORT_SOURCE, VOLUME_UPLOAD_SOURCE, VOLUME_CLONE_SOURCE)}
HTTP = {"http": {"url": "https://x/disk.qcow2"}}


def source(name: str = "web", **spec: Any) -> dict:
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": spec}


@pytest.mark.parametrize(
    ("kind", "obj"),
    [
        (IMPORT, source(source=HTTP)),
        (IMPORT, source(source={"blank": {}}, preallocation=True, targetClaim="disk")),
        (IMPORT, source(source={"registry": {"url": "docker://a/b"}}, contentType="kubevirt")),
        (IMPORT, source(source=HTTP, contentType="archive", finalCheckpoint=False)),
        (UPLOAD, source()),
        (UPLOAD, source(contentType="kubevirt", preallocation=False)),
        (CLONE, source(source={"kind": "PersistentVolumeClaim", "name": "disk"})),
        (CLONE, source(source={"apiGroup": "", "kind": "PersistentVolumeClaim", "name": "disk"})),
        (CLONE, source(source={"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"})),
    ],
)
def test_what_is_sound(kind: str, obj: dict) -> None:
    validate = KINDS[kind].validate
    assert validate is not None
    assert validate(obj) == []


@pytest.mark.parametrize(
    ("kind", "obj", "field", "words"),
    [
        (IMPORT, source(), "spec.source", "required"),
        (IMPORT, source("a" * 64, source=HTTP), "metadata.name", "longer than 63"),
        (IMPORT, source(source={}), "spec.source", "Missing Data volume source"),
        (IMPORT, source(source={**HTTP, "blank": {}}), "spec.source", "Multiple"),
        (IMPORT, source(source={"http": {"url": "ftp://x"}}), "spec.source.HTTP.url", "URL scheme"),
        (IMPORT, source(source={"pvc": {"namespace": "ns", "name": "x"}}), "spec.source", "Missing"),
        (IMPORT, source(source={"blank": {}}, contentType="archive"), "spec.contentType", "cannot be blank"),
        (IMPORT, source(source={"vddk": {}}), "spec.source.vddk", "not supported"),
        (IMPORT, source(source=HTTP, checkpoints=[{}]), "spec.checkpoints", "not supported"),
        (UPLOAD, source("a" * 64), "metadata.name", "longer than 63"),
        (UPLOAD, source(contentType="files"), "spec.contentType", "not one of"),
        (CLONE, source(), "spec.source", "required"),
        (CLONE, source(source={"kind": "ConfigMap", "name": "x"}), "spec.source", "can't be copied"),
        (CLONE, source(source={"kind": "VolumeSnapshot", "name": "x"}), "spec.source", "can't be copied"),
        (CLONE, source(source={"kind": "PersistentVolumeClaim", "name": ""}), "spec.source.name", "name"),
    ],
)
def test_what_is_refused(kind: str, obj: dict, field: str, words: str) -> None:
    validate = KINDS[kind].validate
    assert validate is not None
    causes = validate(obj)
    assert [(cause.field, words in cause.message) for cause in causes[:1]] == [(field, True)], causes


@pytest.mark.parametrize("kind", KINDS)
def test_specs_stay_as_they_are(kind: str) -> None:
    update = KINDS[kind].validate_update
    assert update is not None
    before, after = source(preallocation=False), source(preallocation=True)
    (cause,) = update(after, before)
    assert cause.message == f"Cannot update {kind} Spec"
    assert update(before, before) == []
    after["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert update(after, before) == []


def test_what_is_copied() -> None:
    claim = source(source={"kind": "PersistentVolumeClaim", "name": "disk"})
    assert copied(claim) == CopySource("pvc", "ns", "disk")
    snapshot = source(source={"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"})
    assert copied(snapshot) == CopySource("snapshot", "ns", "s")


def claim(**reference: Any) -> dict:
    named = {"apiGroup": "cdi.kubevirt.io", "kind": UPLOAD, "name": "web", **reference}
    return {"metadata": {"name": "disk", "namespace": "ns", "uid": "1-2"}, "spec": {"dataSourceRef": named}}


def test_which_claims_name_a_populator() -> None:
    assert reference_of(claim()) == Reference(UPLOAD, "web")
    assert reference_of(claim(namespace="other")) == Reference(UPLOAD, "web", "other")
    for other in (claim(apiGroup="x.y"), claim(kind="DataVolume"), claim(name=""), {"spec": {}}):
        assert reference_of(other) is None
    assert prime_name(claim()) == "prime-1-2"
    assert uploaded_into(claim()) == "prime-1-2"
    assert uploaded_into(claim(kind=IMPORT)) is None
