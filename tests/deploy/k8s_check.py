"""Checks rendered manifests; called by k8s.sh with the files base.yaml, dev.yaml and production.yaml."""

import base64
import re
import sys
from pathlib import Path

import kubernetes_validate
import yaml

# The oldest version that the manifests are meant for, and a recent one.
VERSIONS = ("1.31", "1.34")
# What would tie a client to a pod: words in annotations of the usual ingress controllers.
STICKY = re.compile(r"affinity|cookie|sticky|session|persist|upstream-hash|stick-table", re.IGNORECASE)
HASHING = re.compile(r"hash|source|uri|ewma", re.IGNORECASE)

passed = failed = 0


def check(ok: bool, what: str) -> None:
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print(f"FAIL {what}")


def walk(node, path=""):
    """Every (path, key, value) of a document."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield path, key, value
            yield from walk(value, f"{path}/{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from walk(value, f"{path}/{i}")


def schema(where: str, doc: dict) -> None:
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(doc, version, strict=True)
            check(True, "")
        except Exception as e:  # any: a schema error, or a kind that the version doesn't have
            check(False, f"{where}: schema {version}: {e}")


def nothing_sticky(where: str, doc: dict) -> None:
    for path, key, value in walk(doc):
        if key == "sessionAffinity":
            check(value == "None", f"{where}{path}: sessionAffinity {value}")
        if key == "sessionAffinityConfig":
            check(False, f"{where}{path}: {key}")
        if key == "annotations":
            for name, text in value.items():
                check(not STICKY.search(name), f"{where}{path}: annotation {name}")
                if "load-balance" in name:
                    check(not HASHING.search(str(text)), f"{where}{path}: {name}: {text}")
    if doc["kind"] == "Service":
        check(doc["spec"].get("sessionAffinity") == "None", f"{where}: sessionAffinity not explicitly None")


def pod(where: str, spec: dict) -> None:
    context = spec.get("securityContext", {})
    check(context.get("runAsNonRoot") is True, f"{where}: runAsNonRoot")
    check(context.get("runAsUser", 0) != 0, f"{where}: runAsUser")
    check(context.get("seccompProfile", {}).get("type") == "RuntimeDefault", f"{where}: seccomp")
    check(spec.get("automountServiceAccountToken") is False, f"{where}: automountServiceAccountToken")
    check(spec.get("enableServiceLinks") is False, f"{where}: enableServiceLinks")
    check(not any(spec.get(k) for k in ("hostNetwork", "hostPID", "hostIPC")), f"{where}: host namespaces")
    for container in spec["containers"] + spec.get("initContainers", []):
        at = f"{where}/{container['name']}"
        context = container.get("securityContext", {})
        check(context.get("readOnlyRootFilesystem") is True, f"{at}: readOnlyRootFilesystem")
        check(context.get("allowPrivilegeEscalation") is False, f"{at}: allowPrivilegeEscalation")
        check(context.get("capabilities", {}).get("drop") == ["ALL"], f"{at}: capabilities")
        check(not context.get("capabilities", {}).get("add"), f"{at}: capabilities added")
        check(not context.get("privileged"), f"{at}: privileged")
        check("memory" in container["resources"]["limits"], f"{at}: memory limit")
        check({"cpu", "memory"} <= container["resources"]["requests"].keys(), f"{at}: requests")
        check("readinessProbe" in container and "livenessProbe" in container, f"{at}: probes")


def rendering(name: str, docs: list[dict]) -> None:
    def all_of(kind: str) -> list[dict]:
        return [d for d in docs if d["kind"] == kind]

    def hubcast(kind: str) -> dict:
        found = [d for d in all_of(kind) if d["metadata"]["name"] == "hubcast"]
        check(len(found) == 1, f"{name}: {len(found)} {kind} hubcast")
        return found[0] if found else {}

    for doc in docs:
        where = f"{name} {doc['kind']}/{doc['metadata']['name']}"
        schema(where, doc)
        nothing_sticky(where, doc)
        if doc["kind"] == "Deployment":
            pod(where, doc["spec"]["template"]["spec"])

    deployment = hubcast("Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    spec = deployment["template"]["spec"]
    container = spec["containers"][0]

    # Selectors select.
    for kind, selector in (
        ("Deployment", deployment["selector"]["matchLabels"]),
        ("Service", hubcast("Service")["spec"]["selector"]),
        ("PodDisruptionBudget", hubcast("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]),
        ("NetworkPolicy", hubcast("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]),
        *(("topologySpread", c["labelSelector"]["matchLabels"]) for c in spec["topologySpreadConstraints"]),
    ):
        check(selector.items() <= labels.items(), f"{name}: {kind} selects {selector}, pods have {labels}")

    # References resolve.
    check(hubcast("ServiceAccount").get("automountServiceAccountToken") is False, f"{name}: account's token")
    check(spec["serviceAccountName"] == "hubcast", f"{name}: serviceAccountName")
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    check(hubcast("Service")["spec"]["ports"][0]["targetPort"] in ports, f"{name}: targetPort")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        check(container[probe]["httpGet"]["port"] in ports, f"{name}: {probe}'s port")
    check(container["readinessProbe"]["httpGet"]["path"] == "/readyz", f"{name}: readiness")
    check(container["livenessProbe"]["httpGet"]["path"] == "/healthz", f"{name}: liveness")
    maps = {m["metadata"]["name"]: m["data"] for m in all_of("ConfigMap")}
    settings = maps.get(container["envFrom"][0]["configMapRef"]["name"], {})
    check(bool(settings), f"{name}: ConfigMap {container['envFrom'][0]}")
    check(settings.get("HUBCAST_LISTEN") == f"0.0.0.0:{ports['http']}", f"{name}: HUBCAST_LISTEN")
    secrets = {s["metadata"]["name"]: s.get("data", {}) for s in all_of("Secret")}
    wanted = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in container["env"]}
    check(wanted.keys() == {"HUBCAST_ACCESS_KEY", "HUBCAST_REDIS"}, f"{name}: secrets {wanted.keys()}")
    for variable, reference in wanted.items():
        if name == "dev":
            value = base64.b64decode(secrets.get(reference["name"], {}).get(reference["key"], ""))
            check(len(value) > 0, f"{name}: {variable}: no {reference}")
        else:
            check(reference["name"] == "hubcast", f"{name}: {variable} from {reference['name']}")
    if name != "dev":
        check(not secrets, f"{name}: a secret in the repository")

    # A drain ends before Kubernetes ends it.
    drain = int(settings["HUBCAST_DRAIN__NOTICE_SECONDS"]) + int(settings["HUBCAST_DRAIN__DEADLINE_SECONDS"])
    check(spec["terminationGracePeriodSeconds"] > drain, f"{name}: terminationGracePeriodSeconds <= {drain}")
    check(int(settings["HUBCAST_DRAIN__NOTICE_SECONDS"]) > container["readinessProbe"]["periodSeconds"], f"{name}: notice")

    # The network: in by the port, out to names and Redis.
    policy = hubcast("NetworkPolicy")["spec"]
    check(sorted(policy["policyTypes"]) == ["Egress", "Ingress"], f"{name}: policyTypes")
    check([p["port"] for r in policy["ingress"] for p in r["ports"]] == [ports["http"]], f"{name}: ingress ports")
    out = sorted({p["port"] for rule in policy["egress"] for p in rule["ports"]})
    check(out == ([53] if name == "base" else [53, 6379]), f"{name}: egress ports {out}")

    if name == "dev":
        check(not all_of("HorizontalPodAutoscaler"), "dev: autoscaler without a metrics server")
        check(deployment.get("replicas", 1) > 1, "dev: fewer than two pods")
        check(settings.get("HUBCAST_DEMO") == "true", "dev: demo")
        url = base64.b64decode(secrets[wanted["HUBCAST_REDIS"]["name"]]["redis-url"]).decode()
        services = {d["metadata"]["name"]: d["spec"]["ports"][0]["port"] for d in all_of("Service")}
        match = re.fullmatch(r"redis://(\w+):(\d+)", url)
        check(bool(match) and services.get(match[1]) == int(match[2]), f"dev: {url} names no Service")
    else:
        scaler = hubcast("HorizontalPodAutoscaler")["spec"]
        check(scaler["scaleTargetRef"]["name"] == "hubcast", f"{name}: scaleTargetRef")
        check(scaler["minReplicas"] >= 3, f"{name}: minReplicas")
        check("replicas" not in deployment, f"{name}: replicas beside an autoscaler")
        check(settings.get("HUBCAST_DEMO") == "false", f"{name}: demo")

    if name == "production":
        ingress = hubcast("Ingress")
        annotations = ingress["metadata"]["annotations"]
        prefix = "nginx.ingress.kubernetes.io/"
        for key in ("proxy-read-timeout", "proxy-send-timeout"):
            check(int(annotations.get(prefix + key, 0)) >= 3600, f"production: {key}")
        check(annotations.get(prefix + "proxy-buffering") == "off", "production: proxy-buffering")
        check(bool(ingress["spec"]["tls"]), "production: TLS")
        hosts = {h for t in ingress["spec"]["tls"] for h in t["hosts"]}
        port_names = {p["name"] for p in hubcast("Service")["spec"]["ports"]}
        for rule in ingress["spec"]["rules"]:
            check(rule["host"] in hosts, f"production: {rule['host']} without TLS")
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                check(service["name"] == "hubcast" and service["port"]["name"] in port_names, f"production: {path}")
                check(path["path"] in ("/hubs", "/client", "/sse", "/api"), f"production: {path['path']} is public")
        check(":latest" not in container["image"] and ":" in container["image"], f"production: {container['image']}")


for file in map(Path, sys.argv[1:]):
    documents = [d for d in yaml.safe_load_all(file.read_text()) if d]
    before = passed, failed
    rendering(file.stem, documents)
    print(f"k8s/{file.stem}: {len(documents)} objects, {passed - before[0]} checks passed, {failed - before[1]} failed")
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed or not passed else 0)
