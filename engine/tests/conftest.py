# SPDX-License-Identifier: GPL-3.0-or-later
"""A fake API server, for the parts that speak to one: it can restart, forget and refuse."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakeapi import FakeApi

from turtles.kube.client import Client
from turtles.log import JSONFormatter


@pytest.fixture(autouse=True)
def no_logs_to_closed_files() -> Iterator[None]:
    """Commands that run in this process log to what pytest closes after the test; others may still run then."""
    yield
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler.formatter, JSONFormatter):
            root.removeHandler(handler)


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
