# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the schemas of the built-in kinds that the standalone API server serves and decodes by.

    scripts/builtin-schemas.py DEFINITIONS GO-SOURCE

DEFINITIONS is Kubernetes' OpenAPI v2 document (api/openapi-spec/swagger.json of its source), or the file
_definitions.json that the Python package kubernetes-validate makes of it, of the minor version that the package
`kubernetes` in engine/pyproject.toml is of. GO-SOURCE is an unpacked source of Kubernetes (any version; Debian's
source package kubernetes does): OpenAPI doesn't tell which fields are pointers, and thereby which zero values are
stored and which aren't. The result is engine/src/turtles/standalone/apiserver/schema/builtin.json.z; both inputs
are under the Apache License 2.0. engine/tests/standalone/apiserver/schema/test_schemas.py compares it with the models
of `kubernetes`.
"""

import json
import re
import sys
import zlib
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "engine/src/turtles/standalone/apiserver/schema/builtin.json.z"
#: What is served, and what it refers to.
ROOTS = (
    "io.k8s.api.admissionregistration.v1.",
    "io.k8s.api.apps.v1.",
    "io.k8s.api.authentication.v1.",
    "io.k8s.api.authorization.v1.",
    "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.api.coordination.v1.",
    "io.k8s.api.core.v1.",
    "io.k8s.api.discovery.v1.",
    "io.k8s.api.events.v1.",
    "io.k8s.api.networking.v1.NetworkPolicy",
    "io.k8s.api.policy.v1.",
    "io.k8s.api.rbac.v1.",
    "io.k8s.api.scheduling.v1.",
    "io.k8s.api.storage.v1.",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.",
    "io.k8s.apimachinery.pkg.apis.meta.v1.",
    "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.",
)
#: Definitions that the package kubernetes-validate writes as JSON schemas do.
PLAIN: dict[str, dict[str, str]] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": "string"},
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": "string", "format": "int-or-string"},
}
#: Where the Go types of a prefix of definitions are; an older version of the group stands in for a missing one.
PACKAGES = {
    "io.k8s.api.": "staging/src/k8s.io/api",
    "io.k8s.apiextensions-apiserver.pkg.apis.": "staging/src/k8s.io/apiextensions-apiserver/pkg/apis",
    "io.k8s.apimachinery.pkg.apis.": "staging/src/k8s.io/apimachinery/pkg/apis",
    "io.k8s.kube-aggregator.pkg.apis.": "staging/src/k8s.io/kube-aggregator/pkg/apis",
}
_STRUCT = re.compile(r"^type (\w+) struct \{$")
_FIELD = re.compile(r"^\s+\w*\s*(\S+)\s+`json:\"([^\"]*)\"")


def plain(value: Any, inside: bool = False) -> Any:
    """Return a schema as OpenAPI v2 has it: no null types, references to #/definitions."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    result = {}
    for name, item in value.items():
        if name == "properties" and not inside:
            result[name] = {field: plain(schema) for field, schema in item.items()}
            for field in ("apiVersion", "kind"):
                if isinstance(result[name].get(field), dict):
                    result[name][field].pop("enum", None)
        elif name == "type" and isinstance(item, list):
            result[name] = next(one for one in item if one != "null")
        elif name == "$ref" and isinstance(item, str):
            result[name] = "#/definitions/" + item.rpartition("/")[2]
        else:
            result[name] = plain(item)
    return result


def references(value: Any) -> set[str]:
    """Return the names of the definitions that a schema refers to."""
    if isinstance(value, list):
        return set().union(*(references(item) for item in value))
    if not isinstance(value, dict):
        return set()
    found = set().union(*(references(item) for item in value.values()))
    if isinstance(value.get("$ref"), str):
        found.add(value["$ref"].rpartition("/")[2])
    return found


def go_fields(path: Path) -> dict[str, dict[str, tuple[str, bool]]]:
    """Return struct -> JSON name -> Go type, whether it has omitempty."""
    structs: dict[str, dict[str, tuple[str, bool]]] = {}
    current: dict[str, tuple[str, bool]] | None = None
    for line in path.read_text().splitlines():
        if match := _STRUCT.match(line):
            current = structs.setdefault(match[1], {})
        elif line == "}":
            current = None
        elif current is not None and (match := _FIELD.match(line)):
            name, *options = match[2].split(",")
            if name and name != "-":
                current[name] = (match[1], "omitempty" in options or "omitzero" in options)
    return structs


def annotate(name: str, definition: dict[str, Any], sources: dict[Path, Any], root: Path) -> None:
    """Say of each property what Go does with its zero value: x-go, see schemas.Type.zero."""
    prefix = next((one for one in PACKAGES if name.startswith(one)), None)
    if prefix is None:
        return
    group, version, kind = name.removeprefix(prefix).rsplit(".", 2)
    folder = root / PACKAGES[prefix] / group
    for one in (version, "v1", "v1beta1"):
        path = folder / one / "types.go"
        if path.exists():
            fields = sources.setdefault(path, go_fields(path)).get(kind)
            break
    else:
        fields = None
    for field, schema in definition.get("properties", {}).items():
        if fields is None or field not in fields:
            continue
        kind, omitted = fields[field]
        if kind.startswith("*"):
            schema["x-go"] = "pointer"
        elif not omitted or "$ref" in schema:
            schema["x-go"] = "always" if not omitted or not plain_reference(schema) else "omitempty"
        else:
            schema["x-go"] = "omitempty"


def plain_reference(schema: dict[str, Any]) -> bool:
    """Whether a reference isn't to a struct, whose omitempty has no effect."""
    return schema["$ref"].rpartition(".")[2] in ("FieldsV1",)


def main() -> None:
    """Write the file."""
    document = json.loads(Path(sys.argv[1]).read_text())
    source = Path(sys.argv[2])
    definitions = {name: plain(one) for name, one in (document.get("definitions") or document["$defs"]).items()}
    for name, schema in PLAIN.items():
        description = definitions[name].get("description")
        definitions[name] = {**schema, **({"description": description} if description else {})}
    wanted, todo = set(), [name for name in definitions if name.startswith(ROOTS)]
    while todo:
        name = todo.pop()
        if name not in wanted:
            wanted.add(name)
            todo += references(definitions[name])
    sources: dict[Path, Any] = {}
    for name in wanted:
        annotate(name, definitions[name], sources, source)
    kept = {name: definitions[name] for name in sorted(wanted)}
    TARGET.write_bytes(zlib.compress(json.dumps(kept, separators=(",", ":"), sort_keys=True).encode(), 9))
    print(f"{TARGET}: {len(kept)} definitions, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
