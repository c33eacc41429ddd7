"""Checks a demo hub with the library signalrcore: `signalrcore_client.py URL`.

The library speaks every transport, JSON and MessagePack, and negotiates version 0. It works with threads.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from checks import Checks
from checks import Skipped
from checks import equal
from signalrcore.hub.handlers import StreamHandler
from signalrcore.hub_connection_builder import HubConnectionBuilder
from signalrcore.messages.stream_invocation_message import StreamInvocationMessage
from signalrcore.subject import Subject
from signalrcore.types import HttpTransportType
from signalrcore.types import HubProtocolEncoding

BOUND_SECONDS = 20

Carriage = tuple[HttpTransportType, HubProtocolEncoding]


class Client:
    """The library's client with blocking results."""

    def __init__(self, url: str, carriage: Carriage, reconnecting: bool = False) -> None:
        transport, protocol = carriage
        builder = HubConnectionBuilder().with_url(url, options={"transport": transport}).with_hub_protocol(protocol)
        builder.configure_logging(logging.CRITICAL + 1)  # what goes wrong is told by the checks
        if reconnecting:
            builder.with_automatic_reconnect({"type": "raw", "reconnect_interval": 0, "max_attempts": 3})
        self.hub = builder.build()
        self.group_messages: queue.Queue[list[Any]] = queue.Queue()
        self._events: queue.Queue[str] = queue.Queue()
        self._failures: queue.Queue[Any] = queue.Queue()
        self.hub.on("GroupMessage", self.group_messages.put)
        self.hub.on_open(lambda: self._events.put("open"))
        self.hub.on_close(lambda: self._events.put("close"))
        self.hub.on_reconnect(lambda: self._events.put("reconnect"))
        self.hub.on_error(self._failures.put)

    def happens(self, event: str) -> None:
        """Waits for an event of the connection; none other may come before it."""
        equal(self._events.get(timeout=BOUND_SECONDS), event)

    def invoke(self, method: str, *args: Any) -> Any:
        completed: queue.Queue[Any] = queue.Queue()
        self.hub.invoke(method, list(args), on_invocation=completed.put)
        return completed.get(timeout=BOUND_SECONDS).result

    def failure(self, method: str, *args: Any) -> str:
        invocation = self.hub.invoke(method, list(args))
        completion = self._failures.get(timeout=BOUND_SECONDS)
        equal(completion.invocation_id, invocation.invocation_id)
        return completion.error

    def items(self, method: str, *args: Any) -> list[Any]:
        """Like the library's `stream`, which subscribes only when the first items may have come already."""
        items: list[Any] = []
        ended: queue.Queue[Any] = queue.Queue()
        handler = StreamHandler(method, str(uuid.uuid4()))
        handler.subscribe({"next": items.append, "complete": ended.put, "error": ended.put})
        self.hub.stream_handlers[handler.invocation_id].append(handler)
        self.hub.transport.send(StreamInvocationMessage(handler.invocation_id, method, list(args)))
        equal(ended.get(timeout=BOUND_SECONDS).error, None)
        return items


@contextmanager
def connected(url: str, carriage: Carriage, **options: Any) -> Iterator[Client]:
    client = Client(url, carriage, **options)
    client.hub.start()
    client.happens("open")
    try:
        yield client
    finally:
        # On a socket `stop` waits for the reading thread, which it doesn't wake: that lasts until the server says
        # something. The end of the process closes those connections.
        if carriage[0] is HttpTransportType.long_polling:
            client.hub.stop()


def invoke(url: str, carriage: Carriage) -> None:
    with connected(url, carriage) as client:
        for value in ("ä€😀", 7, -1.5, True, [1, "2", {"three": None}]):
            equal(client.invoke("Echo", value), value)
        equal(client.invoke("WhoAmI")["transport"], carriage[0].value)


def hub_error(url: str, carriage: Carriage) -> None:
    with connected(url, carriage) as client:
        text = "An unexpected error occurred invoking 'Throw' on the server. HubException: told you"
        equal(client.failure("Throw", "told you"), text)


def group_message(url: str, carriage: Carriage) -> None:
    group = str(uuid.uuid4())
    with connected(url, carriage) as one, connected(url, carriage) as other:
        one.invoke("JoinGroup", group)
        other.invoke("SendToGroup", group, "hello")
        equal(one.group_messages.get(timeout=BOUND_SECONDS), [group, "hello"])


def stream_down(url: str, carriage: Carriage) -> None:
    if carriage[0] is HttpTransportType.long_polling:
        raise Skipped("the library takes one message out of each poll's answer and leaves the others for later polls")
    with connected(url, carriage) as client:
        equal(client.items("Counter", 100, 0), list(range(100)))


def stream_up(url: str, carriage: Carriage) -> None:
    """The library's upload has no invocation id, so that no result comes; that nothing breaks is all there is to see."""
    if carriage[1] is HubProtocolEncoding.binary:
        raise Skipped("the library leaves out the place of the invocation id, so that its message isn't a valid one")
    with connected(url, carriage) as client:
        subject = Subject()
        client.hub.invoke("Sum", subject)
        for item in (1, 2.5, 3):
            subject.next(item)
        subject.complete()
        equal(client.invoke("Echo", "unharmed"), "unharmed")


def reconnect(url: str, carriage: Carriage) -> None:
    with connected(url, carriage, reconnecting=True) as client:
        before = client.invoke("WhoAmI")["connectionId"]
        client.hub.invoke("Abort", [])
        client.happens("reconnect")
        equal(client.invoke("WhoAmI")["connectionId"] != before, True)


CARRIAGES = {
    "websockets json": (HttpTransportType.web_sockets, HubProtocolEncoding.text),
    "websockets messagepack": (HttpTransportType.web_sockets, HubProtocolEncoding.binary),
    "events json": (HttpTransportType.server_sent_events, HubProtocolEncoding.text),
    "polling json": (HttpTransportType.long_polling, HubProtocolEncoding.text),
}

CHECKS = (invoke, hub_error, group_message, stream_down, stream_up, reconnect)


def main(url: str) -> int:
    checks = Checks()
    for carriage_name, carriage in CARRIAGES.items():
        for check in CHECKS:
            name = f"{check.__name__} {carriage_name}"
            try:
                check(url, carriage)
                checks.passed(name)
            except Exception as error:  # whatever it is, the next check may still run
                checks.ended(name, error)
    return checks.exit_code


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    os._exit(code)  # the library's threads may still wait for something
