# SPDX-License-Identifier: GPL-3.0-or-later
"""The launcher as a whole, in a Pod."""

import pytest

from conftest import make_vmi

pytestmark = pytest.mark.root


def test_starts(pod):
    pod.start(make_vmi())
    connection = pod.connect()
    assert connection.getType() == "QEMU"
    print(pod.log, pod.children())
