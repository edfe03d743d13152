# SPDX-License-Identifier: GPL-3.0-or-later
"""How the forking process is started."""

from pathlib import Path

import pytest

from turtles.standalone.podrunner import zygote_client
from turtles.standalone.podrunner.zygote_client import ZygoteClient, ZygoteError


@pytest.mark.parametrize("scope", [["/usr/bin/env", "WITH=scope"], ["/bin/false"]])
def test_it_starts_with_and_without_a_scope_of_its_own(tmp_path: Path, monkeypatch, scope: list[str]) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(zygote_client, "_scope", lambda: scope)
    client = ZygoteClient(tmp_path / "z.sock", tmp_path / "z.log", "test", ["entry_points:main"])
    assert client.ensure()
    assert not client.ensure()
    process = client._process
    assert process is not None
    environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    assert (b"WITH=scope" in environment) is (len(scope) == 2)
    client._ask({"op": "retire"}, timeout=10)
    assert process.wait(10) == 0


def test_what_it_says_when_it_does_not_start(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(zygote_client, "_scope", lambda: [])
    client = ZygoteClient(tmp_path / "z.sock", tmp_path / "z.log", "test", ["no_such_module:main"])
    with pytest.raises(ZygoteError, match="no_such_module"):
        client.ensure()
