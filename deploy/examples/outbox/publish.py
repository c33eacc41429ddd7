"""Publishes an application's outbox: each entry of a Redis stream reaches the clients once, whenever this is killed.

    pip install -r requirements.txt
    OUTBOX_REDIS=redis://localhost:6379 HUBCAST_ENDPOINT=http://localhost:8080 HUBCAST_ACCESS_KEY=... python publish.py

The application adds entries in the transaction that changes its data; `message` is one of those of REST's `:batch`:

    XADD outbox * message '{"to":{"user":"ann"},"target":"Paid","arguments":[42]}'
"""
import base64, hashlib, hmac, http.client, json, os, time, urllib.error, urllib.request

import redis

STREAM, GROUP, CONSUMER = "outbox", "hubcast", "publisher"
URL = f"{os.environ['HUBCAST_ENDPOINT'].rstrip('/')}/api/hubs/{os.environ.get('HUB', 'chat')}/:batch?api-version=2022-06-01"
ACCESS_KEY = os.environ["HUBCAST_ACCESS_KEY"].split(",")[0].encode()


def token() -> str:
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    claims = {"aud": URL, "exp": int(time.time()) + 300}
    signed = ".".join(part(json.dumps(value).encode()) for value in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{signed}.{part(hmac.new(ACCESS_KEY, signed.encode(), hashlib.sha256).digest())}"


def publish(entry: str, message: str) -> str | None:
    """Returns once the message is sent; or why it can never be."""
    while True:
        headers = {
            "Authorization": f"Bearer {token()}",
            "Content-Type": "application/json",
            "Idempotency-Key": f"{STREAM}-{entry}",  # the same on every try: a second one sends nothing
        }
        request = urllib.request.Request(URL, f'{{"messages":[{message}]}}'.encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=10):
                return None
        except urllib.error.HTTPError as error:
            why = f"{error.code} {error.read().decode(errors='replace')}"
            if error.code in (400, 413, 422):
                return why
        except (OSError, http.client.HTTPException) as error:
            why = str(error)
        print(f"{entry} waits: {why}", flush=True)
        time.sleep(1)


def work_off(outbox: redis.Redis) -> None:
    try:
        outbox.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    except redis.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise
    left = True  # at first what was read before, and not acknowledged
    while True:
        answer = outbox.xreadgroup(GROUP, CONSUMER, {STREAM: "0" if left else ">"}, count=100, block=5000)
        entries = answer[0][1] if answer else []
        left = left and bool(entries)
        for entry, fields in entries:
            why = publish(entry, (fields or {}).get("message", ""))
            with outbox.pipeline(transaction=True) as done:
                if why:
                    print(f"{entry} is refused: {why}", flush=True)
                    done.xadd(f"{STREAM}:refused", {**(fields or {}), "entry": entry, "why": why})
                done.xack(STREAM, GROUP, entry).xdel(STREAM, entry).execute()


with redis.Redis.from_url(os.environ["OUTBOX_REDIS"], decode_responses=True, socket_timeout=10) as connection:
    while True:
        try:
            work_off(connection)
        except redis.RedisError as error:
            print(f"Redis: {error}", flush=True)
            time.sleep(1)
