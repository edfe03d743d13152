# SPDX-License-Identifier: GPL-3.0-or-later
"""A fake API server, for the parts that speak to one: it can restart, forget and refuse."""

from collections.abc import Iterator
from pathlib import Path

import pytest
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
