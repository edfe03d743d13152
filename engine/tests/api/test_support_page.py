# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/api-support.md says what kinds say. Run this file to write the generated parts of the page again."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from turtles.api.kind import READ, WRITE, Kind, Subresource, Version
from turtles.api.kinds import KINDS
from turtles.api.kinds.kubevirt import KUBEVIRT
from turtles.api.kinds.kubevirt.schema import KUBEVIRT_SPEC
from turtles.api.kinds.vm import VM, VM_SPEC
from turtles.api.kinds.vmi import VMI
from turtles.api.kinds.vmi.schema import VMI_SPEC
from turtles.api.language import Field, Struct, Type
from turtles.virt_api import discovery

PAGE = Path(__file__).resolve().parents[3] / "docs" / "api-support.md"
#: Parts of the Kubernetes API that go to the Pod as they are; their fields need no rows of their own.
PASSED_ON = (
    "spec.affinity.nodeAffinity",
    "spec.affinity.podAffinity",
    "spec.affinity.podAntiAffinity",
    "spec.tolerations[]",
    "spec.topologySpreadConstraints[]",
    "spec.dnsConfig",
    "spec.infra.nodePlacement.affinity",
    "spec.infra.nodePlacement.tolerations[]",
    "spec.workloads.nodePlacement.affinity",
    "spec.workloads.nodePlacement.tolerations[]",
)
POD_AFFINITY = ("spec.affinity.podAffinity", "spec.affinity.podAntiAffinity")
MEANINGS = {
    **{part: "As in a Pod." for part in PASSED_ON if part not in POD_AFFINITY},
    **dict.fromkeys(POD_AFFINITY, "As in a Pod. The scheduler of standalone mode refuses required terms."),
}


def table(head: str, rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, "|".join(["", *["---"] * (head.count("|") - 1), ""])]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def supported_rows(spec: Type, *, idle: bool = True) -> Iterator[tuple[str, str]]:
    """A row for each field, one for each part that is passed on. Without `idle`, those with an effect alone."""
    seen: set[str] = set()
    for path, field in spec.leaves("spec"):
        if field.refusal is not None or (field.idle and not idle):
            continue
        shown = next((part for part in PASSED_ON if path.startswith(part)), path)
        if shown not in seen:
            seen.add(shown)
            yield f"`{shown}`", MEANINGS.get(shown, meaning(field))


def meaning(field: Field) -> str:
    if field.default is None:
        return f"{field.doc} No effect, which a warning says." if field.idle else field.doc
    return f"{field.doc} Defaults to {text(field.default)}."


def shown_version(version: Version) -> str:
    remarks = [
        word for word, applies in (("stored", version.storage), ("deprecated", version.deprecation_warning)) if applies
    ]
    return f"{version.name} ({', '.join(remarks)})" if remarks else version.name


def shown_verbs(kind: Kind, role: str) -> str:
    verbs = tuple(kind.rights.get(role, ()))
    return {(*READ, *WRITE): "all", READ: "read", (): "none"}.get(verbs) or ", ".join(verbs)


def kind_rows() -> Iterator[tuple[str, ...]]:
    for kind in KINDS:
        yield (
            f"`{kind.kind}`",
            f"`{kind.group}`",
            "namespace" if kind.namespaced else "cluster",
            ", ".join(map(shown_version, kind.versions)),
            ", ".join(kind.short_names),
            "yes" if kind.status_subresource else "no",
            *(shown_verbs(kind, role) for role in ("admin", "edit", "view", "default")),
        )


def shared_rows(spec: Type, path: str) -> Iterator[tuple[str, str]]:
    """A row for each field, and one for each part of a VirtualMachineInstance, which has its own table."""
    assert isinstance(spec, Struct)
    structs = {name: field.type for name, field in VMI_SPEC.fields.items() if isinstance(field.type, Struct)}
    parts = {id(VMI_SPEC): "spec", **{id(type_): f"spec.{name}" for name, type_ in structs.items()}}
    for name, field in spec.fields.items():
        here = f"{path}.{name}"
        if field.refusal is not None:
            yield f"`{here}`", f"{meaning(field)} Refused."
        elif id(field.type) in parts:
            yield f"`{here}`", f"{meaning(field)} As `{parts[id(field.type)]}` of a VirtualMachineInstance."
        elif field.type is VM_SPEC:
            yield f"`{here}`", f"{meaning(field)} As `spec` of a VirtualMachine."
        elif isinstance(field.type, Struct) and field.type.fields:
            yield from shared_rows(field.type, here)
        else:
            yield f"`{here}`", meaning(field)


def other_kinds() -> str:
    """Sections for the kinds that have none of their own on the page. Kinds that share their fields share one."""
    by_spec: dict[Type, list[Kind]] = {}
    for kind in KINDS:
        if kind not in (VM, VMI, KUBEVIRT):
            by_spec.setdefault(kind.schema.fields["spec"].type, []).append(kind)
    sections = [
        "\n\n".join(
            [
                f"### {', '.join(kind.kind for kind in kinds)}",
                " ".join(kind.schema.doc for kind in kinds),
                table("| field | |", shared_rows(spec, "spec")),
            ]
        )
        for spec, kinds in by_spec.items()
    ]
    return "\n\n".join(sections) or "There are none."


PORT = "/<port>[/tcp|/udp]"


def answer(subresource: Subresource) -> str:
    """What a subresource answers."""
    if not subresource.stream:
        return f"{subresource.code}{', an object' if subresource.body else ''}"
    return "200, a picture (PNG)" if subresource.name.endswith("screenshot") else "101, a WebSocket"


def blocks() -> dict[str, str]:
    """The page's generated parts by name."""
    return {
        "kinds": table(
            "| kind | group | scope | versions | short names | status subresource | admin | edit | view | everyone |",
            kind_rows(),
        ),
        "subresources": table(
            "| path below `/apis/subresources.kubevirt.io/<version>` | verb | answer |",
            [
                *(
                    (
                        f"`/namespaces/<namespace>/{kind.plural}/<name>/{subresource.name}{PORT * subresource.path}`",
                        subresource.verb,
                        answer(subresource),
                    )
                    for kind, subresource in discovery.SUBRESOURCES.values()
                ),
                *(
                    (f"`/namespaces/<namespace>/{name}`", operation.verb, f"{operation.code}, an object")
                    for name, (_, operation) in discovery.NAMESPACE_OPERATIONS.items()
                ),
                ("`/version`", "get", "200, an object"),
                ("`/healthz`", "get", "200"),
            ],
        ),
        "vm-fields": table(
            "| field | |",
            ((f"`spec.{name}`", field.doc) for name, field in VM_SPEC.fields.items() if not field.refusal),
        ),
        "vmi-fields": table("| field | |", supported_rows(VMI_SPEC)),
        "other-kinds": other_kinds(),
        "kubevirt-fields": table("| field | |", supported_rows(KUBEVIRT_SPEC, idle=False)),
        "kubevirt-idle": table(
            "| field | what it would be |",
            ((f"`{path}`", field.doc) for path, field in KUBEVIRT_SPEC.leaves("spec") if field.idle),
        ),
    }


def pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- generated: {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)


@pytest.mark.skipif(not PAGE.exists(), reason="the engine is tested without the collection's documentation")
@pytest.mark.parametrize("name", blocks())
def test_the_page_is_up_to_date(name: str) -> None:
    found = pattern(name).search(PAGE.read_text())
    assert found, f"{PAGE} has no generated part {name}"
    assert found[0] == f"{found[1]}{blocks()[name]}{found[2]}", f"run: python {Path(__file__).name}"


def main() -> int:
    page = PAGE.read_text()
    for name, block in blocks().items():
        page, count = pattern(name).subn(lambda found, block=block: found[1] + block + found[2], page)
        if count != 1:
            print(f"{PAGE}: the markers of {name} are there {count} times", file=sys.stderr)
            return 1
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
