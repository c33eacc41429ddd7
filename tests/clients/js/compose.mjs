// Official clients through a load balancer: every transport and protocol, connections on whatever gateway they land.
// HUBCAST_URL names the load balancer. Prints a line for each combination and ends with 1 when one fails.
import * as signalR from "@microsoft/signalr";
import { MessagePackHubProtocol } from "@microsoft/signalr-protocol-msgpack";

const url = `${process.env.HUBCAST_URL ?? "http://127.0.0.1:8080"}/hubs/demo`;
const { WebSockets, ServerSentEvents, LongPolling } = signalR.HttpTransportType;
const combinations = [
    ["WebSockets", WebSockets, "json"],
    ["WebSockets", WebSockets, "messagepack"],
    ["ServerSentEvents", ServerSentEvents, "json"],
    ["LongPolling", LongPolling, "json"],
    ["LongPolling", LongPolling, "messagepack"],
];

/** Waits for a condition, and says what never came true. */
async function until(what, holds) {
    const end = Date.now() + 30_000;
    while (!holds()) {
        if (Date.now() > end) {
            throw new Error(`never happened: ${what}`);
        }
        await new Promise((resolve) => setTimeout(resolve, 10));
    }
}

function build(transport, protocol) {
    const builder = new signalR.HubConnectionBuilder()
        .withUrl(url, { transport })
        .configureLogging(signalR.LogLevel.Error);
    return (protocol === "messagepack" ? builder.withHubProtocol(new MessagePackHubProtocol()) : builder).build();
}

async function check(name, transport, protocol) {
    const clients = Array.from({ length: 6 }, () => build(transport, protocol));
    const received = clients.map(() => []);
    clients.forEach((client, index) => {
        client.on("GroupMessage", (group, text) => {
            received[index].push(`${group}:${text}`);
        });
    });
    await Promise.all(clients.map((client) => client.start()));
    const who = await Promise.all(clients.map((client) => client.invoke("WhoAmI")));
    if (who.some((answer) => answer.transport !== name || answer.protocol !== protocol)) {
        throw new Error(`not the transport that was asked for: ${JSON.stringify(who[0])}`);
    }
    const group = `${name}-${protocol}-${Math.random()}`;
    await Promise.all(clients.map((client) => client.invoke("JoinGroup", group)));
    await Promise.all(clients.map((client, index) => client.invoke("SendToGroup", group, `from ${index}`)));
    await until("every client has every message", () => received.every((messages) => messages.length === 6));
    const order = JSON.stringify(received[0]);
    if (received.some((messages) => JSON.stringify(messages) !== order)) {
        throw new Error("the clients saw different orders");
    }
    await Promise.all(clients.map((client) => client.stop()));
    return new Set(who.map((answer) => answer.node)).size;
}

let failed = 0;
for (const [name, transport, protocol] of combinations) {
    try {
        const nodes = await check(name, transport, protocol);
        console.log(`ok: ${name} ${protocol}, 6 clients on ${nodes} gateways`);
    } catch (error) {
        failed += 1;
        console.log(`FAILED: ${name} ${protocol}: ${error}`);
    }
}
process.exit(failed === 0 ? 0 : 1);
