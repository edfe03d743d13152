# SPDX-License-Identifier: GPL-3.0-or-later
"""virt-controllers that lead, against the fake API server."""

import threading
from collections.abc import Callable, Iterator

import pytest

from turtles.controller.main import VirtController
from turtles.controller.pod.config import LauncherConfig
from turtles.kube.client import Client


@pytest.fixture
def start(client: Client) -> Iterator[Callable[..., VirtController]]:
    """Start a controller; it is stopped at the end."""
    started: list[VirtController] = []

    def start(**config: bool) -> VirtController:
        gate = threading.Event()
        gate.set()
        controller = VirtController(client, LauncherConfig("launcher:1", **config))
        started.append(controller)
        controller.start(gate)
        return controller

    yield start
    for controller in started:
        controller.stop()


@pytest.fixture
def controller(start: Callable[..., VirtController]) -> VirtController:
    return start()
