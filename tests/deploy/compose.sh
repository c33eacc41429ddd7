#!/usr/bin/env bash
# Tests docker-compose.yml, as it is, on a real Docker engine.
#
#   tests/deploy/compose.sh [CLIENT…]
#
# CLIENT… is a command that is run against the cluster, with HUBCAST_URL=http://127.0.0.1:8080; its exit code counts.
# The gateway is target/release/hubcast (or $HUBCAST_BINARY), built first when it isn't there.
#
# The engine is this script's own: dockerd in new network, mount and process namespaces, with its data in a
# temporary directory. So it disturbs nothing on the host (ports, firewall rules, another engine), can reach
# nothing outside, and is gone with this script, however that ends. It needs root. Since no registry can be
# reached from in there, the images that the files name are made here, from this machine's Debian packages.
#
#   COMPOSE=…                 another Compose, e.g. "docker compose"; default: docker-compose, then docker compose
#   HUBCAST_COMPOSE_SOURCE=1  also compile the image from source as `docker compose build` does (makes a toolchain image; many
#                             minutes), then again after a change of a source file, and say how long each took
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
passed=0 failed=0
pass() { passed=$((passed + 1)); echo "ok   $*"; }
fail() { failed=$((failed + 1)); echo "FAIL $*"; }
check() { # description, command…
    local what=$1; shift
    if "$@" >"$HUBCAST_WORK/check.log" 2>&1; then pass "$what"; else fail "$what"; tail -n 20 "$HUBCAST_WORK/check.log" | sed 's/^/     /'; fi
}
die() { echo "$*" >&2; exit 1; }

# ---- outside: packages, binary, namespaces, and the cleaning up ---------------------------------------------

outer() {
    [ "$(id -u)" = 0 ] || die "compose.sh: needs root (an engine of its own, in namespaces of its own)"
    local need=()
    command -v dockerd >/dev/null || need+=(docker.io iptables)
    [ -n "${COMPOSE:-}" ] || command -v docker-compose >/dev/null || docker compose version >/dev/null 2>&1 || need+=(docker-compose)
    command -v redis-server >/dev/null || need+=(redis-server)
    command -v haproxy >/dev/null || need+=(haproxy)
    command -v prometheus >/dev/null || need+=(prometheus)
    command -v curl >/dev/null || need+=(curl)
    command -v ip >/dev/null || need+=(iproute2)
    command -v python3 >/dev/null || need+=(python3)
    [ -e /etc/ssl/certs/ca-certificates.crt ] || need+=(ca-certificates)
    [ -z "${HUBCAST_COMPOSE_SOURCE:-}" ] || command -v debootstrap >/dev/null || need+=(debootstrap)
    if [ ${#need[@]} -gt 0 ]; then
        echo "installing ${need[*]}"
        export DEBIAN_FRONTEND=noninteractive
        { apt-get update -q && RUNLEVEL=1 apt-get install -yq --no-install-recommends "${need[@]}"; } >/tmp/hubcast-apt.$$ 2>&1 \
            || { cat /tmp/hubcast-apt.$$; rm -f /tmp/hubcast-apt.$$; die "compose.sh: apt-get failed"; }
        rm -f /tmp/hubcast-apt.$$
    fi

    HUBCAST_BINARY=${HUBCAST_BINARY:-$repo/target/release/hubcast}
    if [ ! -x "$HUBCAST_BINARY" ]; then
        (cd "$repo" && cargo build --release --locked -p hubcast)
    fi

    collector

    HUBCAST_WORK=$(mktemp -d "${TMPDIR:-/tmp}/hubcast-compose.XXXXXX")
    HUBCAST_CGROUP=hubcast-compose-$$
    export HUBCAST_BINARY HUBCAST_WORK HUBCAST_CGROUP
    local inner=
    # The namespaces' first process takes every other with it; the rest is files.
    cleanup() {
        if [ -n "$inner" ]; then kill -KILL "$inner" 2>/dev/null || true; wait "$inner" 2>/dev/null || true; fi
        find /sys/fs/cgroup -depth -type d -path "*/$HUBCAST_CGROUP*" -exec rmdir {} + 2>/dev/null || true
        # dockerd's own containers leave nothing mounted here: the mounts were in the namespace
        rm -rf --one-file-system "$HUBCAST_WORK"
    }
    trap cleanup EXIT
    trap 'exit 130' INT TERM HUP
    if [ -n "${HUBCAST_COMPOSE_SOURCE:-}" ]; then # what needs the network: Debian with a C compiler, and the crates
        debootstrap --variant=minbase --include=gcc,libc6-dev,make "$(. /etc/os-release && echo "$VERSION_CODENAME")" \
            "$HUBCAST_WORK/debian" >"$HUBCAST_WORK/debootstrap.log" || { tail "$HUBCAST_WORK/debootstrap.log"; die "compose.sh: debootstrap failed"; }
        (cd "$repo" && cargo vendor --locked --quiet "$HUBCAST_WORK/vendor" >/dev/null)
    fi
    # --pdeathsig: also where this process is killed outright (then only the directory stays)
    setpriv --pdeathsig KILL \
        unshare --net --mount --pid --fork --kill-child=KILL --mount-proc --propagation private \
        env HUBCAST_COMPOSE_INNER=1 bash "${BASH_SOURCE[0]}" "$@" &
    inner=$!
    local rc=0
    wait "$inner" || rc=$?
    inner=
    exit "$rc"
}

# The OpenTelemetry collector, of the version that the compose file names, compiled with the components that its
# configuration names. HUBCAST_COLLECTOR: the binary; empty where no Go can compile it.
collector() {
    local version
    version=$(named otel/opentelemetry-collector-contrib); version=${version##*:}
    export HUBCAST_COLLECTOR=$repo/target/deploy-tools/otelcol-$version
    local go
    for go in go /usr/local/go/bin/go ''; do command -v "$go" >/dev/null && break; done
    if [ -z "$go" ] || ! (cd "$repo/tests/deploy/otel-collector" && CGO_ENABLED=0 "$go" build -trimpath -ldflags=-s -o "$HUBCAST_COLLECTOR" . 2>&1 | tail -n 5; [ "${PIPESTATUS[0]}" = 0 ]); then
        HUBCAST_COLLECTOR=
    fi
}

# ---- inside ------------------------------------------------------------------------------------------------

engine() {
    ip link set lo up
    export DOCKER_HOST=unix://$HUBCAST_WORK/docker.sock
    local driver
    echo '{}' >"$HUBCAST_WORK/daemon.json" # not the host's own configuration
    for driver in overlay2 vfs; do # vfs where the directory is itself on an overlay
        # --ip-masq=false: containers reach each other, and nothing else.
        dockerd --host "$DOCKER_HOST" --data-root "$HUBCAST_WORK/data" --exec-root "$HUBCAST_WORK/exec" \
            --pidfile "$HUBCAST_WORK/dockerd.pid" --storage-driver "$driver" --cgroup-parent "/$HUBCAST_CGROUP" \
            --ip-masq=false --config-file "$HUBCAST_WORK/daemon.json" >"$HUBCAST_WORK/dockerd.log" 2>&1 &
        local pid=$!
        for _ in $(seq 120); do
            if "$docker" info >"$HUBCAST_WORK/info" 2>/dev/null; then
                echo "engine: $(sed -n 's/^ *Server Version: //p' "$HUBCAST_WORK/info"), $driver"
                return
            fi
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.25
        done
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
        echo "dockerd did not start with $driver:"
        grep -E 'level=(error|fatal)|^failed' "$HUBCAST_WORK/dockerd.log" | tail -n 5 || tail -n 5 "$HUBCAST_WORK/dockerd.log"
    done
    die "compose.sh: no Docker engine can run here"
}

# A root file system of nothing but these programs and the libraries they load.
rootfs() { # directory, program…
    local dir=$1 f; shift
    mkdir -p "$dir"/{etc/ssl/certs,tmp,dev,proc,sys,run,var/run,data,usr/local/bin,root}
    chmod 1777 "$dir/tmp" "$dir/data"
    printf 'root:x:0:0::/root:/\nredis:x:999:999::/data:/\nhaproxy:x:99:99::/:/\nnonroot:x:65532:65532::/home/nonroot:/\n' >"$dir/etc/passwd"
    printf 'root:x:0:\nredis:x:999:\nhaproxy:x:99:\nnonroot:x:65532:\n' >"$dir/etc/group"
    echo 'hosts: files dns' >"$dir/etc/nsswitch.conf"
    cp -L /etc/ssl/certs/ca-certificates.crt "$dir/etc/ssl/certs/"
    for f; do
        cp -L "$f" "$dir/usr/local/bin/$(basename "$f")"
        { ldd "$f" 2>/dev/null | grep -o '/[^ )]*' || true; } | while read -r lib; do # a static one has none
            [ -e "$dir$lib" ] || cp -L --parents "$lib" "$dir"
        done
    done
}
import() { # directory, image, change…
    local dir=$1 image=$2 c; shift 2
    local changes=(--change 'ENV PATH=/usr/local/bin:/usr/bin:/bin')
    for c; do changes+=(--change "$c"); done
    tar -C "$dir" -c . | "$docker" import "${changes[@]}" - "$image" >/dev/null
}
named() { sed -n "s|^ *image: \($1:[^ ]*\).*|\1|p" "$repo/docker-compose.yml"; }
arg() { sed -n "s/^ARG $1=//p" "$repo/deploy/Dockerfile"; }

images() {
    rootfs "$HUBCAST_WORK/fs/redis" "$(command -v redis-server)" "$(command -v redis-cli)"
    import "$HUBCAST_WORK/fs/redis" "$(named redis)" 'WORKDIR /data' 'CMD ["redis-server"]'
    rootfs "$HUBCAST_WORK/fs/haproxy" "$(command -v haproxy)"
    # User and master-worker mode are those of the official image.
    import "$HUBCAST_WORK/fs/haproxy" "$(named haproxy)" 'USER haproxy' \
        'CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]'
    rootfs "$HUBCAST_WORK/fs/prometheus" "$(command -v prometheus)"
    install -d -o 65534 -g 65534 "$HUBCAST_WORK/fs/prometheus/prometheus"
    import "$HUBCAST_WORK/fs/prometheus" "$(named prom/prometheus)" 'USER 65534' 'ENTRYPOINT ["/usr/local/bin/prometheus"]'
    if [ -n "$HUBCAST_COLLECTOR" ]; then
        # User and place of the binary are those of the official image.
        rootfs "$HUBCAST_WORK/fs/collector"
        cp "$HUBCAST_COLLECTOR" "$HUBCAST_WORK/fs/collector/otelcol-contrib"
        import "$HUBCAST_WORK/fs/collector" "$(named otel/opentelemetry-collector-contrib)" 'USER 10001' 'ENTRYPOINT ["/otelcol-contrib"]'
    fi
    # Every library that the gateway may need is in here (libgcc_s, libstdc++, libm, libc); no shell.
    rootfs "$HUBCAST_WORK/fs/runtime" "$HUBCAST_BINARY" /bin/true
    local lib
    for lib in libc.so.6 libm.so.6 libgcc_s.so.1 libresolv.so.2; do
        lib=$(ldconfig -p | sed -n "s|^\s*$lib .* => ||p" | head -n 1)
        [ -z "$lib" ] || [ -e "$HUBCAST_WORK/fs/runtime$lib" ] || cp -L --parents "$lib" "$HUBCAST_WORK/fs/runtime"
    done
    rm "$HUBCAST_WORK"/fs/runtime/usr/local/bin/*
    import "$HUBCAST_WORK/fs/runtime" "$(arg RUNTIME_IMAGE)" 'USER 65532'
}

# A build context with the binary where the Dockerfile's `prebuilt` looks for it.
context() {
    local c=$HUBCAST_WORK/context
    mkdir -p "$c/target/release" "$c/deploy"
    cp "$repo/deploy/Dockerfile" "$c/deploy/"
    cp "$repo/.dockerignore" "$repo/LICENSE" "$c/"
    cp "$HUBCAST_BINARY" "$c/target/release/hubcast"
    chmod 755 "$c/target/release/hubcast"
    echo "$c"
}

# A replacement for rust:…: Debian with a C compiler, this machine's Rust, and the crates, since there is no network.
toolchain() {
    local fs=$HUBCAST_WORK/debian sysroot
    sysroot=$(cd "$repo" && rustc --print sysroot)
    mkdir -p "$fs/usr/local/cargo"
    cp -a "$sysroot"/{bin,lib} "$fs/usr/local/"
    mv "$HUBCAST_WORK/vendor" "$fs/usr/local/cargo/vendor"
    printf '[source.crates-io]\nreplace-with = "vendored"\n[source.vendored]\ndirectory = "/usr/local/cargo/vendor"\n' >"$fs/usr/local/cargo/config.toml"
    import "$fs" "$(arg RUST_IMAGE)" 'ENV CARGO_HOME=/usr/local/cargo'
    rm -rf "$fs"
}

# Builds the clone as `docker compose build` does; prints the time, and that dependencies are a layer of their own.
from_source() {
    local since=$SECONDS profile
    profile=$(sed -n 's/.*HUBCAST_BUILD_PROFILE:-\([a-z]*\)}.*/\1/p' "$repo/docker-compose.yml")
    "$docker" build -f "$HUBCAST_WORK/clone/deploy/Dockerfile" --build-arg "PROFILE=$profile" -t hubcast:local "$HUBCAST_WORK/clone"
    echo "image: profile $profile, $((SECONDS - since)) s" >>"$HUBCAST_WORK/times"
}

compose() { (cd "$repo" && $COMPOSE --project-name hubcast "$@"); }
url=http://127.0.0.1:8080
status() { curl -s -o /dev/null -m 5 -w '%{http_code}' "$url$1" || true; }
eventually() { # seconds, command…
    local end=$((SECONDS + $1)); shift
    until "$@"; do [ $SECONDS -lt $end ] || return 1; sleep 0.5; done
}
gateways() { compose ps -q gateway; }
healthy() { # number of gateways
    local ids n=0 id
    ids=$(gateways)
    for id in $ids; do
        [ "$("$docker" inspect -f '{{.State.Health.Status}}' "$id")" != healthy ] || n=$((n + 1))
    done
    [ "$n" = "$1" ]
}
# Prints how many servers answered the last N requests, by HAProxy's own log.
served() { # n
    local i since
    since=$(date +%s)
    sleep 1
    for i in $(seq "$1"); do curl -s -o /dev/null -m 5 "$url/healthz?i=$i"; done
    sleep 0.5
    "$docker" logs --since "$((since + 1))" "$(compose ps -q haproxy)" 2>&1 | grep -o 'gateways/gateway[0-9]* GET /healthz 200' | sort -u | wc -l
}
spread() { local n; n=$(served 40); echo "answered by $n, expected $1"; [ "$n" = "$1" ]; }
# Sends one request after another, on kept and on new connections, until the file appears; counts failed requests.
traffic() {
    python3 - "$HUBCAST_WORK/stop" <<'PY'
import http.client, os, sys, time
sent = bad = 0
kept = None
while not os.path.exists(sys.argv[1]):
    for fresh in (True, False):
        try:
            if fresh or kept is None:
                c = http.client.HTTPConnection("127.0.0.1", 8080, timeout=10)
                if not fresh:
                    kept = c
            else:
                c = kept
            c.request("GET", "/healthz")
            r = c.getresponse()
            r.read()
            ok = r.status == 200
        except OSError as e:
            ok, r = False, e
            kept = None if not fresh else kept
        except http.client.HTTPException as e:
            ok, r = False, e
            kept = None if not fresh else kept
        sent += 1
        if not ok:
            bad += 1
            print("failed:", getattr(r, "status", r))
        if fresh:
            c.close()
    time.sleep(0.01)
print(f"{sent} requests, {bad} failed")
sys.exit(1 if bad or not sent else 0)
PY
}
undisturbed() { # description, command…: the command must lose no request
    local what=$1 pid; shift
    rm -f "$HUBCAST_WORK/stop"
    traffic >"$HUBCAST_WORK/traffic.log" 2>&1 &
    pid=$!
    local rc=0
    "$@" >"$HUBCAST_WORK/undisturbed.log" 2>&1 || rc=$?
    touch "$HUBCAST_WORK/stop"
    if wait "$pid" && [ "$rc" = 0 ]; then
        pass "$what ($(tail -n 1 "$HUBCAST_WORK/traffic.log"))"
    else
        fail "$what (command: $rc; $(tail -n 1 "$HUBCAST_WORK/traffic.log"))"
        tail -n 10 "$HUBCAST_WORK/undisturbed.log" | sed 's/^/     /'
        tail -n 5 "$HUBCAST_WORK/traffic.log" | sed 's/^/     /'
    fi
}
scaled() { # number
    compose up -d --no-build --scale gateway="$1" && eventually 60 healthy "$1" && sleep 4
}
stopped() { # container: a drain that ends by itself, in time
    "$docker" stop "$1" && [ "$("$docker" inspect -f '{{.State.ExitCode}}' "$1")" = 0 ]
}
hardened() {
    local id bad=1 got # no container at all is no pass
    [ -z "$(compose ps -q)" ] || bad=0
    for id in $(compose ps -q); do
        got=$("$docker" inspect -f '{{.Name}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{.HostConfig.Privileged}}' "$id")
        echo "$got"
        [[ $got == *' true [ALL] [no-new-privileges:true] false' ]] || bad=1
    done
    return $bad
}
nonroot() {
    local id uid bad=1
    [ -z "$(compose ps -q)" ] || bad=0
    for id in $(compose ps -q); do
        # without the container's own tools: the owner of its first process
        uid=$(awk '/^Uid:/ { print $2 }' "/proc/$("$docker" inspect -f '{{.State.Pid}}' "$id")/status")
        echo "$("$docker" inspect -f '{{.Name}}' "$id") runs as $uid"
        [ "$uid" != 0 ] || bad=1
    done
    return $bad
}
only_haproxy_published() {
    local id bad=1 name ports
    [ -z "$(compose ps -q)" ] || bad=0
    for id in $(compose ps -q); do
        name=$("$docker" inspect -f '{{index .Config.Labels "com.docker.compose.service"}}' "$id")
        ports=$("$docker" inspect -f '{{range $p, $b := .NetworkSettings.Ports}}{{range $b}}{{.HostIp}}:{{.HostPort}} {{end}}{{end}}' "$id")
        echo "$name: $ports"
        case $name in haproxy) [ "$ports" = '127.0.0.1:8080 ' ] || bad=1 ;; *) [ -z "$ports" ] || bad=1 ;; esac
    done
    return $bad
}
# Gateways and Redis have a memory limit, and a gateway's clients fit into it: 48 KiB each at least.
memory_limited() {
    local id name limit clients bad=1
    [ -z "$(compose ps -q)" ] || bad=0
    for id in $(compose ps -q gateway) $(compose ps -q redis); do
        name=$("$docker" inspect -f '{{index .Config.Labels "com.docker.compose.service"}}' "$id")
        limit=$("$docker" inspect -f '{{.HostConfig.Memory}}' "$id")
        clients=$("$docker" inspect -f '{{range .Config.Env}}{{println .}}{{end}}' "$id" | sed -n 's/^HUBCAST_LIMITS__CONNECTIONS=//p')
        echo "$name: $limit bytes, ${clients:-no} clients"
        [ "$limit" -gt 0 ] || bad=1
        [ "$name" != gateway ] || [ "$((limit / ${clients:-1000000000}))" -ge 49152 ] || bad=1
    done
    return $bad
}
# Prometheus sees every gateway, takes every alert, and has data for every panel of the dashboard.
observed() { # number of gateways
    python3 - "$1" "$repo/deploy/grafana/dashboards/hubcast.json" <<'PY'
import json, sys, urllib.parse, urllib.request

def ask(path, **query):
    with urllib.request.urlopen(f"http://127.0.0.1:9090/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=5) as r:
        return json.load(r)["data"]

def value(query):
    return [float(r["value"][1]) for r in ask("query", query=query)["result"]]

wrong = []
if value('sum(up{job="hubcast"})') != [float(sys.argv[1])]:
    wrong.append(f"gateways up: {value('sum(up{job=%r})' % 'hubcast')}, expected {sys.argv[1]}")
if value('up{job="haproxy"}') != [1.0]:
    wrong.append("haproxy is not up")
rules = [r for g in ask("rules")["groups"] for r in g["rules"]]
wrong += [f"alert {r['name']}: {r['health']} {r.get('lastError', '')}" for r in rules if r["health"] != "ok"]
if not rules:
    wrong.append("no alerts")
with open(sys.argv[2]) as f:
    board = json.load(f)
panels = 0
for panel in board["panels"]:
    for target in panel["targets"]:
        panels += 1
        if not value(target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")):
            wrong.append(f"{panel['title']}: no data for {target['expr']}")
print(*wrong, f"{len(rules)} alerts, {panels} queries", sep="\n")
sys.exit(1 if wrong else 0)
PY
}
# A client's message makes a trace, and the collector writes a line for each batch of spans.
traced() {
    local hub=$url/hubs/demo id
    id=$(curl -sf -m 5 -X POST "$hub/negotiate?negotiateVersion=1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["connectionToken"])')
    hub="$hub?id=$id"
    curl -sf -m 5 "$hub" && printf '{"protocol":"json","version":1}\x1e' | curl -sf -m 5 --data-binary @- "$hub" \
        && printf '{"type":1,"target":"SendMessage","arguments":["someone","traced"]}\x1e' | curl -sf -m 5 --data-binary @- "$hub"
    curl -sf -m 5 -X DELETE "$hub"
    "$docker" logs "$(compose ps -q otel-collector)" 2>&1 | grep -E 'Traces.*"spans": [1-9]'
}
nothing_sticky() {
    curl -si -m 5 "$url/healthz" | tee "$HUBCAST_WORK/headers"
    grep -q '^HTTP/1.1 200' "$HUBCAST_WORK/headers" && ! grep -qi '^set-cookie' "$HUBCAST_WORK/headers"
}

inner() {
    # the classic client where there are two: it builds without plug-ins
    docker=/usr/bin/docker
    [ -x "$docker" ] || docker=docker
    if [ -z "${COMPOSE:-}" ]; then
        if command -v docker-compose >/dev/null; then COMPOSE="docker-compose"; else COMPOSE="$docker compose"; fi
    fi
    trap '[ $? = 0 ] || { diagnose; echo "$passed passed, $((failed ? failed : 1)) failed"; }' EXIT
    engine
    images
    local c
    c=$(context)
    for builder in 0 1; do
        export DOCKER_BUILDKIT=$builder
        check "image: prebuilt, $([ $builder = 1 ] && echo BuildKit || echo classic builder)" \
            "$docker" build -f "$c/deploy/Dockerfile" --target prebuilt -t hubcast:local "$c"
    done
    if [ -n "${HUBCAST_COMPOSE_SOURCE:-}" ]; then
        toolchain
        # A clone: what git has, with a source file to change.
        git clone -q "$repo" "$HUBCAST_WORK/clone"
        for builder in 1 0; do
            export DOCKER_BUILDKIT=$builder
            check "image: from source, $([ $builder = 1 ] && echo BuildKit || echo classic builder)" from_source
            echo "// changed for builder $builder" >>"$HUBCAST_WORK/clone/gateway/src/lib.rs"
            check "image: after a change of a source file" from_source
        done
    fi
    [ ! -e "$HUBCAST_WORK/times" ] || cat "$HUBCAST_WORK/times"
    echo "image size: $("$docker" image inspect -f '{{.Size}}' hubcast:local) bytes; compose: $($COMPOSE version --short 2>/dev/null)"
    export HUBCAST_PORT=8080 HUBCAST_TELEMETRY__OTLP_ENDPOINT=http://otel-collector:4318

    check "compose: configuration is valid" compose config -q
    check "compose: up" compose up -d --no-build
    [ "$failed" = 0 ] || exit 1 # nothing that follows would mean anything
    check "three healthy gateways" eventually 60 healthy 3
    if eventually 30 test_ready; then pass "readiness through the load balancer"; else fail "readiness through the load balancer: $(status /readyz)"; fi
    check "every container: read-only, no capabilities, no new privileges" hardened
    check "no container runs as root" nonroot
    check "only the load balancer is published, on loopback" only_haproxy_published
    check "gateways and Redis have memory limits that fit" memory_limited
    sleep 3 # the balancer's view of all three
    check "40 requests reach all three gateways" spread 3
    check "no cookie is set" nothing_sticky
    if [ "$(status /metrics)" = 404 ]; then pass "metrics are not published"; else fail "metrics are published"; fi

    undisturbed "scaling from 3 to 5 loses no request" scaled 5
    check "40 requests reach all five gateways" spread 5
    if [ $# -gt 0 ]; then
        local rc=0
        echo "---- client: $*"
        HUBCAST_URL=$url "$@" || rc=$?
        echo "----"
        if [ $rc = 0 ]; then pass "client"; else fail "client (exit code $rc)"; fi
    fi
    # Of the observability profile, the part that Debian has as a package.
    check "observability: Prometheus starts" compose --profile observability up -d --no-build prometheus
    check "observability: all gateways, alerts and panels have data" eventually 60 observed 5
    if [ -n "$HUBCAST_COLLECTOR" ]; then
        check "observability: the collector starts" compose --profile observability up -d --no-build otel-collector
        check "observability: the collector has traces of a client's message" eventually 30 traced
    else
        echo "collector skipped: no Go that compiles it"
    fi
    undisturbed "a gateway that is stopped drains, exits 0, and loses no request" stopped "$(gateways | tail -n 1)"
    undisturbed "scaling from 5 to 2 loses no request" scaled 2
    check "40 requests reach both gateways" spread 2
    "$docker" kill "$(gateways | tail -n 1)" >/dev/null
    if eventually 10 test_ready; then pass "ready after a gateway was killed"; else fail "not ready after a gateway was killed"; fi
    local redis
    redis=$(compose ps -q redis)
    "$docker" stop "$redis" >/dev/null
    if eventually 30 test_unready; then pass "not ready without Redis"; else fail "still ready without Redis: $(status /readyz)"; fi
    "$docker" start "$redis" >/dev/null
    if eventually 30 test_ready; then pass "ready again with Redis"; else fail "not ready with Redis back: $(status /readyz)"; fi

    [ "$failed" = 0 ] || diagnose
    check "compose: down" compose --profile observability down --volumes --timeout 40
    check "nothing is left" test -z "$("$docker" ps -aq)"
    kill "$(cat "$HUBCAST_WORK/dockerd.pid")"
    for _ in $(seq 100); do [ -e "$HUBCAST_WORK/dockerd.pid" ] || break; sleep 0.1; done
    echo "$passed passed, $failed failed"
    trap - EXIT
    [ "$failed" = 0 ]
}
test_ready() { [ "$(status /readyz)" = 200 ]; }
test_unready() { [ "$(status /readyz)" = 503 ]; }
diagnose() {
    echo "---- containers and their last lines"
    "$docker" ps -a 2>/dev/null || true
    compose logs --tail 15 2>/dev/null || true
    echo "----"
}

if [ -n "${HUBCAST_COMPOSE_INNER:-}" ]; then inner "$@"; else outer "$@"; fi
