"""Runs every command of the pages that are named, in their order, against a cluster that is only a record.

page.py TREE PAGE.md…: TREE is a copy of the repository's files. The shell blocks run as they stand, with stand-ins for
docker, kind, kubectl, helm and curl (this file, by those names) first on the path. They render with the real kubectl and
helm, check objects against Kubernetes' schemas, and keep a record of the cluster: namespaces, objects and images. A command
fails as the real one would, or leaves pods that would not start: a namespace that is not there yet, an image that no node
could get, a secret that nobody made, a hub that nobody serves.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

TOOLS = ("docker", "kind", "kubectl", "helm", "curl")
KINDS = {"pods": "Deployment", "ingress": "Ingress", "horizontalpodautoscaler": "HorizontalPodAutoscaler"}


class Refused(Exception):
    """The command would fail; the text says why."""


class Cluster:
    """The record, kept in a file between commands."""

    def __init__(self, file: Path):
        self.file = file
        state = json.loads(file.read_text()) if file.exists() else {}
        self.namespaces = state.get("namespaces", ["default", "kube-system"])
        self.objects = state.get("objects", {})
        self.built = state.get("built", [])
        self.reachable = state.get("reachable", [])
        self.repositories = state.get("repositories", [])

    def save(self):
        self.file.write_text(json.dumps({k: v for k, v in vars(self).items() if k != "file"}))

    def of(self, namespace: str, kind: str) -> dict[str, dict]:
        prefix = f"{namespace}/{kind}/"
        return {k.removeprefix(prefix): d for k, d in self.objects.items() if k.startswith(prefix)}

    def one(self, namespace: str, reference: str) -> dict:
        kind, name = reference.split("/")
        found = self.of(namespace, {"deployment": "Deployment", "service": "Service"}[kind]).get(name)
        if not found:
            raise Refused(f'Error from server (NotFound): {kind}s "{name}" not found in namespace {namespace}')
        return found

    def take(self, docs: list[dict], namespace: str):
        """Applies these objects; checks what the API server would check, then what pods need to start."""
        from schema import errors

        for doc in sorted(docs, key=lambda d: d["kind"] != "Namespace"):
            for error in errors(doc):
                raise Refused(f"{doc['kind']}/{doc['metadata']['name']}: {error}")
            if doc["kind"] == "Namespace":
                self.namespaces.append(doc["metadata"]["name"])
                continue
            at = doc["metadata"].get("namespace", namespace)
            if at not in self.namespaces:
                raise Refused(f'Error from server (NotFound): namespaces "{at}" not found')
            self.objects[f"{at}/{doc['kind']}/{doc['metadata']['name']}"] = doc
        for doc in docs:
            if doc["kind"] == "Deployment":
                self.starts(doc, doc["metadata"].get("namespace", namespace))

    def starts(self, deployment: dict, namespace: str):
        spec = deployment["spec"]["template"]["spec"]
        for container in spec["containers"]:
            image = container["image"]
            if "hubcast" in image and image not in self.reachable:
                raise Refused(f"ImagePullBackOff: {image} was neither pushed to a registry nor loaded into the nodes")
            wanted = [("Secret", e["valueFrom"]["secretKeyRef"]) for e in container.get("env", []) if "valueFrom" in e]
            for kind, reference in wanted:
                if reference["key"] not in self.of(namespace, kind).get(reference["name"], {}).get("data", {}):
                    raise Refused(f"CreateContainerConfigError: {kind} {reference['name']} with {reference['key']} is missing")
            for source in container.get("envFrom", []):
                if source["configMapRef"]["name"] not in self.of(namespace, "ConfigMap"):
                    raise Refused(f"CreateContainerConfigError: ConfigMap {source['configMapRef']['name']} is missing")


def real(tool: str, *args: str) -> str:
    done = subprocess.run([os.environ[f"REAL_{tool.upper()}"], *args], capture_output=True, text=True)
    if done.returncode:
        raise Refused(done.stderr.strip())
    return done.stdout


def documents(text: str) -> list[dict]:
    return [d for d in yaml.safe_load_all(text) if d]


def option(args: list[str], *names: str, default: str | None = None) -> str | None:
    """Takes an option with its value out of the arguments."""
    for i, arg in enumerate(args):
        if arg in names:
            value = args[i + 1]
            del args[i : i + 2]
            return value
        for name in names:
            if arg.startswith(f"{name}="):
                del args[i]
                return arg.split("=", 1)[1]
    return default


def docker(cluster: Cluster, args: list[str]):
    match args:
        case ["build", "-f", file, "-t", tag, context]:
            if not Path(file).is_file() or not Path(context, "Cargo.toml").is_file():
                raise Refused(f"no {file}, or {context} is no context for it")
            cluster.built.append(tag)
        case ["push", tag]:
            if tag not in cluster.built:
                raise Refused(f"An image does not exist locally with the tag: {tag}")
            cluster.reachable.append(tag)
        case _:
            raise Refused(f"the test does not know: docker {shlex.join(args)}")


def kind(cluster: Cluster, args: list[str]):
    match args:
        case ["load", "docker-image", tag]:
            if tag not in cluster.built:
                raise Refused(f"image: {tag} not present locally")
            cluster.reachable.append(tag)
        case _:
            raise Refused(f"the test does not know: kind {shlex.join(args)}")


def kubectl(cluster: Cluster, args: list[str]):
    namespace = option(args, "-n", "--namespace", default="default")
    match args:
        case ["apply", "-k", directory]:
            cluster.take(documents(real("kubectl", "kustomize", directory)), namespace)
        case ["create", "secret" | "namespace", *_]:
            cluster.take(documents(real("kubectl", *args, "--dry-run=client", "-o", "yaml")), namespace)
        case ["rollout", "status" | "restart", reference] | ["logs", reference]:
            cluster.one(namespace, reference)
        case ["exec", reference, "--", *command]:
            # The image's program is this repository's, whose help examples are checked where it is built.
            cluster.one(namespace, reference)
            if command[0] != "hubcast":
                raise Refused(f"the image has no program {command[0]}")
        case ["port-forward", reference, ports]:
            wanted = int(ports.split(":")[1])
            if wanted not in [p["port"] for p in cluster.one(namespace, reference)["spec"]["ports"]]:
                raise Refused(f"Service does not have a service port {wanted}")
        case ["get", kinds]:
            for name in kinds.split(","):
                if not cluster.of(namespace, KINDS[name]):
                    raise Refused(f"No resources found in {namespace} namespace: {name}")
        case _:
            raise Refused(f"the test does not know: kubectl {shlex.join(args)}")


def helm(cluster: Cluster, args: list[str]):
    namespace = option(args, "-n", "--namespace", default="default")
    match args:
        case ["repo", "add", name, _]:
            cluster.repositories.append(name)
        case ["upgrade", "--install", release, chart, *rest]:
            if "--create-namespace" in rest:
                rest.remove("--create-namespace")
                cluster.namespaces.append(namespace)
            if Path(chart).is_dir():
                cluster.take(documents(real("helm", "template", release, chart, "--namespace", namespace, *rest)), namespace)
            else:
                if chart.split("/")[0] not in cluster.repositories:
                    raise Refused(f"Error: repo {chart.split('/')[0]} not found")
                yaml.safe_load(Path(option(rest, "-f", "--values")).read_text())
        case _:
            raise Refused(f"the test does not know: helm {shlex.join(args)}")


def curl(cluster: Cluster, args: list[str]):
    """Reaches a hub by a host and path that an Ingress of the cluster has."""
    url = re.match(r"https://([^/]+)(/hubs/(\w+)/\S*)", next(a for a in args if a.startswith("http")))
    if not url:
        raise Refused(f"the test does not know: curl {shlex.join(args)}")
    host, path, hub = url.groups()
    for key, ingress in cluster.objects.items():
        if "/Ingress/" not in key:
            continue
        for rule in ingress["spec"]["rules"]:
            if rule["host"] == host and any(path.startswith(p["path"] + "/") for p in rule["http"]["paths"]):
                maps = cluster.of(key.split("/")[0], "ConfigMap").values()
                if not any(f"[hubs.{hub}]" in m["data"].get("hubcast.toml", "") for m in maps):
                    raise Refused(f"404: no hub {hub}")
                return
    raise Refused(f"no Ingress has {host}{path}")


def command(tool: str, args: list[str]) -> int:
    cluster = Cluster(Path(os.environ["PAGE_STATE"]))
    try:
        globals()[tool](cluster, list(args))
    except Refused as e:
        print(e, file=sys.stderr)
        return 1
    cluster.save()
    with open(os.environ["PAGE_LOG"], "a") as log:
        log.write(shlex.join([tool, *args]) + "\n")
    return 0


def blocks(page: Path) -> list[str]:
    """The shell blocks, also indented ones of list items."""
    found = re.findall(r"^( *)```sh\n(.*?)^\1```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def main(tree: Path, pages: list[str]) -> int:
    stand_ins = tree / ".stand-ins"
    stand_ins.mkdir()
    for tool in TOOLS:
        (stand_ins / tool).write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" --tool {tool} "$@"\n')
        (stand_ins / tool).chmod(0o755)
    log = tree / ".commands"
    environment = os.environ | {
        "PATH": f"{stand_ins}:{os.environ['PATH']}", "PAGE_STATE": str(tree / ".cluster"), "PAGE_LOG": str(log),
    }
    failed = passed = 0
    for page in pages:
        for block in blocks(tree / page):
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=tree, env=environment, capture_output=True, text=True)
            if done.returncode:
                failed += 1
                print(f"FAIL {page}:\n     {block.strip()}\n  -> {done.stderr.strip()}")
            else:
                passed += 1
    print(f"{', '.join(pages)}: {passed} blocks of commands, {len(log.read_text().splitlines()) if log.exists() else 0} commands")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    if sys.argv[1] == "--tool":
        sys.exit(command(sys.argv[2], sys.argv[3:]))
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
