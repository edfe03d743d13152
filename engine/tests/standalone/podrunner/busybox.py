# SPDX-License-Identifier: GPL-3.0-or-later
"""An image to run containers of: Debian's static busybox, in an OCI layout on disk."""

import gzip
import hashlib
import json
import platform
import tarfile
from pathlib import Path

from .layers import member, packed

_PROGRAM = Path("/bin/busybox")
_APPLETS = ("sh", "cat", "echo", "grep", "httpd", "id", "kill", "ls", "mknod", "nc", "ps", "sleep", "stat", "true")
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n"
_GROUP = b"root:x:0:\napp:x:1001:\nmore:x:1002:app\n"


def layout(directory, *further, **config):
    """Write an image and return its reference.

    :param further: more members of its layer.
    :param config: of the image's configuration: User, Env, Entrypoint, Cmd, WorkingDir, StopSignal.
    """
    members = [
        member("bin", kind=tarfile.DIRTYPE, mode=0o755),
        member("bin/busybox", _PROGRAM.read_bytes(), mode=0o755),
        *(member(f"bin/{name}", kind=tarfile.SYMTYPE, link="busybox") for name in _APPLETS),
        member("tmp", kind=tarfile.DIRTYPE, mode=0o1777),
        member("etc", kind=tarfile.DIRTYPE, mode=0o755),
        member("etc/passwd", _PASSWD),
        member("etc/group", _GROUP),
        *further,
    ]
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    archive = packed(members)
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    described = blob(
        json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "config": config,
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(archive).hexdigest()}"]},
            }
        ).encode(),
        "config.v1+json",
    )
    layers = [blob(gzip.compress(archive, 1), "layer.v1.tar+gzip")]
    manifest = {"schemaVersion": 2, "config": described, "layers": layers}
    manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
    index = {"schemaVersion": 2, "manifests": [blob(json.dumps(manifest).encode(), "manifest.v1+json")]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return f"oci:{directory}"
