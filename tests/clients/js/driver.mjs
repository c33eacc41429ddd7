// Drives official SignalR clients for the tests. One JSON object per line:
//   in   {"id":1,"op":"connect","client":"c1",…}      a command; `operations` below has them all
//   out  {"id":1,"ok":…} or {"id":1,"error":"text"}   its answer
//   out  {"event":"message","client":"c1",…}          what happened meanwhile
// Values that JSON hasn't got travel as {"$bytes":"base64"} and {"$date":"2026-01-02T03:04:05.000Z"}.
// The process ends when its standard input does.
import { createInterface } from "node:readline";
import signalR from "@microsoft/signalr";
import { MessagePackHubProtocol } from "@microsoft/signalr-protocol-msgpack";

const clients = new Map();
const streams = new Map();

const operations = {
  async connect({ client, url, transport, protocol, token, headers, skipNegotiation, reconnect, listen }) {
    const options = { headers: headers ?? {} };
    if (transport) options.transport = signalR.HttpTransportType[transport];
    if (token) options.accessTokenFactory = () => token;
    if (skipNegotiation) options.skipNegotiation = true;
    const builder = new signalR.HubConnectionBuilder().withUrl(url, options).configureLogging(signalR.LogLevel.None);
    if (protocol === "messagepack") builder.withHubProtocol(new MessagePackHubProtocol());
    if (reconnect) builder.withAutomaticReconnect(reconnect);
    const connection = builder.build();
    for (const target of listen ?? []) {
      connection.on(target, (...args) => report({ event: "message", client, target, args: args.map(pack) }));
    }
    connection.onclose((error) => report({ event: "closed", client, error: text(error) }));
    connection.onreconnecting((error) => report({ event: "reconnecting", client, error: text(error) }));
    connection.onreconnected((connectionId) => report({ event: "reconnected", client, connectionId }));
    await connection.start();
    clients.set(client, connection);
    return { connectionId: connection.connectionId };
  },
  async invoke({ client, method, args }) {
    return pack(await connected(client).invoke(method, ...args.map(unpack)));
  },
  async send({ client, method, args }) {
    await connected(client).send(method, ...args.map(unpack));
  },
  async stream({ client, stream, method, args }) {
    const subscription = connected(client).stream(method, ...args.map(unpack)).subscribe({
      next: (item) => report({ event: "item", client, stream, item: pack(item) }),
      complete: () => report({ event: "completed", client, stream }),
      error: (error) => report({ event: "failed", client, stream, error: text(error) }),
    });
    streams.set(stream, subscription);
  },
  async cancel({ stream }) {
    streams.get(stream).dispose();
  },
  async stop({ client }) {
    await connected(client).stop();
  },
  async state({ client }) {
    const connection = connected(client);
    return { state: connection.state, connectionId: connection.connectionId };
  },
};

function connected(client) {
  const connection = clients.get(client);
  if (!connection) throw new Error(`the test has no client '${client}'`);
  return connection;
}

function text(error) {
  return error === undefined || error === null ? null : String(error.message ?? error);
}

function pack(value) {
  if (value instanceof Uint8Array) return { $bytes: Buffer.from(value).toString("base64") };
  if (value instanceof Date) return { $date: value.toISOString() };
  if (Array.isArray(value)) return value.map(pack);
  if (value === undefined) return null;
  if (value !== null && typeof value === "object") return mapValues(value, pack);
  return value;
}

function unpack(value) {
  if (Array.isArray(value)) return value.map(unpack);
  if (value === null || typeof value !== "object") return value;
  if (typeof value.$bytes === "string") return new Uint8Array(Buffer.from(value.$bytes, "base64"));
  if (typeof value.$date === "string") return new Date(value.$date);
  return mapValues(value, unpack);
}

function mapValues(object, change) {
  return Object.fromEntries(Object.entries(object).map(([key, value]) => [key, change(value)]));
}

function report(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

async function serve(line) {
  const { id, op, ...command } = JSON.parse(line);
  try {
    report({ id, ok: (await operations[op](command)) ?? null });
  } catch (error) {
    report({ id, error: text(error) });
  }
}

process.on("unhandledRejection", (error) => process.stderr.write(`unhandled: ${error?.stack ?? error}\n`));
createInterface({ input: process.stdin }).on("line", serve).on("close", () => process.exit(0));
