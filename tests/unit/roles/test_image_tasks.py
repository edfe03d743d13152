# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How images come to a registry or to nodes, with programs that only remember in place of skopeo and ctr."""

from __future__ import annotations

import json
import re
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

#: Keeps references and what they are labelled with. An "archive" has the references that importing it gives.
CTR = """#!{python}
import json, pathlib, sys
store = pathlib.Path({folder!r}, "images.json")
images = json.loads(store.read_text()) if store.exists() else {{}}
namespace, what, verb, *words = sys.argv[1:]
assert (namespace, what) == ("--namespace=k8s.io", "images")
if verb == "list":
    assert words.pop(0) == "--quiet"
    assert words in ([], ['labels."io.cri-containerd.pinned"==pinned'])
    print("\\n".join(name for name in images if not words or images[name] == "pinned"))
elif verb == "label":
    name, (key, _, value) = words[0], words[1].partition("=")
    assert key == "io.cri-containerd.pinned"
    assert name in images
    images[name] = value
else:
    images.update(dict.fromkeys(pathlib.Path(words[-1]).read_text().split(), ""))
store.write_text(json.dumps(images))
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


@pytest.fixture
def node(run_play, tmp_path: Path):
    """Runs tasks of the role for this machine as a node; how many changed, and which images are pinned then."""
    folder = tmp_path / "ctr"
    program(folder, "ctr", CTR)

    def run(tasks_from: str, *wanted: str, superseded: str = "") -> tuple[int, dict[str, str]]:
        archive = tmp_path / "images.tar"
        archive.write_text(" ".join(wanted))
        given = {
            "engine_image_node": "localhost",
            "engine_image_archive": str(archive),
            "engine_image_wanted": wanted,
            "engine_image_import_options": ["--option"],
            **({"engine_image_superseded": superseded} if superseded else {}),
        }
        tasks = [{"include_role": {"name": "turtles.kubevirt.engine_image", "tasks_from": tasks_from}}]
        output = run_play({"tasks": tasks}, path=str(folder), **given)
        found = re.search(r"changed=(\d+)", output)
        assert found
        return int(found[1]), json.loads((folder / "images.json").read_text())

    return run


def test_imported_images_are_pinned(node) -> None:
    engines = "localhost/turtles/turtles-(engine|launcher):"
    first = {"localhost/turtles/turtles-engine:1": "pinned", "localhost/turtles/turtles-launcher:1": "pinned"}
    changed, images = node("import", *first, superseded=engines)
    assert changed
    assert images == first
    assert node("import", *first, superseded=engines) == (0, first)
    guest = "localhost/turtles/tiny:abc"
    assert node("import", guest)[1] == {**first, guest: "pinned"}
    # Those of before are the kubelet's; guests' images stay, since machines name them
    second = {name.replace(":1", ":2"): "pinned" for name in first}
    changed, images = node("import", *second, superseded=engines)
    assert images == {**dict.fromkeys(first, ""), guest: "pinned", **second}
    assert node("import", *second, superseded=engines) == (0, images)
    # At the end nothing is kept
    assert node("pin", superseded="localhost/turtles/") == (1, dict.fromkeys(images, ""))
    assert node("pin", superseded="localhost/turtles/")[0] == 0
