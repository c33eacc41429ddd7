"""Checks rendered manifests: check.py ALERTS.yml RENDERING…, files base.yaml, dev.yaml, production.yaml, everything.yaml.

HUBCAST_BINARY, where it is set, is asked whether it takes the settings.
"""

import base64
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from ipaddress import ip_network
from pathlib import Path

import yaml

from schema import errors

# Words in annotations of the usual ingress controllers that tie a client to a pod.
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
    found = errors(doc)
    check(not found, f"{where}: schema: {'; '.join(found)}")


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


def megabytes(quantity: str) -> int:
    return int(quantity[:-2]) * {"Mi": 1, "Gi": 1024}[quantity[-2:]]


def settings_are_taken(where: str, variables: dict[str, str], toml: str) -> None:
    """`hubcast check` takes the variables and the file."""
    binary = os.environ.get("HUBCAST_BINARY")
    if not binary:
        return
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(toml)
        file.flush()
        keys = {"HUBCAST_ACCESS_KEY": "0123456789abcdef0123456789abcdef", "HUBCAST_REDIS": "redis://redis.invalid"}
        done = subprocess.run([binary, "check", "--config", file.name], env=variables | keys, capture_output=True, text=True)
    check(done.returncode == 0, f"{where}: hubcast check: {done.stderr.strip()}")


def rolls_out(name: str, deployment: dict) -> None:
    """Every new pod is there before the first old one goes, and a lost node's pods are replaced soon."""
    update = deployment["strategy"]["rollingUpdate"]
    check(update == {"maxSurge": "100%", "maxUnavailable": 0}, f"{name}: roll-out {update}")
    spec = deployment["template"]["spec"]
    ready = spec["containers"][0]["readinessProbe"]
    check(deployment["minReadySeconds"] >= 10, f"{name}: minReadySeconds")
    # A blip of Redis must not take every pod out of the Service.
    check(ready["failureThreshold"] >= 3, f"{name}: readiness fails at the first no")
    tolerated = {t["key"]: t["tolerationSeconds"] for t in spec["tolerations"]}
    for key in ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"):
        check(tolerated.get(key, 300) <= 60, f"{name}: {key}: {tolerated.get(key)}")


def scales(name: str, spec: dict) -> None:
    """A spike of a minute does not end in many pods, and pods go one at a time."""
    up, down = spec["behavior"]["scaleUp"], spec["behavior"]["scaleDown"]
    check(up["stabilizationWindowSeconds"] >= 60, f"{name}: scales up at once")
    check(bool(up["policies"]), f"{name}: no policy for scaling up")
    grown = max(p["value"] if p["type"] == "Pods" else spec["minReplicas"] * p["value"] / 100 for p in up["policies"])
    check(grown <= spec["minReplicas"], f"{name}: {grown} pods at once beside {spec['minReplicas']}")
    check(down["stabilizationWindowSeconds"] >= 300, f"{name}: scales down at once")
    check([(p["type"], p["value"]) for p in down["policies"]] == [("Pods", 1)], f"{name}: scales down {down['policies']}")
    metrics = [m["resource"]["name"] if m["type"] == "Resource" else m["pods"]["metric"]["name"] for m in spec["metrics"]]
    wanted = ["cpu", "memory"] + (["hubcast_connections"] if name == "everything" else [])
    check(metrics == wanted, f"{name}: scales by {metrics}")


def egress_is_narrow(name: str, rules: list[dict]) -> None:
    """Every rule names its peers and ports; the internet only by HTTPS, and never by way of private networks."""
    for rule in rules:
        ports = sorted({p["port"] for p in rule.get("ports", [])})
        check(bool(ports) and bool(rule.get("to")), f"{name}: egress to anywhere: {rule}")
        for peer in rule.get("to", []):
            check(peer not in ({}, {"namespaceSelector": {}}, {"podSelector": {}}), f"{name}: egress to all pods: {rule}")
            if "ipBlock" not in peer:
                continue
            network = ip_network(peer["ipBlock"]["cidr"])
            if network.prefixlen > 0:
                check(network.is_private, f"{name}: egress to {network}")
                continue
            check(ports == [443], f"{name}: egress to {network} by {ports}")
            out = [ip_network(c) for c in peer["ipBlock"].get("except", [])]
            inside = ["10.1.2.3", "100.64.1.1", "169.254.169.254", "172.20.1.1", "192.168.1.1"] if network.version == 4 else ["fd00::1", "fe80::1"]
            for address in inside:
                check(any(ip_network(address).subnet_of(o) for o in out), f"{name}: egress to {address}")


def public_paths(name: str, paths: list[str]) -> None:
    check(sorted(paths) == ["/api", "/client", "/hubs", "/sse"], f"{name}: public paths {paths}")


def ingress_lets_through(name: str, ingress: dict, service_ports: set[str]) -> None:
    """TLS, timeouts above the longest poll, and no path that is not for the public."""
    annotations = ingress["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io/"
    for key in ("proxy-read-timeout", "proxy-send-timeout"):
        check(int(annotations.get(prefix + key, 0)) >= 3600, f"{name}: {key}")
    check(annotations.get(prefix + "proxy-buffering") == "off", f"{name}: proxy-buffering")
    # ingress-nginx is retired: no overlay may depend on it.
    check(ingress["spec"].get("ingressClassName") in (None, "haproxy"), f"{name}: ingress class")
    hosts = {h for t in ingress["spec"]["tls"] for h in t["hosts"]}
    for rule in ingress["spec"]["rules"]:
        check(rule["host"] in hosts, f"{name}: {rule['host']} without TLS")
        for path in rule["http"]["paths"]:
            service = path["backend"]["service"]
            check(service["name"] == "hubcast" and service["port"]["name"] in service_ports, f"{name}: {path}")
        public_paths(name, [p["path"] for p in rule["http"]["paths"]])


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

    # Selectors match the pods' labels.
    for kind, selector in (
        ("Deployment", deployment["selector"]["matchLabels"]),
        ("Service", hubcast("Service")["spec"]["selector"]),
        ("PodDisruptionBudget", hubcast("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]),
        ("NetworkPolicy", hubcast("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]),
        *(("topologySpread", c["labelSelector"]["matchLabels"]) for c in spec["topologySpreadConstraints"]),
    ):
        check(selector.items() <= labels.items(), f"{name}: {kind} selects {selector}, pods have {labels}")

    # References point to objects that exist.
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
    volumes = {v["name"]: v for v in spec["volumes"]}
    toml = maps.get(volumes["config"]["configMap"]["name"], {}).get("hubcast.toml", "")
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    check(container["args"] == ["serve", "--config", mounts["config"]], f"{name}: {container['args']}")
    check(volumes["files"]["secret"].get("optional") is True, f"{name}: pods need the secret {volumes['files']}")
    check(bool(tomllib.loads(toml).get("hubs")), f"{name}: no hub is served")
    settings_are_taken(name, settings, toml)
    # At least 48 KiB of the pod's memory for each client.
    room = megabytes(container["resources"]["limits"]["memory"]) * 1024 / int(settings["HUBCAST_LIMITS__CONNECTIONS"])
    check(room >= 48, f"{name}: {room} KiB of memory for each client")
    check(settings.get("HUBCAST_LISTEN") == f"0.0.0.0:{ports['http']}", f"{name}: HUBCAST_LISTEN")
    secrets = {s["metadata"]["name"]: s.get("data", {}) for s in all_of("Secret")}
    wanted = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in container["env"] if "valueFrom" in e}
    check(wanted.keys() == {"HUBCAST_ACCESS_KEY", "HUBCAST_REDIS"}, f"{name}: secrets {wanted.keys()}")
    for variable, reference in wanted.items():
        if name == "base":
            check(reference["name"] == "hubcast" and not secrets, f"base: {variable} from {reference['name']}")
            continue
        value = base64.b64decode(secrets.get(reference["name"], {}).get(reference["key"], ""))
        check(len(value) > 0, f"{name}: {variable}: no {reference}")
        # A changed secret has another name, which rolls the pods.
        check(re.fullmatch(r"hubcast-[a-z0-9]{10}", reference["name"]) is not None, f"{name}: {reference['name']} has no hash")

    # A drain ends before Kubernetes ends it.
    drain = int(settings["HUBCAST_DRAIN__NOTICE_SECONDS"]) + int(settings["HUBCAST_DRAIN__DEADLINE_SECONDS"])
    check(spec["terminationGracePeriodSeconds"] > drain, f"{name}: terminationGracePeriodSeconds <= {drain}")
    check(int(settings["HUBCAST_DRAIN__NOTICE_SECONDS"]) > container["readinessProbe"]["periodSeconds"], f"{name}: notice")

    rolls_out(name, deployment)
    budget = hubcast("PodDisruptionBudget")["spec"]
    check(budget["maxUnavailable"] == 1, f"{name}: {budget['maxUnavailable']} pods may be evicted at once")
    # Pods that are not ready (all, while Redis is away) still hold their clients.
    check(budget.get("unhealthyPodEvictionPolicy") != "AlwaysAllow", f"{name}: unready pods are evicted without a bound")

    # The network policy admits traffic in by the port, and out to DNS and Redis.
    policy = hubcast("NetworkPolicy")["spec"]
    check(sorted(policy["policyTypes"]) == ["Egress", "Ingress"], f"{name}: policyTypes")
    check(settings["HUBCAST_SERVER__ADMIN_LISTEN"] == f"0.0.0.0:{ports['admin']}", f"{name}: HUBCAST_SERVER__ADMIN_LISTEN")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        check(container[probe]["httpGet"]["port"] == "admin", f"{name}: {probe} at the clients' port")
    annotations = deployment["template"]["metadata"]["annotations"]
    check(annotations["prometheus.io/port"] == str(ports["admin"]), f"{name}: prometheus.io/port")
    check([p["port"] for r in policy["ingress"] for p in r["ports"]] == [ports["http"], ports["admin"]], f"{name}: ingress ports")
    check("from" not in policy["ingress"][0] and bool(policy["ingress"][1].get("from")), f"{name}: metrics for everybody")
    out = sorted({p["port"] for rule in policy["egress"] for p in rule["ports"]})
    more = {"base": [], "dev": [6379], "production": [6379], "everything": [443, 4318, 6379]}[name]
    check(out == [53, *more], f"{name}: egress ports {out}")
    egress_is_narrow(name, policy["egress"])

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
        scales(name, scaler)

    if name in ("production", "everything"):
        ingress_lets_through(name, hubcast("Ingress"), {p["name"] for p in hubcast("Service")["spec"]["ports"]})
        trusted = [ip_network(n) for n in tomllib.loads(toml).get("server", {}).get("trusted_proxies", [])]
        check(bool(trusted) and all(n.is_private or str(n) == "100.64.0.0/10" for n in trusted), f"{name}: trusted_proxies {trusted}")
        check(":latest" not in container["image"] and ":" in container["image"], f"{name}: {container['image']}")
    if name == "everything":
        check("@sha256:" in container["image"], f"{name}: {container['image']} by digest")
        route = hubcast("HTTPRoute")["spec"]
        public_paths(name, [m["path"]["value"] for r in route["rules"] for m in r["matches"]])
        for rule in route["rules"]:
            check("sessionPersistence" not in rule, f"{name}: sessionPersistence")
            check(rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}, f"{name}: {rule['timeouts']}")
            backends = [(b["name"], b["port"]) for b in rule["backendRefs"]]
            check(backends == [("hubcast", hubcast("Service")["spec"]["ports"][0]["port"])], f"{name}: {backends}")
        monitor = hubcast("PodMonitor")["spec"]
        check(monitor["selector"]["matchLabels"].items() <= labels.items(), f"{name}: PodMonitor selects {monitor['selector']}")
        check(monitor["podMetricsEndpoints"][0]["port"] == "admin", f"{name}: PodMonitor's port")
        check(hubcast("PrometheusRule")["spec"] == yaml.safe_load(Path(sys.argv[1]).read_text()), f"{name}: alerts differ from {sys.argv[1]}")


for file in map(Path, sys.argv[2:]):
    documents = [d for d in yaml.safe_load_all(file.read_text()) if d]
    before = passed, failed
    rendering(file.stem, documents)
    print(f"k8s/{file.stem}: {len(documents)} objects, {passed - before[0]} checks passed, {failed - before[1]} failed")
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed or not passed else 0)
