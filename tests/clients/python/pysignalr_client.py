"""Checks a demo hub with the library pysignalr: `pysignalr_client.py URL`.

The library speaks WebSockets only, JSON and MessagePack, and negotiates version 0.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import uuid
from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

from checks import Checks
from checks import Skipped
from checks import equal
from pysignalr.client import SignalRClient
from pysignalr.messages import CompletionMessage
from pysignalr.messages import InvocationClientStreamMessage
from pysignalr.protocol.abstract import Protocol
from pysignalr.protocol.json import JSONProtocol
from pysignalr.protocol.messagepack import MessagepackProtocol
from websockets.exceptions import InvalidStatus

BOUND_SECONDS = 20


class Ended(Exception):
    """The library has given up; the cause says why."""

    def __str__(self) -> str:
        return repr(self.__cause__)


class Client(SignalRClient):
    """The library's client with awaitable results."""

    def __init__(self, url: str, protocol: Protocol) -> None:
        super().__init__(url, protocol=protocol, retry_count=1)
        self.group_messages: asyncio.Queue[Any] = asyncio.Queue()
        self.opened = asyncio.Semaphore(0)
        self.running: asyncio.Task[None] | None = None
        self._failures: dict[str, str] = {}
        self.on("GroupMessage", self.group_messages.put)
        self.on("GetAnswer", self._answer)
        self.on_open(self._on_open)
        self.on_error(self._on_failure)

    async def invoke(self, method: str, *args: Any) -> Any:
        completed: asyncio.Future[CompletionMessage] = asyncio.get_running_loop().create_future()
        await self.send(method, list(args), on_invocation=_resolve(completed))
        return self._result(await self.until(completed))

    async def items(self, method: str, *args: Any) -> list[Any]:
        items: list[Any] = []
        completed: asyncio.Future[CompletionMessage] = asyncio.get_running_loop().create_future()

        async def on_next(item: Any) -> None:
            items.append(item)

        await self.stream(method, list(args), on_next, _resolve(completed), _resolve(completed))
        self._result(await self.until(completed))
        return items

    async def upload(self, method: str, items: list[Any]) -> Any:
        """Like the library's `client_stream`, whose invocation has no id, so that the hub answers it."""
        completed: asyncio.Future[CompletionMessage] = asyncio.get_running_loop().create_future()
        invocation_id = str(uuid.uuid4())
        self._invocation_handlers[invocation_id] = _resolve(completed)
        async with self.client_stream("Sum") as unanswered:
            for item in items:
                await unanswered.send(item)
        stream = type(unanswered)(self._transport, method)
        invocation = InvocationClientStreamMessage([stream.invocation_id], method, [], invocation_id=invocation_id)
        await self._transport.send(invocation)
        for item in items:
            await stream.send(item)
        await stream.complete()
        return self._result(await self.until(completed))

    async def until(self, awaitable: Awaitable[Any]) -> Any:
        """Waits for something, or raises what ended the client."""
        if self.running is None:
            raise RuntimeError("the client isn't running")
        future = asyncio.ensure_future(awaitable)
        await asyncio.wait({future, self.running}, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            # The library's own exceptions are immutable, and so can't pass through context managers.
            raise Ended from self.running.exception()
        return future.result()

    async def _answer(self, _arguments: Any) -> int:
        return 42

    async def _on_open(self) -> None:
        self.opened.release()

    async def _on_failure(self, message: CompletionMessage) -> None:
        self._failures[message.invocation_id] = message.error or ""

    @staticmethod
    def _result(message: CompletionMessage) -> Any:
        if message.error:
            raise RuntimeError(message.error)
        return message.result


def _resolve(future: asyncio.Future[Any]) -> Callable[[Any], Awaitable[None]]:
    async def resolve(value: Any) -> None:
        if not future.done():
            future.set_result(value)

    return resolve


@asynccontextmanager
async def connected(url: str, protocol: type[Protocol]) -> AsyncIterator[Client]:
    client = Client(url, protocol())
    client.running = asyncio.create_task(client.run())
    try:
        await client.until(client.opened.acquire())
        yield client
    finally:
        client.running.cancel()
        await asyncio.gather(client.running, return_exceptions=True)


async def invoke(url: str, protocol: type[Protocol]) -> None:
    async with connected(url, protocol) as client:
        for value in ("ä€😀", 7, -1.5, True, [1, "2", {"three": None}]):
            equal(await client.invoke("Echo", value), value)
        me = await client.invoke("WhoAmI")
        equal((me["transport"], me["protocol"]), ("WebSockets", protocol().protocol))


async def hub_error(url: str, protocol: type[Protocol]) -> None:
    async with connected(url, protocol) as client:
        try:
            await client.invoke("Throw", "told you")
        except RuntimeError as error:
            equal("HubException: told you" in str(error), True)
        else:
            raise AssertionError("the invocation succeeded")


async def group_message(url: str, protocol: type[Protocol]) -> None:
    group = str(uuid.uuid4())
    async with connected(url, protocol) as one, connected(url, protocol) as other:
        await one.invoke("JoinGroup", group)
        await other.invoke("SendToGroup", group, "hello")
        equal(await one.group_messages.get(), [group, "hello"])
        equal(other.group_messages.empty(), True)


async def stream_down(url: str, protocol: type[Protocol]) -> None:
    async with connected(url, protocol) as client:
        equal(await client.items("Counter", 100, 0), list(range(100)))


async def stream_up(url: str, protocol: type[Protocol]) -> None:
    async with connected(url, protocol) as client:
        equal(await client.upload("Sum", [1, 2.5, 3]), 6.5)


async def client_result(url: str, protocol: type[Protocol]) -> None:
    async with connected(url, protocol) as client:
        equal(await client.invoke("AskCaller"), 42)


async def reconnect(url: str, protocol: type[Protocol]) -> None:
    async with connected(url, protocol) as client:
        before = (await client.invoke("WhoAmI"))["connectionId"]
        await client.send("Abort", [])
        try:
            await client.until(client.opened.acquire())
        except Ended as ended:
            # It opens the old address again, with the old connection's id and without a new negotiation.
            reason = ended.__cause__ and ended.__cause__.__cause__
            if not isinstance(reason, InvalidStatus) or reason.response.status_code != 404:
                raise
            raise Skipped("the library comes back with the id of the connection that has ended") from None
        equal((await client.invoke("WhoAmI"))["connectionId"] != before, True)


CHECKS = (invoke, hub_error, group_message, stream_down, stream_up, client_result, reconnect)


async def main(url: str) -> int:
    logging.disable()  # what goes wrong is told by the checks
    checks = Checks()
    for protocol in (JSONProtocol, MessagepackProtocol):
        for check in CHECKS:
            name = f"{check.__name__} websockets {protocol().protocol}"
            try:
                await asyncio.wait_for(check(url, protocol), BOUND_SECONDS)
                checks.passed(name)
            except Exception as error:  # whatever it is, the next check may still run
                checks.ended(name, error)
    return checks.exit_code


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1])))
