"""Kubernetes' own schemas, and those of the custom resources that the manifests use."""

import json
from pathlib import Path

import jsonschema
import kubernetes_validate

# The oldest version that the manifests are meant for, and a recent one.
VERSIONS = ("1.31", "1.34")


def strict(node):
    """A custom resource's schema under which an unknown field is an error, as the API server's strict check has it."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: strict(value) for key, value in node.items()}
    if node.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "properties" in node and node.get("type") == "object" and not node.get("x-kubernetes-preserve-unknown-fields"):
        node.setdefault("additionalProperties", False)
    return node


def custom_resources() -> dict:
    found = {}
    for file in (Path(__file__).parent / "schemas").glob("*.json"):
        definition = json.loads(file.read_text())
        schema = strict(definition["schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        found[definition["apiVersion"], definition["kind"]] = jsonschema.Draft7Validator(schema)
    return found


CUSTOM = custom_resources()


def errors(doc: dict) -> list[str]:
    """Why a cluster would not take this object; empty where it would."""
    kind = doc.get("apiVersion"), doc.get("kind")
    if kind in CUSTOM:
        return [f"{'/'.join(map(str, e.path))}: {e.message}" for e in CUSTOM[kind].iter_errors(doc)]
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(doc, version, strict=True)
        except Exception as e:  # any: a schema error, or a kind that the version doesn't have
            found.append(f"{version}: {e}")
    return found
