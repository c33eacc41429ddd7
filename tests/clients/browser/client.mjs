// Checks the demo page and the official client in Chromium: `node client.mjs URL`, URL being the hub's.
// Prints `ok NAME` or `FAILED NAME: why` for each check. With NODES=1 in the environment a client whose connection was
// cut has to come back to it; otherwise it may also get a new one.
import { connect, createServer } from "node:net";
import { launch } from "./launch.mjs";

const BOUND = 20_000;
const TRANSPORTS = ["WebSockets", "ServerSentEvents", "LongPolling"];
const PROTOCOLS = ["json", "messagepack"];

const hub = new URL(process.argv[2]);
const oneNode = process.env.NODES === "1";

/** Opens the demo page in a profile of its own and notes everything it complains about. */
async function open(browser, origin, preset) {
  const context = await browser.newContext();
  context.setDefaultTimeout(BOUND);
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    if (["warning", "error"].includes(message.type())) complaints.push(message.text());
  });
  await page.goto(new URL(`/?${new URLSearchParams(preset)}&connect`, origin).href);
  pages.push({ page, complaints });
  return { page, complaints, close: () => context.close() };
}

/** The pages of the present check. */
let pages = [];

/** What the pages show and complain about, for whoever has to find out why a check failed. */
async function seen() {
  const shown = async ({ page, complaints }) => {
    if (page.isClosed()) return "closed";
    const text = await page.evaluate(() => ["#status", "#events"].map((id) => document.querySelector(id)?.innerText));
    return JSON.stringify([...text, complaints]);
  };
  const all = await Promise.all(pages.map((one) => shown(one).catch((error) => error.message)));
  return all.join("\n");
}

async function say(page, text) {
  await page.locator("#message").fill(text);
  await page.locator("#send-form button").click();
}

const sees = (page, text) => page.locator("#messages li", { hasText: text }).first().waitFor();

async function chat(browser, transport, protocol) {
  const room = crypto.randomUUID();
  const ana = await open(browser, hub.origin, { name: "ana", transport, protocol, room });
  const ben = await open(browser, hub.origin, { name: "ben", transport, protocol, room });
  for (const { page } of [ana, ben]) {
    await sees(page, `You joined ${room}.`);
    equal(await page.locator("#fact-transport").textContent(), transport);
    equal(await page.locator("#fact-protocol").textContent(), protocol);
  }
  equal(await ana.page.locator("#fact-userId").textContent(), "ana");
  await say(ana.page, "hello ben ä€😀");
  await sees(ben.page, "ana: hello ben ä€😀");
  await say(ben.page, "hello ana");
  await sees(ana.page, "ben: hello ana");
  await ana.page.locator("#stream-delay").fill("0");
  await ana.page.locator("#stream-form button.primary").click();
  await ana.page.locator("#stream-output", { hasText: "complete: 20 numbers" }).waitFor();
  for (const { complaints, close } of [ana, ben]) {
    equal(complaints, []);
    await close();
  }
}

/** The client refuses this combination itself, and the page says so. */
async function refusal(browser) {
  const { page, close } = await open(browser, hub.origin, { transport: "ServerSentEvents", protocol: "messagepack" });
  await page.locator("#status", { hasText: "does not support Binary" }).waitFor();
  await close();
}

/** Passes bytes on, and cuts connections without a word. */
async function cable() {
  const sockets = new Set();
  const server = createServer((near) => {
    const far = connect(Number(hub.port), hub.hostname);
    for (const [socket, other] of [[near, far], [far, near]]) {
      sockets.add(socket);
      socket.on("error", () => {}); // `close` follows
      socket.on("close", () => {
        sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    cut: () => sockets.forEach((socket) => socket.resetAndDestroy()),
    close: () => server.close(),
  };
}

/** Messages sent around a cut arrive once each and in order, if the client comes back to its connection. */
async function cutConnection(browser) {
  const { origin, cut, close: unplug } = await cable();
  const { page, close } = await open(browser, origin, {});
  await page.locator("#status[data-state=connected]").waitFor();
  const before = await page.evaluate(async () => {
    const connection = new signalR.HubConnectionBuilder()
      .withUrl("/hubs/demo", { transport: signalR.HttpTransportType.WebSockets })
      .withAutomaticReconnect([0, 100, 200, 400, 800, 1600, 3200])
      .withStatefulReconnect()
      .configureLogging(signalR.LogLevel.None)
      .build();
    const state = { connection, received: [], replaced: false };
    state.again = new Promise((resolve) => connection.onreconnected(() => resolve((state.replaced = true))));
    connection.on("GroupMessage", (_group, text) => state.received.push(Number(text)));
    await connection.start();
    state.group = crypto.randomUUID();
    await connection.invoke("JoinGroup", state.group);
    window.checked = state;
    return connection.connectionId;
  });
  // Sending goes on while the connection is cut: some messages are lost on their way in either direction.
  const sending = page.evaluate(async () => {
    const { connection, group } = window.checked;
    const sends = [];
    for (let i = 0; i < 200; i += 1) {
      // The client neither sends nor refuses calls between a resume that failed and the new connection.
      while (connection.state !== signalR.HubConnectionState.Connected) {
        await new Promise((resolve) => requestAnimationFrame(resolve));
      }
      sends.push(connection.invoke("SendToGroup", group, String(i)).catch((error) => error));
      await new Promise((resolve) => requestAnimationFrame(resolve));
    }
    return (await Promise.all(sends)).filter(Boolean).length;
  });
  await page.waitForFunction(() => window.checked.received.length >= 20);
  cut();
  const failures = await sending;
  const { received, replaced, after } = await page.evaluate(async () => {
    const { connection, again, received } = window.checked;
    const echo = () => connection.invoke("Echo", "still here");
    await echo().catch(() => again.then(echo)); // it fails if the connection turns out to be lost for good
    return { received, replaced: window.checked.replaced, after: connection.connectionId };
  });
  if (oneNode) equal({ replaced, failures, after }, { replaced: false, failures: 0, after: before });
  if (!replaced) equal(received, Array.from({ length: 200 }, (_, i) => i));
  await close();
  unplug();
}

function equal(seen, expected) {
  const [a, b] = [seen, expected].map((value) => JSON.stringify(value));
  if (a !== b) throw new Error(`expected ${b}, got ${a}`);
}

function within(promise) {
  const timer = AbortSignal.timeout(2 * BOUND);
  const late = new Promise((_, reject) => timer.addEventListener("abort", () => reject(new Error("took too long"))));
  return Promise.race([promise, late]);
}

const checks = [];
for (const transport of TRANSPORTS) {
  for (const protocol of PROTOCOLS) {
    const impossible = transport === "ServerSentEvents" && protocol === "messagepack";
    const check = impossible ? refusal : (browser) => chat(browser, transport, protocol);
    checks.push([`${impossible ? "refusal" : "chat"} ${transport} ${protocol}`, check]);
  }
}
checks.push(["cut_connection WebSockets json", cutConnection]);

const browser = await launch();
let failed = false;
for (const [name, check] of checks) {
  pages = [];
  try {
    await within(check(browser));
    console.log(`ok ${name}`);
  } catch (error) {
    failed = true;
    console.log(`FAILED ${name}: ${error.message}\n${await seen()}`);
  }
}
await browser.close();
process.exit(failed ? 1 : 0);
