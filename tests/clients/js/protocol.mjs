// The protocol beyond calls and messages, with the official client: streams in both directions, client results between
// connections of any nodes, and stateful reconnect under cut connections. Prints a line for each check.
//
//   node protocol.mjs HUB_URL
import net from "node:net";

import * as signalR from "@microsoft/signalr";
import { MessagePackHubProtocol } from "@microsoft/signalr-protocol-msgpack";

const url = new URL(process.argv[2]);
const { WebSockets, ServerSentEvents, LongPolling } = signalR.HttpTransportType;
const combinations = [
    ["WebSockets", WebSockets, "json"],
    ["WebSockets", WebSockets, "messagepack"],
    ["ServerSentEvents", ServerSentEvents, "json"],
    ["LongPolling", LongPolling, "json"],
    ["LongPolling", LongPolling, "messagepack"],
];
const CUTS = 50;

function client(transport, protocol, change = (builder) => builder, at = url) {
    const builder = new signalR.HubConnectionBuilder()
        .withUrl(at.href, { transport })
        .configureLogging(signalR.LogLevel.None);
    const withProtocol = protocol === "messagepack" ? builder.withHubProtocol(new MessagePackHubProtocol()) : builder;
    return change(withProtocol).build();
}

/** Waits for a condition, and says what never came true. */
async function until(what, holds) {
    const end = Date.now() + 60_000;
    while (!holds()) {
        if (Date.now() > end) {
            throw new Error(`never happened: ${what}`);
        }
        await new Promise((resolve) => setTimeout(resolve, 2));
    }
}

function same(actual, expected) {
    const [left, right] = [JSON.stringify(actual), JSON.stringify(expected)];
    if (left !== right) {
        throw new Error(`got ${left}, expected ${right}`);
    }
}

async function fails(call, text) {
    try {
        await call;
    } catch (error) {
        if (!error.message.includes(text)) {
            throw new Error(`failed with "${error.message}", expected "${text}"`);
        }
        return;
    }
    throw new Error(`did not fail with "${text}"`);
}

function items(stream) {
    const received = [];
    return new Promise((resolve, reject) => {
        stream.subscribe({ next: (item) => received.push(item), complete: () => resolve(received), error: reject });
    });
}

async function streams(connection) {
    const numbers = new signalR.Subject();
    const sum = connection.invoke("Sum", numbers);
    for (let number = 1; number <= 200; number += 1) {
        numbers.next(number);
    }
    numbers.complete();
    same(await sum, 20_100);

    const values = new signalR.Subject();
    const scaled = items(connection.stream("Scale", values, 2));
    [1, 2.5, -3].forEach((value) => values.next(value));
    values.complete();
    same(await scaled, [2, 5, -6]);

    const failing = new signalR.Subject();
    const failed = connection.invoke("Sum", failing);
    failing.next(1);
    failing.error(new Error("no more"));
    await fails(failed, "An unexpected error occurred invoking 'Sum' on the server. HubException: no more");

    const wrong = new signalR.Subject();
    const refused = connection.invoke("Sum", wrong);
    wrong.next("not a number");
    await fails(refused, "An unexpected error occurred invoking 'Sum' on the server.");

    const counted = [];
    const counter = connection.stream("Counter", 1_000_000, 1);
    const subscription = counter.subscribe({ next: (item) => counted.push(item), complete() {}, error() {} });
    await until("some items", () => counted.length >= 3);
    subscription.dispose();
    same(await connection.invoke("Echo", "still here"), "still here");
}

async function results(one, other) {
    one.on("GetAnswer", () => 42);
    other.on("GetAnswer", async () => ({ answer: [1, "two", null] }));
    same(await one.invoke("AskCaller"), 42);
    const { connectionId } = await other.invoke("WhoAmI");
    same(await one.invoke("AskConnection", connectionId), { answer: [1, "two", null] });
    const many = await Promise.all(Array.from({ length: 20 }, () => one.invoke("AskConnection", connectionId)));
    same(many.length, 20);
    await fails(one.invoke("AskConnection", "nobody"), "Connection 'nobody' does not exist.");
    one.off("GetAnswer");
    await fails(one.invoke("AskCaller"), "Client didn't provide a result.");
    other.off("GetAnswer");
    other.on("GetAnswer", () => {
        throw new Error("I won't tell");
    });
    await fails(one.invoke("AskConnection", connectionId), "I won't tell");
    let left = false;
    other.off("GetAnswer");
    other.on("GetAnswer", () => {
        left = true;
        return new Promise(() => {});
    });
    const unanswered = fails(one.invoke("AskConnection", connectionId), `Connection '${connectionId}' disconnected.`);
    await until("the question has come", () => left);
    await other.stop();
    await unanswered;
}

/** Passes everything on until it is told to cut, and cuts without a goodbye. */
async function cutter() {
    const sockets = new Set();
    const server = net.createServer((near) => {
        const far = net.connect(Number(url.port), url.hostname);
        const end = () => {
            near.destroy();
            far.destroy();
            sockets.delete(near);
        };
        sockets.add(near);
        near.pipe(far).pipe(near);
        [near, far].forEach((socket) => socket.on("close", end).on("error", end));
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    const at = new URL(url);
    at.port = server.address().port;
    return { at, cut: () => sockets.forEach((socket) => socket.resetAndDestroy()), close: () => server.close() };
}

async function stateful(protocol) {
    const way = await cutter();
    const group = `stateful-${protocol}-${Math.random()}`;
    const connection = client(WebSockets, protocol, (builder) => builder.withStatefulReconnect(), way.at);
    const sender = client(WebSockets, "json");
    const received = [];
    let closed;
    connection.on("GroupMessage", (_, text) => {
        received.push(Number(text));
    });
    connection.onclose((error) => {
        closed = String(error);
    });
    await connection.start();
    await sender.start();
    await connection.invoke("JoinGroup", group);
    const { connectionId } = connection;

    let [sent, echoed, over] = [0, 0, false];
    const sending = (async () => {
        for (; !over; sent += 1) {
            await sender.invoke("SendToGroup", group, String(sent));
        }
    })();
    const echoing = (async () => {
        for (; !over; echoed += 1) {
            same(await connection.invoke("Echo", echoed), echoed);
        }
    })();
    for (let cuts = 0; cuts < CUTS; cuts += 1) {
        // The client resumes once and at once: only a connection that has resumed may be cut again.
        const [before, heard] = [echoed, received.length];
        await until("traffic goes on in both directions", () => closed || (echoed > before + 2 && received.length > heard));
        if (closed) {
            throw new Error(`closed after ${cuts} cuts: ${closed}`);
        }
        way.cut();
    }
    over = true;
    await Promise.all([sending, echoing]);
    await until("every message", () => received.length >= sent);
    same(received, Array.from({ length: sent }, (_, index) => index));
    same(connection.connectionId, connectionId);
    await connection.stop();
    await sender.stop();
    way.close();
    return `${CUTS} cuts, ${sent} messages, ${echoed} calls`;
}

/** Ten megabytes in far less time than between two of the client's acknowledgements. */
async function much(protocol) {
    const connection = client(WebSockets, protocol, (builder) => builder.withStatefulReconnect());
    let closed = 0;
    connection.onclose(() => (closed += 1));
    await connection.start();
    const text = "x".repeat(30_000);
    for (let count = 0; count < 350; count += 1) {
        same((await connection.invoke("Echo", text)).length, text.length);
    }
    same(closed, 0);
    await connection.stop();
}

let failed = 0;
async function check(name, work) {
    try {
        const detail = await work();
        console.log(`ok ${name}${detail ? `: ${detail}` : ""}`);
    } catch (error) {
        failed += 1;
        console.log(`FAILED ${name}: ${error.message}`);
    }
}

for (const [name, transport, protocol] of combinations) {
    const [one, other] = [client(transport, protocol), client(transport, protocol)];
    await one.start();
    await other.start();
    await check(`${name} ${protocol} streams`, () => streams(one));
    await check(`${name} ${protocol} client results`, () => results(one, other));
    await one.stop();
}
for (const protocol of ["json", "messagepack"]) {
    await check(`stateful reconnect ${protocol}`, () => stateful(protocol));
    await check(`much for a stateful client ${protocol}`, () => much(protocol));
}
process.exit(failed === 0 ? 0 : 1);
