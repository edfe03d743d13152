# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers of images, well made and otherwise."""

import gzip
import hashlib
import io
import json
import os
import tarfile

#: What a hostile header claims.
HUGE = 1 << 60


def member(name, content=None, kind=tarfile.REGTYPE, link="", mode=0o644):
    """Return a tar member with its content."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(content or b"")
    info.uid, info.gid = os.getuid(), os.getgid()
    return info, content or b""


def packed(layer):
    """Return a layer as an archive."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for info, content in layer:
            archive.addfile(info, io.BytesIO(content))
    return raw.getvalue()


def image(directory, *layers, truncate=0):
    """Write an image as skopeo's dir: transport does."""
    return raw_image(directory, *(gzip.compress(packed(layer)[: -truncate or None]) for layer in layers))


def raw_image(directory, *layers):
    """Write an image whose layers are given as they are."""
    directory.mkdir()
    blobs = [{"digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)} for data in (b"{}", *layers)]
    for blob, data in zip(blobs, (b"{}", *layers), strict=True):
        (directory / blob["digest"].removeprefix("sha256:")).write_bytes(data)
    (directory / "manifest.json").write_text(json.dumps({"config": blobs[0], "layers": blobs[1:]}))
    return directory


def number(value):
    """Return a number as GNU's headers have those that don't fit (base 256)."""
    return b"\x80" + value.to_bytes(11, "big")


def gnu_sparse(real_size, *extents, content=b""):
    """Return a member of GNU's old sparse format with up to four extents."""
    info, _ = member("disk/sparse.img", content)
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:512])
    header[386:482] = b"".join(number(value) for extent in extents for value in extent).ljust(96, b"\0")
    header[482:484] = b"\0" + number(real_size)[:1]
    header[483:495] = number(real_size)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content.ljust(-len(content) % 512 + len(content), b"\0")


def pax(content=b"", **headers):
    """Return a member with PAX headers."""
    info, _ = member("disk/sparse.img", content)
    info.pax_headers = {key.replace("_", "."): value for key, value in headers.items()}
    return info.tobuf(tarfile.PAX_FORMAT) + content.ljust(-len(content) % 512 + len(content), b"\0")


def typed(kind, size):
    """Return a header of a kind that claims a size."""
    info, _ = member("file", kind=kind)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def sparse_map(*extents):
    """Return the data of a member of GNU's sparse format 1.0 before its content."""
    text = "\n".join(map(str, [len(extents), *(value for extent in extents for value in extent), ""])).encode()
    return text.ljust(-len(text) % 512 + len(text), b"\0")
