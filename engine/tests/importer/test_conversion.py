# SPDX-License-Identifier: GPL-3.0-or-later
"""Conversion by qemu-img under limits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from turtles.images import Image
from turtles.importer import conversion

MIB = 2**20


def test_all_threads_of_a_busy_machine_fit_into_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As many requests at once as it ever has make it start its threads, which else takes a busy machine.
    busy = tmp_path / "qemu-img"
    busy.write_text('#!/bin/sh\nshift\nexec qemu-img convert -m 16 -W "$@"\n')
    busy.chmod(0o755)
    monkeypatch.setattr(conversion, "QEMU_IMG", str(busy))
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(MIB) * 128)
    for _ in range(3):
        conversion.convert(source, Image("raw", 128 * MIB), target, lambda _: None)
        assert target.read_bytes() == source.read_bytes()
