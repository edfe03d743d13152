# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How images come to a registry or to nodes, with programs that only remember in place of skopeo and ctr."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

#: Keeps digests by reference: inspect prints one, copy writes the one that the test has built.
SKOPEO = """#!{python}
import pathlib, sys
folder = pathlib.Path({folder!r})
name = sys.argv[-1].removeprefix("docker://").replace("/", "_")
if sys.argv[1] == "inspect":
    if not (folder / name).exists():
        sys.exit("manifest unknown")
    print((folder / name).read_text())
else:
    (folder / name).write_text("sha256:mine")
"""


def program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text.format(python=sys.executable, folder=str(folder)))
    path.chmod(0o755)
    return path


@pytest.fixture
def push(run_play, tmp_path: Path):
    """Pushes turtles-engine; whether that changed anything, and what the registry has then."""
    folder = tmp_path / "skopeo"
    program(folder, "skopeo", SKOPEO)

    def run(present: str, **variables: Any) -> tuple[bool, str]:
        image = folder / "reg_turtles-engine:1"
        image.unlink(missing_ok=True)
        if present:
            image.write_text(present)
        given = {
            "kubevirt_registry": "reg",
            "engine_image_name": "engine",
            "engine_image_references": {"engine": "reg/turtles-engine:1"},
            "engine_image_built": {"layout": "/none", "images": {"turtles-engine": {"digest": "sha256:mine"}}},
            **variables,
        }
        tasks = [{"include_role": {"name": "turtles.kubevirt.engine_image", "tasks_from": "push"}}]
        output = run_play({"tasks": tasks}, path=str(folder), **given)
        return "changed=1" in output, image.read_text()

    return run


def test_what_a_registry_has_under_a_tag_made_of_the_inputs_is_taken(push) -> None:
    assert push("") == (True, "sha256:mine")
    assert push("sha256:mine") == (False, "sha256:mine")
    assert push("sha256:anothers") == (False, "sha256:anothers")


def test_what_a_registry_has_under_a_tag_of_ones_own_is_replaced(push) -> None:
    assert push("sha256:anothers", kubevirt_image_tag="1") == (True, "sha256:mine")
    assert push("sha256:mine", kubevirt_image_tag="1") == (False, "sha256:mine")
