// The official JavaScript client of Azure Web PubSub.
//
//   node webpubsub.mjs '{"url":"ws://127.0.0.1:PORT/client/hubs/chat?access_token=…","protocol":"reliable","script":"basic"}'
//
// `protocol` is "json", "reliable", "protobuf" or "reliable-protobuf". Every line of the output is JSON.
//
// `basic` goes through what the client can do, with the groups "a" and "b" that the token must allow to join and to send
// to, and "forbidden" that it must not. What it expects of an event is `event`: "ok" (the default) or the name of an error.
// The last line is {"ok":true,…} or {"ok":false,"error":…}, and the exit code tells the same.
//
// `traffic` joins `group` and prints {"ready":true}, then {"got":data,"sequenceId":…,"fromUserId":…} for each message of a
// group, and {"event":"connected","connectionId":…}, "disconnected", "stopped" or "rejoin-group-failed" when the client raises
// them: a recovery raises nothing. A line `send GROUP COUNT` of the input sends {"n":1}, {"n":2}, … (a further line goes on
// counting), waits for each ack and prints {"sent":COUNT,"duplicates":…}; `stop` or the end of the input ends it. A line
// `stream GROUP COUNT` opens a stream, writes {"n":1}, … to it and ends it: {"streamed":COUNT}, or {"broken":error} where the
// stream ends with an error.
//
// `streams` joins `group` and prints {"ready":true}, then {"item":data,"number":…} for each fragment of a stream, {"over":true} at
// its end or {"failed":error}; the end of the input ends it.
//
// `states` joins `group` and does the same with the states of groups, of which the client has the messages but no methods: its
// protocol, which is an option of the client's, writes a message with `$state` as one of them, and reports those that come as
// {"states":"groupStateSnapshot","group":…,"items":[…]}. The input has `set GROUP VALUE`, which sets {"value":VALUE}, `clear GROUP`,
// `subscribe GROUP`, `unsubscribe GROUP` and `stop`; each is answered by {"done":COMMAND} once it is acknowledged.
import { createInterface } from "node:readline";
import { WebPubSubClient, WebPubSubJsonProtocol, WebPubSubJsonReliableProtocol } from "@azure/web-pubsub-client";
import { protobufProtocol } from "./webpubsub-protobuf.mjs";

const BOUND_MS = 20_000;
// The client numbers its own requests from 1.
const FIRST_ACK_ID = 1_000_000;

const config = JSON.parse(process.argv[2]);
const scripts = { basic, streams, traffic, states };

/** What came and nobody has asked for yet. */
class Inbox {
  #items = [];
  #waiting = [];

  put(item) {
    const waiting = this.#waiting.shift();
    if (waiting) waiting(item);
    else this.#items.push(item);
  }

  next(what) {
    if (this.#items.length > 0) return Promise.resolve(this.#items.shift());
    return new Promise((resolve, reject) => {
      const waiting = (item) => {
        clearTimeout(timer);
        resolve(item);
      };
      const timer = setTimeout(() => {
        this.#waiting = this.#waiting.filter((other) => other !== waiting);
        reject(new Error(`${what} doesn't come`));
      }, BOUND_MS);
      this.#waiting.push(waiting);
    });
  }

  get size() {
    return this.#items.length;
  }
}

function protocol() {
  const protocols = {
    json: WebPubSubJsonProtocol,
    reliable: WebPubSubJsonReliableProtocol,
    protobuf: () => protobufProtocol(false),
    "reliable-protobuf": () => protobufProtocol(true),
  };
  return protocols[config.protocol]();
}

function build(options) {
  // Its pings come often, so that their answers are seen as well.
  return new WebPubSubClient(config.url, { protocol: protocol(), keepAliveIntervalInMs: 500, ...options });
}

async function basic() {
  // Without retries, that would only hide what went wrong first.
  const client = build({ messageRetryOptions: { maxRetries: 0 } });
  const messages = new Inbox();
  const connected = new Inbox();
  const stopped = new Inbox();
  client.on("group-message", ({ message }) => messages.put(message));
  client.on("connected", (args) => connected.put(args));
  client.on("stopped", () => stopped.put(true));

  await client.start();
  const { connectionId, userId } = await connected.next("the connected event");
  check(typeof connectionId === "string" && connectionId !== "", `connection id ${connectionId}`);

  const reliable = config.protocol.startsWith("reliable");
  let sequenceId = 0;
  const receives = async (group, dataType, data) => {
    const message = await messages.next(`a ${dataType} message of group ${group}`);
    equal({ group: message.group, dataType: message.dataType }, { group, dataType });
    equal(plain(message.data), plain(data));
    // The schema of protobuf has no sender.
    equal(message.fromUserId ?? null, config.protocol.endsWith("protobuf") ? null : (userId ?? null));
    if (reliable) check(message.sequenceId > sequenceId, `sequence ${sequenceId} then ${message.sequenceId}`);
    else equal(message.sequenceId ?? null, null);
    sequenceId = message.sequenceId ?? 0;
  };

  equal((await client.joinGroup("a")).isDuplicated, false);
  await client.joinGroup("b");
  const samples = [
    ["json", { text: "Grüße 🦀", list: [1, 2.5, null, true], nested: { empty: {} } }],
    ["json", "only a string"],
    ["text", "Zeile 1\nZeile 2 🦀"],
    ["binary", new Uint8Array([0, 1, 127, 128, 254, 255]).buffer],
    ["protobuf", new Uint8Array([10, 1, 65, 18, 1, 66]).buffer],
  ];
  for (const [dataType, data] of samples) {
    equal((await client.sendToGroup("a", data, dataType)).isDuplicated, false);
    await receives("a", dataType, data);
  }

  // The same request once more isn't carried out again, and the client takes that for a success.
  const ackId = FIRST_ACK_ID;
  equal((await client.sendToGroup("a", "once", "text", { ackId })).isDuplicated, false);
  equal((await client.sendToGroup("a", "once", "text", { ackId })).isDuplicated, true);
  await receives("a", "text", "once");

  await client.sendToGroup("a", "not for me", "text", { noEcho: true });
  await client.sendToGroup("a", "nobody answers", "text", { fireAndForget: true });
  await receives("a", "text", "nobody answers");

  const event = await outcome(client.sendEvent("greeting", { hello: "there" }, "json"));
  equal(event, config.event ?? "ok");

  if (!config.protocol.endsWith("protobuf")) {
    // The schema of protobuf has neither.
    const { data, dataType } = await client.invokeEvent("JoinGroup", "a", "text");
    equal([data ?? null, dataType ?? null], [null, null]);
    equal(await failure(client.invokeEvent("Nobody", "x", "text")), "InternalServerError");
    const stream = await client.openGroupStream("a");
    await stream.write("in a stream", "text");
    await stream.end();
    await receives("a", "text", "in a stream");
    await receives("a", "text", ""); // the end
    equal(await failure(client.openGroupStream("forbidden")), "Forbidden");
  }

  await client.leaveGroup("a");
  await client.sendToGroup("a", "not for me either", "text");
  await client.sendToGroup("b", "the last one", "text");
  await receives("b", "text", "the last one");

  const forbidden = await outcome(client.joinGroup("forbidden"));
  equal(forbidden, "Forbidden");

  client.stop();
  await stopped.next("the stopped event");
  equal(messages.size, 0);
  return { connectionId, userId: userId ?? null, event, forbidden, sequenceId };
}

async function traffic() {
  // Longer than a recovery may last. With an `ackId` of ours, the client repeats a request under the same one.
  const client = build({ messageRetryOptions: { maxRetries: 300, retryDelayInMs: 200 } });
  client.on("group-message", ({ message }) => {
    report({ got: plain(message.data), sequenceId: message.sequenceId ?? null, fromUserId: message.fromUserId ?? null });
  });
  client.on("connected", ({ connectionId, userId }) => {
    report({ event: "connected", connectionId, userId: userId ?? null });
  });
  client.on("disconnected", ({ connectionId, message }) => {
    report({ event: "disconnected", connectionId: connectionId ?? null, message: message?.message ?? null });
  });
  client.on("rejoin-group-failed", ({ group, error }) => {
    report({ event: "rejoin-group-failed", group, error: text(error) });
  });
  client.on("stopped", () => report({ event: "stopped" }));

  await begin(client);
  await client.joinGroup(config.group);
  report({ ready: true });

  let n = 0;
  for await (const line of createInterface({ input: process.stdin })) {
    const [command, group, count] = line.trim().split(/\s+/);
    if (command === "stop") break;
    if (command === "stream") {
      await publish(client, group, Number(count));
      continue;
    }
    if (command !== "send") throw new Error(`the driver has no command '${command}'`);
    let duplicates = 0;
    for (let sent = 0; sent < Number(count); sent++) {
      n++;
      const { isDuplicated } = await client.sendToGroup(group, { n }, "json", { ackId: FIRST_ACK_ID + n });
      if (isDuplicated) duplicates++;
    }
    report({ sent: Number(count), duplicates });
  }
  client.stop();
  return { sent: n };
}

async function states() {
  const client = build({ protocol: withStates(protocol()), messageRetryOptions: { maxRetries: 300, retryDelayInMs: 200 } });
  client.on("connected", ({ connectionId }) => report({ event: "connected", connectionId }));
  client.on("disconnected", ({ connectionId }) => report({ event: "disconnected", connectionId: connectionId ?? null }));
  await begin(client);
  await client.joinGroup(config.group);
  report({ ready: true });
  let ackId = FIRST_ACK_ID;
  for await (const line of createInterface({ input: process.stdin })) {
    const [command, group, value] = line.trim().split(/\s+/);
    if (command === "stop") break;
    const kinds = { set: "setGroupState", clear: "setGroupState", subscribe: "subscribeGroupState", unsubscribe: "unsubscribeGroupState" };
    if (!kinds[command]) throw new Error(`the driver has no command '${command}'`);
    const state = command === "set" ? { value } : undefined;
    ackId++;
    await client.sendToGroup(group, { $state: { kind: kinds[command], group, state } }, "json", { ackId });
    report({ done: command });
  }
  client.stop();
  return {};
}

async function publish(client, group, count) {
  const stream = await client.openGroupStream(group);
  const ended = new Promise((resolve) => stream.onError((error) => resolve(error)));
  for (let n = 1; n <= count; n++) {
    await stream.write({ n }, "json");
    report({ written: n });
    await new Promise((resolve) => setTimeout(resolve, config.pauseMs ?? 0));
  }
  await stream.end();
  // `end` is done once it is written; whether the server takes it shows in the error.
  const error = await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, config.lastMs ?? 500))]);
  report(error ? { broken: text(error) } : { streamed: count });
}

async function streams() {
  const client = build({ messageRetryOptions: { maxRetries: 300, retryDelayInMs: 200 } });
  client.onGroupStream(
    async (stream) => {
      try {
        for await (const item of stream) report({ item: plain(item.data), number: item.stream.streamSequenceId });
        report({ over: true });
      } catch (error) {
        report({ failed: error });
      }
    },
    { handleFromStart: true },
  );
  client.on("disconnected", () => report({ event: "disconnected" }));
  await begin(client);
  await client.joinGroup(config.group);
  report({ ready: true });
  for await (const line of createInterface({ input: process.stdin })) if (line.trim() === "stop") break;
  client.stop();
  return {};
}

function withStates(inner) {
  return {
    name: inner.name,
    isReliableSubProtocol: inner.isReliableSubProtocol,
    parseMessages(input) {
      const message = inner.parseMessages(input);
      if (message?.kind?.startsWith("groupState")) report({ states: message.kind, group: message.group, items: message.items });
      return message;
    },
    writeMessage(message) {
      const request = message.data?.$state;
      return inner.writeMessage(request ? { ...request, ackId: message.ackId } : message);
    },
  };
}

/** What the client itself tries only once: a balancer may just have no node that is ready. */
async function begin(client) {
  const until = Date.now() + BOUND_MS;
  for (;;) {
    try {
      return await client.start();
    } catch (error) {
      if (Date.now() > until) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

/** "ok", or the name of the error that the server gave. */
async function outcome(sending) {
  try {
    await sending;
    return "ok";
  } catch (error) {
    if (error.name !== "SendMessageError" || !error.errorDetail) throw error;
    return error.errorDetail.name;
  }
}

/** The name of the error with which something fails. */
async function failure(doing) {
  try {
    await doing;
  } catch (error) {
    return error.errorDetail?.name ?? error.name;
  }
  throw new Error("it does not fail");
}

function plain(data) {
  return data instanceof ArrayBuffer ? { $bytes: Buffer.from(data).toString("base64") } : data;
}

function equal(seen, expected) {
  const [a, b] = [JSON.stringify(seen), JSON.stringify(expected)];
  check(a === b, `expected ${b}, got ${a}`);
}

function check(holds, message) {
  if (!holds) throw new Error(message);
}

function text(error) {
  const detail = error?.errorDetail ? ` (${error.errorDetail.name}: ${error.errorDetail.message})` : "";
  return `${error?.message ?? error}${detail}`;
}

function report(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/** The client's timers would keep the process alive. */
function end(line, code) {
  process.stdout.write(`${JSON.stringify(line)}\n`, () => process.exit(code));
}

process.on("uncaughtException", (error) => end({ ok: false, error: text(error), stack: error?.stack ?? null }, 1));
try {
  end({ ok: true, ...(await scripts[config.script]()) }, 0);
} catch (error) {
  end({ ok: false, error: text(error), stack: error?.stack ?? null }, 1);
}
