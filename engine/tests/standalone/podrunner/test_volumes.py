# SPDX-License-Identifier: GPL-3.0-or-later
import base64
import stat
from pathlib import Path
from typing import Any

from turtles.standalone.podrunner.volumes import Volumes

POD = {"metadata": {"namespace": "default", "name": "web", "uid": "u-1"},
       "spec": {"volumes": [{"name": "seed", "secret": {"secretName": "login"}}]}}


class OneSecret:
    """A client that knows a Secret."""

    def get(self, resource: Any, namespace: str, name: str) -> dict[str, Any]:
        return {"kind": "Secret", "metadata": {"namespace": namespace, "name": name},
                "data": {"userdata": base64.b64encode(b"password: hunter2").decode()}}


def test_secrets_are_for_root_and_the_pod_alone(tmp_path: Path) -> None:
    # An earlier version's folder was open to everybody.
    (tmp_path / "run/volumes").mkdir(parents=True, mode=0o755)
    volumes = Volumes(OneSecret(), tmp_path / "run", "node1")  # type: ignore[arg-type]
    folder = volumes.prepare(POD, tmp_path / "pod", {})["seed"]
    assert (folder / "userdata").read_bytes() == b"password: hunter2"
    private = tmp_path / "run/volumes"
    assert folder.is_relative_to(private)
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
