"""Compares the chart's rendering with kustomize's: compare.py KUSTOMIZE.yaml CHART.yaml.

The two must be the same objects. Only these differ by the nature of the tools, and are evened out: hashes in names of
ConfigMaps and Secrets (kustomize) against checksum annotations (the chart), the namespace (an argument of Helm, and an
object of kustomize), the labels by which Helm knows its own, and the order of labels and objects.
"""

import json
import re
import sys
from pathlib import Path

import yaml

HELMS_LABELS = ("app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart")
HASH = re.compile(r"-[0-9a-z]{10}$")


def load(path: str) -> list[dict]:
    return [d for d in yaml.safe_load_all(Path(path).read_text()) if d]


def even(node, hashed: set[str]):
    """The node without the differences that are of no concern."""
    if isinstance(node, list):
        return [even(item, hashed) for item in node]
    if isinstance(node, str) and node in hashed:
        return HASH.sub("", node)
    if not isinstance(node, dict):
        return node
    out = {}
    for key, value in node.items():
        if key in HELMS_LABELS or key.startswith("checksum/"):
            continue
        if key == "data" and node.get("kind") == "Secret":
            value = {k: "".join(v.split()) for k, v in value.items()}  # kustomize folds long Base64
        out[key] = even(value, hashed)
    return out


def objects(docs: list[dict]) -> dict[tuple, dict]:
    hashed = {
        d["metadata"]["name"] for d in docs if d["kind"] in ("ConfigMap", "Secret") and HASH.search(d["metadata"]["name"])
    }
    found = {}
    for doc in docs:
        if doc["kind"] == "Namespace" or doc["metadata"].get("labels", {}).get("app.kubernetes.io/name") == "redis":
            continue  # not the chart's business
        doc = even(doc, hashed)
        doc["metadata"].pop("namespace", None)
        found[doc["kind"], doc["metadata"]["name"]] = doc
    return found


def differences(a, b, path=""):
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            if key not in a:
                yield f"{path}/{key}: only in the chart: {json.dumps(b[key])}"
            elif key not in b:
                yield f"{path}/{key}: only in kustomize: {json.dumps(a[key])}"
            else:
                yield from differences(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b)):
            yield from differences(x, y, f"{path}/{i}")
    elif a != b:
        yield f"{path}: kustomize has {json.dumps(a)}, the chart {json.dumps(b)}"


if __name__ == "__main__":
    kustomize, chart = objects(load(sys.argv[1])), objects(load(sys.argv[2]))
    found = list(differences({f"{k}/{n}": d for (k, n), d in kustomize.items()}, {f"{k}/{n}": d for (k, n), d in chart.items()}))
    for line in found:
        print(f"     {line[:600]}")
    print(f"{len(kustomize)} objects of kustomize, {len(chart)} of the chart, {len(found)} differences")
    sys.exit(1 if found or not chart else 0)
