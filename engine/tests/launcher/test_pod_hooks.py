# SPDX-License-Identifier: GPL-3.0-or-later
"""A launcher whose Pod has a hook sidecar."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pycdlib
import pytest

from turtles.domain import paths
from turtles.launcher import hook_api

from .conftest import Pod, make_vmi

pytestmark = pytest.mark.root
CLIENT = "turtles.launcher.hook_client"
DOMAIN = "<domain><name>default_testvm</name></domain>"
BODY = {"onDefineDomain": "s,</domain>,<sound/></domain>,", "preCloudInitIso": "s/#!before/#!after/"}


@pytest.fixture(autouse=True)
def python_for_everybody() -> None:
    """The launcher starts Python as its own user, who may not be able to read the one that runs these tests."""
    command = [sys.executable, "-c", f"import {CLIENT}"]
    try:
        subprocess.run(command, user=107, group=107, capture_output=True, check=True, cwd="/")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("user 107 can't run the tests' Python")


@pytest.fixture
def shim(pod: Pod):
    """A sidecar that runs two programs."""
    volume = pod.volume(paths.HOOKS_VOLUME)
    volume.mkdir()
    os.chown(volume, 107, 107)
    pod.mounts.append({"source": f"volumes/{paths.HOOKS_VOLUME}", "target": str(paths.HOOKS_DIR)})
    programs = pod.base / "programs"
    programs.mkdir()
    for name, script in BODY.items():
        (programs / name).write_text(f"#!/bin/sh\nprintf %s \"$4\" | sed '{script}'\n")
        (programs / name).chmod(0o755)
    code = (
        "import sys; from pathlib import Path; from turtles.launcher.hook_shim import main;"
        "sys.exit(main(['--version', 'v1alpha3'], Path(sys.argv[1])))"
    )
    for folder in (pod.base, *pod.base.parents[:2]):
        folder.chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "CONTAINER_NAME": "s"}
    process = subprocess.Popen([sys.executable, "-c", code, volume], user=107, group=107, env=environment, cwd="/")
    yield process
    process.kill()
    process.wait()


def test_sidecars_change_the_machine_and_are_told_of_its_end(
    pod: Pod, shim: subprocess.Popen, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = {"name": "seed", "cloudInitNoCloud": {"userData": "#!before"}}
    vmi = make_vmi(volumes=[seed])
    identity = [f"--{key}={vmi['metadata'][key]}" for key in ("name", "uid", "namespace")]
    environment = {key: os.environ[key] for key in ("PYTHONPATH",) if key in os.environ}
    pod.run("turtles.launcher.main:main", [*identity, "--image-volume", "--hook-sidecars=1"], env=environment)
    pod.deliver(vmi)
    connection = pod.connect()
    image = pycdlib.PyCdlib()
    image.open(str(pod.inside(paths.cloud_init_no_cloud_seed("seed"))))
    content = io.BytesIO()
    image.get_file_from_iso_fp(content, joliet_path="/user-data")
    assert content.getvalue() == b"#!after"

    monkeypatch.chdir(pod.inside(paths.HOOKS_SOCKET).parent)
    with socket.socket(socket.AF_UNIX) as agent:
        agent.connect(paths.HOOKS_SOCKET.name)
        request = {"call": hook_api.ON_DEFINE_DOMAIN, "sidecars": 1, "vmi": vmi, "domain": DOMAIN}
        agent.sendall(json.dumps(request).encode())
        agent.shutdown(socket.SHUT_WR)
        answer = json.loads(b"".join(iter(lambda: agent.recv(65536), b"")))
    assert answer == {"domain": DOMAIN.replace("</domain>", "<sound/></domain>")}

    connection.close()
    os.kill(pod.pid, signal.SIGTERM)
    assert pod.exit_status() == 0
    assert shim.wait(60) == 0
    assert not Path(pod.volume(paths.HOOKS_VOLUME), "shim-s.sock").exists()
