"""The official Python client of Azure Web PubSub: `webpubsub_client.py CONFIG`.

The configuration is JSON, with the members of `../js/webpubsub.mjs` and the same scripts, input and output:
{"url": "ws://127.0.0.1:PORT/client/hubs/chat?access_token=…", "protocol": "reliable", "script": "basic"}

The client calls every handler on a thread of its own, so what the lines of `traffic` say may be out of order: their
`sequenceId` tells the right one.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import sys
import threading
import time
import traceback
from typing import Any
from typing import Callable

from azure.core.pipeline.policies import RetryMode
from azure.messaging.webpubsubclient import WebPubSubClient
from azure.messaging.webpubsubclient.models import CallbackType
from azure.messaging.webpubsubclient.models import OpenClientError
from azure.messaging.webpubsubclient.models import SendMessageError
from azure.messaging.webpubsubclient.models import WebPubSubDataType
from azure.messaging.webpubsubclient.models import WebPubSubProtocolType
from checks import equal

BOUND_SECONDS = 20
# The client numbers its own requests from 1.
FIRST_ACK_ID = 1_000_000

_output = threading.Lock()


def build(config: dict[str, Any], *, ack_timeout: float, **options: Any) -> WebPubSubClient:
    reliable = config["protocol"] != "json"
    return WebPubSubClient(
        config["url"],
        protocol_type=WebPubSubProtocolType.JSON_RELIABLE if reliable else WebPubSubProtocolType.JSON,
        # A retry of this client has another `ackId` and none of the options. Where we retry, we do it ourselves.
        message_retry_total=0,
        # It misses an answer that comes before it begins to wait, and finds it only when it has waited for so long.
        ack_timeout=ack_timeout,
        start_timeout=5,
        **options,
    )


def basic(config: dict[str, Any]) -> dict[str, Any]:
    client = build(config, ack_timeout=3)
    messages: queue.Queue[Any] = queue.Queue()
    connected: queue.Queue[Any] = queue.Queue()
    stopped: queue.Queue[Any] = queue.Queue()
    client.subscribe(CallbackType.GROUP_MESSAGE, messages.put)
    client.subscribe(CallbackType.CONNECTED, connected.put)
    client.subscribe(CallbackType.STOPPED, lambda: stopped.put(True))

    client.open()
    opened = until(connected, "the connected event")
    if not opened.connection_id:
        raise AssertionError(f"connection id {opened.connection_id!r}")

    reliable = config["protocol"] != "json"
    sequence_id = 0

    def receives(group: str, data_type: str, data: Any) -> None:
        nonlocal sequence_id
        message = until(messages, f"a {data_type} message of group {group}")
        equal((message.group, message.data_type, plain(message.data)), (group, data_type, plain(data)))
        equal(message.from_user_id, opened.user_id)
        if not reliable:
            equal(message.sequence_id, None)
            return
        if not message.sequence_id > sequence_id:
            raise AssertionError(f"sequence {sequence_id} then {message.sequence_id}")
        sequence_id = message.sequence_id

    client.join_group("a")
    client.join_group("b")
    samples: list[tuple[WebPubSubDataType, Any]] = [
        (WebPubSubDataType.JSON, {"text": "Grüße 🦀", "list": [1, 2.5, None, True], "nested": {"empty": {}}}),
        (WebPubSubDataType.JSON, "only a string"),
        (WebPubSubDataType.TEXT, "Zeile 1\nZeile 2 🦀"),
        (WebPubSubDataType.BINARY, memoryview(bytes([0, 1, 127, 128, 254, 255]))),
    ]
    for data_type, data in samples:
        client.send_to_group("a", data, data_type)
        receives("a", data_type.value, data)

    # The same request once more isn't carried out again, and the client takes that for a success.
    client.send_to_group("a", "once", WebPubSubDataType.TEXT, ack_id=FIRST_ACK_ID)
    receives("a", "text", "once")
    client.send_to_group("a", "once", WebPubSubDataType.TEXT, ack_id=FIRST_ACK_ID)

    client.send_to_group("a", "not for me", WebPubSubDataType.TEXT, no_echo=True)
    client.send_to_group("a", "nobody answers", WebPubSubDataType.TEXT, ack=False)
    receives("a", "text", "nobody answers")

    event = outcome(lambda: client.send_event("greeting", {"hello": "there"}, WebPubSubDataType.JSON))
    equal(event, config.get("event", "ok"))

    client.leave_group("a")
    client.send_to_group("a", "not for me either", WebPubSubDataType.TEXT)
    client.send_to_group("b", "the last one", WebPubSubDataType.TEXT)
    receives("b", "text", "the last one")

    forbidden = outcome(lambda: client.join_group("forbidden"))
    equal(forbidden, "Forbidden")

    client.close()
    until(stopped, "the stopped event")
    equal(messages.qsize(), 0)
    return {
        "connectionId": opened.connection_id,
        "userId": opened.user_id,
        "event": event,
        "forbidden": forbidden,
        "sequenceId": sequence_id,
    }


def traffic(config: dict[str, Any]) -> dict[str, Any]:
    # By default it gives up for good after three new connections that fail.
    client = build(
        config,
        # An ack that is only late costs no more than the same request once more.
        ack_timeout=0.5,
        reconnect_retry_total=300,
        reconnect_retry_mode=RetryMode.Fixed,
        reconnect_retry_backoff_factor=0.5,
    )
    opened = threading.Event()

    def on_connected(args: Any) -> None:
        report({"event": "connected", "connectionId": args.connection_id, "userId": args.user_id})
        opened.set()

    client.subscribe(CallbackType.CONNECTED, on_connected)
    client.subscribe(
        CallbackType.GROUP_MESSAGE,
        lambda args: report(
            {"got": plain(args.data), "sequenceId": args.sequence_id, "fromUserId": args.from_user_id}
        ),
    )
    client.subscribe(
        CallbackType.DISCONNECTED,
        lambda args: report({"event": "disconnected", "connectionId": args.connection_id, "message": args.message}),
    )
    client.subscribe(
        CallbackType.REJOIN_GROUP_FAILED,
        lambda args: report({"event": "rejoin-group-failed", "group": args.group, "error": text(args.error)}),
    )
    client.subscribe(CallbackType.STOPPED, lambda: report({"event": "stopped"}))

    begin(client)
    client.join_group(config["group"])
    if not opened.wait(BOUND_SECONDS):
        raise TimeoutError("the connected event doesn't come")
    report({"ready": True})

    n = 0
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "stop":
            break
        if command != "send":
            raise ValueError(f"the driver has no command {command!r}")
        group, count = arguments[0], int(arguments[1])
        for _ in range(count):
            n += 1
            send(client, group, {"n": n}, FIRST_ACK_ID + n)
        report({"sent": count})
    client.close()
    return {"sent": n}


def begin(client: WebPubSubClient) -> None:
    """What the client itself tries only once: a balancer may just have no node that is ready."""
    end = time.monotonic() + BOUND_SECONDS
    while True:
        try:
            return client.open()
        except OpenClientError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def send(client: WebPubSubClient, group: str, data: dict[str, Any], ack_id: int) -> None:
    """Repeats a request under the same id, for longer than a recovery may last."""
    end = time.monotonic() + 60
    while True:
        try:
            return client.send_to_group(group, data, WebPubSubDataType.JSON, ack_id=ack_id)
        except Exception as error:
            refused = isinstance(error, SendMessageError) and getattr(error.error_detail, "name", "") == "Forbidden"
            if refused or time.monotonic() > end:
                raise
            time.sleep(0.2)


def outcome(sending: Callable[[], None]) -> str:
    """ "ok", or the name of the error that the server gave."""
    try:
        sending()
    except SendMessageError as error:
        if error.error_detail is None or not error.error_detail.name:
            raise
        return str(error.error_detail.name)
    return "ok"


def until(items: queue.Queue[Any], what: str) -> Any:
    try:
        return items.get(timeout=BOUND_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"{what} doesn't come") from None


def plain(data: Any) -> Any:
    return {"$bytes": base64.b64encode(bytes(data)).decode()} if isinstance(data, memoryview) else data


def text(error: Exception) -> str:
    detail = getattr(error, "error_detail", None)
    return f"{type(error).__name__}: {error}" + (f" ({detail.name}: {detail.message})" if detail else "")


def report(line: dict[str, Any]) -> None:
    with _output:
        print(json.dumps(line), flush=True)


def main() -> int:
    config = json.loads(sys.argv[1])
    try:
        details = {"basic": basic, "traffic": traffic}[config["script"]](config)
    except Exception as error:
        report({"ok": False, "error": text(error), "stack": traceback.format_exc()})
        return 1
    report({"ok": True, **details})
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # A thread of the client that is still asleep must not keep the process.
    os._exit(code)
