# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from turtles.api.kinds.data_volume import DATA_VOLUME, validate, validate_update
from turtles.api.kinds.data_volume.validation import image_of

PVC: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
HTTP = {"url": "https://example.org/disk.qcow2"}


def data_volume(source: Any = None, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "disk"}, "spec": {"source": source or {"http": HTTP}, **(spec or {"pvc": PVC})}}


def http(**more: Any) -> dict[str, Any]:
    return data_volume({"http": {**HTTP, **more}})


def referring(**more: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "disk"},
        "spec": {"pvc": PVC, "sourceRef": {"kind": "DataSource", "name": "a", **more}},
    }


@pytest.mark.parametrize(
    "obj",
    [
        data_volume(),
        referring(namespace="images"),
        data_volume({"pvc": {"namespace": "other", "name": "a"}}),
        data_volume({"snapshot": {"namespace": "other", "name": "a"}}),
        data_volume({"blank": {}}),
        data_volume({"registry": {"url": "docker://registry.example.com/a:1", "pullMethod": "node"}}),
        data_volume({"registry": {"url": "docker://a/b:1", "secretRef": "s", "certConfigMap": "c"}}),
        data_volume({"s3": {"url": "https://s3.example.com/images/a", "secretRef": "s", "certConfigMap": "c"}}),
        data_volume({"gcs": {"url": "gs://images/a/b"}}),
        data_volume(pvc=PVC, contentType="archive"),
        data_volume({"upload": {}}, pvc=PVC, contentType="archive"),
        data_volume({"registry": {"url": "docker://a/b:1", "platform": {"architecture": "arm64"}}}),
        data_volume(storage={"resources": {"requests": {"storage": 1000}}}),
        data_volume(pvc=PVC, contentType="kubevirt", preallocation=True, finalCheckpoint=False),
        http(url="http://[::1]:8080/a?b=c"),
        http(checksum="sha256:" + "aB" * 32, extraHeaders=["Accept: x", "X-Empty:"], insecureSkipVerify=True),
    ],
)
def test_what_is_sound(obj: dict) -> None:
    assert validate(obj) == []


@pytest.mark.parametrize(
    ("obj", "field", "words"),
    [
        (data_volume(contentType="kubevirt"), "spec.PVC", "Missing Data volume PVC"),
        (data_volume(pvc=PVC, storage=PVC), "spec.PVC.Storage", "Duplicate storage definition"),
        (
            data_volume(pvc={"accessModes": ["ReadWriteOnce"]}),
            "spec.PVC.resources.requests.size",
            "PVC size is missing",
        ),
        (
            data_volume(storage={"resources": {"requests": {"storage": "0"}}}),
            "spec.Storage.resources.requests.size",
            "Storage size can't be equal or less than zero",
        ),
        (data_volume(pvc={**PVC, "accessModes": []}), "spec.PVC.accessModes", "at least 1 access mode is required"),
        (
            data_volume(pvc={**PVC, "accessModes": ["ReadWriteOnce", "ReadWriteMany"]}),
            "spec.PVC.accessModes",
            "multiple",
        ),
        (data_volume(pvc={**PVC, "accessModes": ["Often"]}), "spec.PVC.accessModes", 'Unsupported value: "Often"'),
        ({"spec": {"pvc": PVC}}, "spec.source", "should have either Source or SourceRef"),
        ({"spec": {"pvc": PVC, "source": {}}}, "spec.source", "Missing Data volume source"),
        (data_volume({"blank": {}, "http": HTTP}), "spec.source", "Multiple Data volume sources"),
        (
            data_volume({"registry": {"url": "a:1"}}),
            "spec.source.Registry.URL",
            "Illegal registry source URL scheme a:1",
        ),
        (
            data_volume({"registry": {"url": "docker://a", "secretRef": "s", "pullMethod": "node"}}),
            "spec.source.registry.secretRef",
            "remove pullMethod node",
        ),
        (
            data_volume({"registry": {"url": "docker://a", "pullMethod": "image"}}),
            "spec.source.Registry.importMethod",
            'ImportMethod image is neither pod, node or ""',
        ),
        (
            data_volume({"registry": {"url": "oci-archive:/a", "certConfigMap": "c"}}),
            "spec.source.registry.url",
            "use pullMethod node",
        ),
        (
            data_volume({"registry": {"url": "docker://a", "imageStream": "a"}}),
            "spec.source.registry.imageStream",
            "not supported by this engine",
        ),
        (data_volume({"pvc": {"namespace": "", "name": "a"}}), "spec.source.PVC", "source PVC is not valid"),
        (data_volume({"snapshot": {"namespace": "a", "name": ""}}), "spec.source.Snapshot", "Snapshot is not valid"),
        (referring(kind=""), "spec.sourceRef.Kind", "Missing sourceRef kind"),
        (referring(kind="Secret"), "spec.sourceRef.Kind", "Unsupported sourceRef kind Secret"),
        (referring(name=""), "spec.sourceRef.Name", "Missing sourceRef name"),
        (
            {"spec": {"pvc": PVC, "source": {"blank": {}}, "sourceRef": {"kind": "DataSource", "name": "a"}}},
            "spec.source",
            "should have either Source or SourceRef",
        ),
        (data_volume({"s3": {"url": "x"}}), "spec.source.S3.url", "Invalid source URL: x"),
        (data_volume({"s3": {"url": ""}}), "spec.source.S3.url", "source URL is empty"),
        (data_volume({"gcs": {"url": "gs://bucket"}}), "spec.source.GCS.url", "names no object"),
        (data_volume({"gcs": {"url": "s3://bucket/a"}}), "spec.source.GCS.url", "Invalid source URL scheme"),
        (data_volume({"gcs": {"url": "gs://b/a", "secretRef": "s"}}), "spec.source.gcs.secretRef", "use the source s3"),
        (data_volume({"imageio": {"url": "x"}}), "spec.source.imageio", "not supported by this engine"),
        (data_volume({"vddk": {"url": "x"}}), "spec.source.vddk", "not supported by this engine"),
        (
            data_volume(pvc=PVC, checkpoints=[{"previous": "", "current": "a"}]),
            "spec.checkpoints",
            "not supported by this engine",
        ),
        (data_volume(pvc=PVC, contentType="zip"), "spec.contentType", "ContentType not one of: kubevirt, archive"),
        (data_volume({"blank": {}}, pvc=PVC, contentType="archive"), "spec.contentType", "SourceType cannot be blank"),
        (
            data_volume({"registry": {"url": "docker://a"}}, pvc=PVC, contentType="archive"),
            "spec.contentType",
            "ContentType must be kubevirt when Source is Registry",
        ),
        (
            data_volume(pvc={**PVC, "volumeMode": "Block"}, contentType="archive"),
            "spec.contentType",
            "cannot have block volumeMode",
        ),
        (http(url=""), "spec.source.HTTP.url", "source URL is empty"),
        (http(url="disk.img"), "spec.source.HTTP.url", "Invalid source URL: disk.img"),
        (http(url="ftp://x/y"), "spec.source.HTTP.url", "Invalid source URL scheme: ftp://x/y"),
        (http(url="http://x:99999/y"), "spec.source.HTTP.url", "Invalid source URL"),
        (http(url="http://x/a b"), "spec.source.HTTP.url", "Invalid source URL"),
        (http(url="https://user:secret@x/y"), "spec.source.HTTP.url", "use secretRef"),
        (http(checksum="sha256:00"), "spec.source.HTTP.checksum", "sha256:<64 hexadecimal digits>"),
        (http(checksum="crc32:00000000"), "spec.source.HTTP.checksum", "must have one of the forms"),
        (http(extraHeaders=["no colon"]), "spec.source.HTTP.extraHeaders[0]", "must have the form 'Name: value'"),
        (http(extraHeaders=["A: b\r\nC: d"]), "spec.source.HTTP.extraHeaders[0]", "must have the form"),
        (http(extraHeaders=["Range: bytes=1-"]), "spec.source.HTTP.extraHeaders[0]", "sets the header range itself"),
    ],
)
def test_what_is_refused(obj: dict, field: str, words: str) -> None:
    (cause,) = validate(obj)
    assert cause.field == field
    assert words in cause.message


@pytest.mark.parametrize(
    ("url", "image"),
    [
        ("docker://registry.example.com/a:1", "registry.example.com/a:1"),
        ("oci-archive:/a/b.tar", "oci-archive:/a/b.tar"),
        ("oci-archive:///a/b.tar:tag", "oci-archive:/a/b.tar:tag"),
        ("docker://", ""),
        ("docker:a", ""),
        ("http://a", ""),
        ("a", ""),
    ],
)
def test_images(url: str, image: str) -> None:
    assert image_of(url) == image


def test_the_spec_stays() -> None:
    old = data_volume()
    assert validate_update({**old, "metadata": {"labels": {"a": "b"}}}, old) == []
    assert validate_update(data_volume(pvc={**PVC, "resources": {"requests": {"storage": "1024Mi"}}}), old) == []
    (cause,) = validate_update(data_volume({"blank": {}}), old)
    assert cause.message == "Cannot update DataVolume Spec"
    leaving = {**data_volume({"blank": {}}), "metadata": {"deletionTimestamp": "now"}}
    assert validate_update(leaving, old) == []


@pytest.mark.parametrize("obj", [None, 1, {}, {"spec": 1}, {"spec": {"pvc": 1, "source": []}}])
def test_any_shape_is_read(obj: Any) -> None:
    assert validate(obj)
    assert isinstance(validate_update(obj, obj), list)


def test_columns() -> None:
    assert [column.name for column in DATA_VOLUME.columns] == ["Phase", "Progress", "Restarts", "Age"]
