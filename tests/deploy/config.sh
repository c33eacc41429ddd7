#!/usr/bin/env bash
# Checks configuration files without an engine: HAProxy, nginx, Compose, Prometheus, the dashboard, the systemd unit.
# HUBCAST_BINARY (default: target/{debug,release}/hubcast) checks the settings.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/hubcast-config.XXXXXX")
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
check() { # description, command…
    local what=$1; shift
    if "$@" >"$work/log" 2>&1; then
        passed=$((passed + 1))
        echo "ok   $what"
    else
        failed=$((failed + 1))
        echo "FAIL $what"
        tail -n 20 "$work/log" | sed 's/^/     /'
    fi
}

need=()
command -v haproxy >/dev/null || need+=(haproxy)
command -v nginx >/dev/null || need+=(nginx-light)
if command -v docker-compose >/dev/null; then compose=(docker-compose)
elif docker compose version >/dev/null 2>&1; then compose=(docker compose)
else need+=(docker-compose) compose=(docker-compose); fi
command -v promtool >/dev/null || need+=(prometheus)
command -v systemd-analyze >/dev/null || need+=(systemd)
if [ ${#need[@]} -gt 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    # only for their checkers: nothing is to be started
    { apt-get update -q && RUNLEVEL=1 apt-get install -yq --no-install-recommends "${need[@]}"; } >"$work/apt" 2>&1 || { cat "$work/apt"; exit 1; }
fi

warnings_are_errors() { # HAProxy says "valid" also after warnings
    haproxy -c -f "$1" 2>&1 | tee "$work/haproxy"
    grep -q 'Configuration file is valid' "$work/haproxy" && ! grep -q WARNING "$work/haproxy"
}
check "haproxy.cfg" warnings_are_errors "$repo/deploy/haproxy/haproxy.cfg"
check "haproxy.cfg: nothing sticky" bash -c "! sed 's/#.*//' '$repo/deploy/haproxy/haproxy.cfg' | grep -nE 'cookie|stick|appsession|balance +(source|uri|url_param|hdr|rdp|hash)|prefer-last-server'"
check "nginx.conf" nginx -t -c "$repo/deploy/nginx/nginx.conf" -g "pid $work/nginx.pid;"
check "nginx.conf: nothing sticky" bash -c "! sed 's/#.*//' '$repo/deploy/nginx/nginx.conf' | grep -nE 'ip_hash|sticky|^ *hash '"
check "docker-compose.yml" "${compose[@]}" -f "$repo/docker-compose.yml" config -q
for example in "$repo"/deploy/examples/*/compose.override.yml; do
    example=${example%/*}
    check "${example##*/}/compose.override.yml" env HUBCAST_ACCESS_KEY=key "${compose[@]}" \
        -f "$repo/docker-compose.yml" -f "$example/compose.override.yml" config -q
done
check "prometheus.yml" promtool check config --syntax-only "$repo/deploy/prometheus/prometheus.yml"
check "alerts.yml" promtool check rules "$repo/deploy/prometheus/alerts.yml"
check "alerts.yml: alerts fire when they should" promtool test rules "$repo/tests/deploy/alerts_test.yml"
check "nothing hangs on the name of a scrape job" bash -c "! grep -rnE 'job=' '$repo/deploy/prometheus/alerts.yml' '$repo/deploy/grafana'"

# The dashboard's queries, with Grafana's variables filled in, as rules: promtool parses them.
python3 - "$repo/deploy/grafana/dashboards/hubcast.json" "$work/queries.yml" <<'PY'
import json, sys
with open(sys.argv[1]) as f:
    board = json.load(f)
ids = [p["id"] for p in board["panels"]]
assert len(ids) == len(set(ids)), "two panels with one id"
rules = [
    {"record": f"panel:{p['id']}:{t['refId']}", "expr": t["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")}
    for p in board["panels"] for t in p["targets"]
]
with open(sys.argv[2], "w") as f:
    json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, f)  # JSON is YAML
PY
check "dashboard's queries" promtool check rules "$work/queries.yml"

# Ports are published on loopback alone unless HUBCAST_BIND says otherwise, and every gateway knows its proxy.
compose_defaults() {
    env -u HUBCAST_BIND -u HUBCAST_PORT "${compose[@]}" -f "$repo/docker-compose.yml" --profile observability config >"$work/compose"
    # Every published port, as Compose 1 and 2 print it, is one of loopback.
    local ports='^ +- ([0-9.]+:)?[0-9]+:[0-9]+(/tcp)?$|published:' loopback='^ +- 127\.0\.0\.1:|host_ip: 127\.0\.0\.1'
    grep -E "$ports|host_ip" "$work/compose"
    [ "$(grep -cE "$loopback" "$work/compose")" = "$(grep -cE "$ports" "$work/compose")" ] || return 1
    grep -E 'HUBCAST_SERVER__TRUSTED_PROXIES: .*172\.16\.0\.0/12' "$work/compose"
}
check "docker-compose.yml: loopback alone, proxies trusted" compose_defaults

unit_is_valid() { # warnings (unknown keys) count
    mkdir -p "$work/unit"
    sed 's#/usr/bin/hubcast#/bin/true#' "$repo/deploy/systemd/hubcast.service" >"$work/unit/hubcast.service"
    systemd-analyze verify --man=no "$work/unit/hubcast.service" 2>&1 | tee "$work/unit/warnings"
    [ ! -s "$work/unit/warnings" ]
}
unit_is_confined() { # 10 is a service without any sandbox
    mkdir -p "$work/root/etc/systemd/system"
    cp "$repo/deploy/systemd/hubcast.service" "$work/root/etc/systemd/system/"
    systemd-analyze security --no-pager --offline=true --root="$work/root" --threshold=15 hubcast.service
}
check "systemd unit" unit_is_valid
check "systemd unit: exposure of at most 1.5" unit_is_confined
drain_fits() { # the unit waits longer than a drain may take
    local notice stop
    notice=$(sed -n 's/^notice_seconds = //p' "$repo/deploy/systemd/hubcast.toml")
    stop=$(sed -n 's/^TimeoutStopSec=//p' "$repo/deploy/systemd/hubcast.service")
    [ "$stop" -gt "$((notice + 25))" ]
}
check "systemd unit: stops later than a drain ends" drain_fits

if [ -z "${HUBCAST_BINARY:-}" ]; then
    for HUBCAST_BINARY in "$repo"/target/{debug,release}/hubcast ""; do [ ! -x "$HUBCAST_BINARY" ] || break; done
fi
if [ -n "$HUBCAST_BINARY" ]; then
    check "deploy/systemd/hubcast.toml" env -u HUBCAST_BINARY HUBCAST_ACCESS_KEY=0123456789abcdef0123456789abcdef "$HUBCAST_BINARY" check --config "$repo/deploy/systemd/hubcast.toml"
else
    echo "skipped: deploy/systemd/hubcast.toml (no binary in target/)"
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
