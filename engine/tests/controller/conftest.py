# SPDX-License-Identifier: GPL-3.0-or-later
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "kube"))

from fakeapi import FakeApi

from turtles.kube.client import Client


@pytest.fixture
def api() -> Iterator[FakeApi]:
    server = FakeApi()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(api: FakeApi, tmp_path: Path) -> Iterator[Client]:
    client = Client.from_kubeconfig(api.kubeconfig(tmp_path), retry_for=3.0)
    yield client
    client.close()
