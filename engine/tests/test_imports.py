# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may import whom: the rules that keep the parts of the engine apart."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"

#: Part → parts of the engine it may import besides itself. Those in ``SHARED`` are everybody's.
ALLOWED: dict[str, set[str]] = {
    "api": set(),
    "domain": {"api"},
    "kube": {"api"},
    "virt_api": {"api", "domain", "kube"},
    "controller": {"api", "domain", "kube"},
    "handler": {"api", "domain", "kube", "probe"},
    "launcher": {"api", "domain", "probe"},
    "importer": {"api", "domain", "kube"},
    "standalone": {"kube"},
    "probe": set(),
    "log": set(),
    "health": set(),
    "endpoint": set(),
}
SHARED = {"", "log", "health", "endpoint"}
#: Third-party package → the parts that may import it.
CONFINED = {"kubernetes": {"kube"}, "libvirt": {"handler", "launcher"}, "urllib3": {"kube"},
            "grpclib": {"handler"}, "google": {"handler", "standalone"}}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted((SOURCE / "turtles").rglob("*.py")):
        relative = path.relative_to(SOURCE / "turtles")
        if len(relative.parts) > 1 or relative.stem not in ("__init__",):
            yield relative.parts[0].removesuffix(".py"), path


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and absolute dotted name of everything a module imports, wherever in the file."""
    package = [*path.relative_to(SOURCE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) - node.level + 1]]) if node.level else ""
            name = ".".join(filter(None, (base, node.module or "")))
            for alias in node.names:
                yield node.lineno, f"{name}.{alias.name}"


def violations(part: str, path: Path) -> Iterator[str]:
    allowed = ALLOWED[part] | {part} | SHARED
    for line, name in imports(path):
        top, *rest = name.split(".")
        where = f"{path.relative_to(SOURCE)}:{line}: {name}"
        if top != "turtles":
            if top in CONFINED and part not in CONFINED[top]:
                yield f"{where} (only {', '.join(sorted(CONFINED[top]))} may)"
            continue
        other = rest[0] if rest else ""
        if other == "__version__":
            continue
        if other not in allowed:
            yield f"{where} ({part} may import {', '.join(sorted(ALLOWED[part])) or 'nothing of ours'})"
        if part == "standalone" and name.startswith("turtles.kube.kubevirt"):
            yield f"{where} (standalone knows nothing of KubeVirt)"


@pytest.mark.parametrize("part", sorted({part for part, _ in modules()}))
def test_parts_keep_apart(part: str) -> None:
    assert part in ALLOWED, f"a new part {part!r}: say in this test whom it may import"
    found = [text for other, path in modules() if other == part for text in violations(part, path)]
    assert not found, "\n".join(found)


def test_the_check_sees_a_violation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    module = tmp_path / "turtles" / "api" / "bad.py"
    module.parent.mkdir(parents=True)
    module.write_text("from turtles.kube import client\nfrom ..domain import paths\ndef f():\n    import kubernetes\n")
    assert len(list(violations("api", module))) == 3
