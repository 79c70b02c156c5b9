"""Objects checked before any cluster is made: against the CRDs that will be installed, and the limits of Kubernetes.

What a CRD says is an OpenAPI v3 schema (apiextensions.k8s.io/v1, CustomResourceDefinition), which is JSON Schema but
for three words of its own. Fields that it does not name are refused here; the API server drops them without a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from testbed.errors import UnsupportedError

Documents = Sequence[Mapping[str, Any]]
Schemas = Mapping[tuple[str, str], Mapping[str, Any]]

ANNOTATIONS = 256 * 1024  # bytes of all annotations of an object (k8s.io/apimachinery, TotalAnnotationSizeLimitB)
DATA = 1024 * 1024  # bytes of a ConfigMap or Secret (k8s.io/api/core/v1, MaxSecretSize)
OBJECT = 1536 * 1024  # bytes of a request that etcd takes (--max-request-bytes)
# What every object has besides what its schema names.
_HEAD = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
_GROUPS = ("projectcalico.org", "metallb.io")  # whose resources must have a CRD


def schemas(upstream: Documents) -> dict[tuple[str, str], Mapping[str, Any]]:
    """(apiVersion, kind) → the JSON Schema, of every CRD among some documents."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for document in upstream:
        if document.get("kind") != "CustomResourceDefinition":
            continue
        spec = document["spec"]
        for version in spec["versions"]:
            schema = version.get("schema", {}).get("openAPIV3Schema")
            if version.get("served") and schema:
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = _converted(schema, top=True)
    return found


def _converted(schema: Mapping[str, Any], *, top: bool = False) -> dict[str, Any]:
    """An OpenAPI v3 schema as JSON Schema: nullable, int-or-string, and no unknown fields where it names fields."""
    made = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-") and key != "nullable"}
    made.pop("format", None)
    for key in ("properties", "patternProperties"):
        if key in made:
            made[key] = {name: _converted(entry) for name, entry in made[key].items()}
    for key in ("items", "not"):
        if isinstance(made.get(key), Mapping):
            made[key] = _converted(made[key])
    if isinstance(made.get("additionalProperties"), Mapping):
        made["additionalProperties"] = _converted(made["additionalProperties"])
    if top:
        made["properties"] = {**made.get("properties", {}), **_HEAD}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "properties" in made and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    if schema.get("nullable") and "type" in made:
        made["type"] = [made["type"], "null"]
    return made


def problems(item: Mapping[str, Any], known: Schemas) -> Iterator[str]:
    """What is wrong with an object, in words; the field first, as `spec.addresses[0]`."""
    yield from _limits(item)
    version, kind = item["apiVersion"], item["kind"]
    schema = known.get((version, kind))
    if schema is None:
        if version.partition("/")[0] in _GROUPS:
            served = sorted(entry[0] for entry in known if entry[1] == kind)
            instead = f"they have it as {', '.join(served)}" if served else "they have no such kind"
            yield f"the manifests that are installed have no {kind} of {version}: {instead}"
        return
    try:
        import jsonschema
    except ImportError:
        raise UnsupportedError("clusters of kind's need Python packages: pip install 'testbed[kind]'") from None
    for error in jsonschema.Draft202012Validator(schema).iter_errors(item):
        yield f"{_field(error.absolute_path)}: {error.message}"


def _field(path: Iterable[str | int]) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.lstrip(".") or "the object"


def _limits(item: Mapping[str, Any]) -> Iterator[str]:
    notes = item.get("metadata", {}).get("annotations") or {}
    size = sum(len(key.encode()) + len(str(value).encode()) for key, value in notes.items())
    if size > ANNOTATIONS:
        yield f"metadata.annotations: {size} bytes, and Kubernetes takes {ANNOTATIONS}"
    if item.get("kind") in ("ConfigMap", "Secret"):
        held = [*(item.get("data") or {}).values(), *(item.get("stringData") or {}).values()]
        size = sum(len(str(value).encode()) for value in held)
        if size > DATA:
            yield f"data: {size} bytes, and Kubernetes takes {DATA}"
    size = len(json.dumps(item, ensure_ascii=False).encode())
    if size > OBJECT:
        yield f"the object has {size} bytes, and the API takes {OBJECT}"
