"use strict";

// A client of /hubs/demo. Everything that comes from somebody else is shown through textContent.
// The address may preset the form and connect: /?name=ana&transport=LongPolling&protocol=json&room=lobby&connect

const $ = (id) => document.getElementById(id);
const HUB = "/hubs/demo";
const EVERYONE = "everyone";
const DIRECT = "direct";
const MAX_MESSAGES = 500;
const MAX_EVENTS = 200;

/** What is shown in one list of messages. */
const newRoom = (title, placeholder) => ({ title, placeholder, messages: [], unread: 0 });

const rooms = new Map([
  [EVERYONE, newRoom("Everyone", "Message to everyone")],
  [DIRECT, newRoom("Direct", "Message")],
]);
const groupKey = (group) => `group:${group}`;
const groupOf = (key) => key.startsWith("group:") ? key.slice("group:".length) : null;

let connection = null;
let me = null;
let room = EVERYONE;
let stream = null;

// ---- what is seen ----------------------------------------------------------------------------------------

function element(name, className, ...children) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...children); // strings become text nodes
  return node;
}

function clock() {
  const now = new Date();
  const time = element("time", "", now.toLocaleTimeString());
  time.dateTime = now.toISOString();
  return time;
}

function append(list, item, limit) {
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  list.append(item);
  while (list.children.length > limit) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function logEvent(text, isError = false) {
  append($("events"), element("li", isError ? "error" : "", clock(), text), MAX_EVENTS);
}

function showStatus(state, detail = "") {
  const status = $("status");
  status.dataset.state = state;
  status.textContent = state[0].toUpperCase() + state.slice(1) + (detail && `: ${detail}`);
  const connected = state === "connected";
  for (const area of document.querySelectorAll(".needs-connection")) {
    for (const control of area.querySelectorAll("input, select, button")) control.disabled = !connected;
  }
  $("stream-cancel").disabled = stream === null;
  $("connect").textContent = connection === null ? "Connect" : "Disconnect";
  for (const id of ["name", "transport", "protocol"]) $(id).disabled = connection !== null;
}

function showFacts() {
  for (const name of ["connectionId", "userId", "node", "transport", "protocol"]) {
    $(`fact-${name}`).textContent = me?.[name] || "–";
  }
}

function showRooms() {
  const buttons = [...rooms].map(([key, { title, unread }]) => {
    const button = element("button", "", title);
    button.type = "button";
    button.setAttribute("aria-current", String(key === room));
    if (unread > 0) {
      const badge = element("span", "unread", String(unread));
      badge.append(element("span", "hidden", " unread"));
      button.append(badge);
    }
    button.addEventListener("click", () => openRoom(key));
    return button;
  });
  $("rooms").replaceChildren(...buttons);
}

function openRoom(key) {
  room = key;
  const { messages, placeholder } = rooms.get(key);
  rooms.get(key).unread = 0;
  $("messages").replaceChildren(...messages);
  $("messages").scrollTop = $("messages").scrollHeight;
  $("message").placeholder = placeholder;
  $("direct-to").hidden = key !== DIRECT;
  $("direct-target").required = key === DIRECT;
  $("leave").hidden = $("others-only").hidden = groupOf(key) === null;
  showRooms();
}

function showMessage(key, from, text, own = false) {
  const target = rooms.get(key);
  if (!target) return; // left meanwhile
  const item = element("li", from === null ? "note" : own ? "own" : "", clock());
  if (from) item.append(element("b", "", from));
  item.append(text);
  target.messages.push(item);
  target.messages.splice(0, target.messages.length - MAX_MESSAGES);
  if (key === room) {
    append($("messages"), item, MAX_MESSAGES);
  } else {
    target.unread += 1;
    showRooms();
  }
}

// ---- the connection --------------------------------------------------------------------------------------

const myName = () => $("name").value.trim();

async function fetchToken(user) {
  const response = await fetch(`/demo/token?user=${encodeURIComponent(user)}`, { method: "POST" });
  if (!response.ok) throw new Error(`no token for ${user}: status ${response.status}`);
  return (await response.json()).token;
}

/** Tries for ever: at once, then after 1, 2, 4, 8 and always 10 seconds, less up to a quarter so that clients
 *  which lost the same node do not all come back in the same moment. */
const retryPolicy = {
  nextRetryDelayInMilliseconds: ({ previousRetryCount: n }) =>
    n === 0 ? 0 : Math.min(1000 * 2 ** (n - 1), 10_000) * (1 - Math.random() / 4),
};

function build() {
  const options = {};
  const user = myName();
  const transport = $("transport").value;
  if (user) options.accessTokenFactory = () => fetchToken(user);
  if (transport) options.transport = signalR.HttpTransportType[transport];
  const builder = new signalR.HubConnectionBuilder()
    .withUrl(HUB, options)
    .withAutomaticReconnect(retryPolicy)
    .withStatefulReconnect()
    .configureLogging(signalR.LogLevel.Warning);
  if ($("protocol").value === "messagepack") {
    builder.withHubProtocol(new signalR.protocols.msgpack.MessagePackHubProtocol());
  }
  return builder.build();
}

function listen(to) {
  to.on("ReceiveMessage", (user, text) => showMessage(EVERYONE, user, text, user === senderName()));
  to.on("GroupMessage", (group, text) => {
    showMessage(groupKey(group), "", text, text.startsWith(`${senderName()}: `));
  });
  to.on("UserMessage", (text) => showMessage(DIRECT, "to you", text));
  to.on("DirectMessage", (text) => showMessage(DIRECT, "to this connection", text));
  to.on("GetAnswer", () => 42);
  to.onreconnecting((error) => {
    logEvent(`connection lost: ${error?.message ?? "no reason given"}`, true);
    showStatus("reconnecting");
  });
  to.onreconnected(async () => {
    logEvent("connected again");
    try {
      await settle(to);
    } catch (error) {
      logEvent(`after reconnecting: ${error.message}`, true);
    }
  });
  to.onclose((error) => {
    logEvent(error ? `closed: ${error.message}` : "closed", Boolean(error));
    if (connection === to) forget(error?.message);
  });
}

/** A new connection is in no group: joins the rooms that are open here, and shows who and where we are. */
async function settle(on) {
  const groups = [...rooms.keys()].map(groupOf).filter((group) => group !== null);
  await Promise.all(groups.map((group) => on.invoke("JoinGroup", group)));
  if (groups.length > 0) logEvent(`joined ${groups.join(", ")}`);
  me = await on.invoke("WhoAmI");
  if (connection !== on) return;
  showFacts();
  showStatus("connected");
  logEvent(`connected to node ${me.node} as ${me.connectionId}`);
}

function forget(reason) {
  connection = null;
  me = null;
  endStream("");
  showFacts();
  showStatus("disconnected", reason);
}

async function connect() {
  const starting = build();
  connection = starting;
  listen(starting);
  showStatus("connecting");
  try {
    await starting.start();
    await settle(starting);
  } catch (error) {
    if (connection !== starting) return; // disconnected meanwhile, on purpose
    logEvent(`can't connect: ${error.message}`, true);
    forget(error.message);
    await starting.stop();
  }
}

async function disconnect() {
  const stopping = connection;
  forget();
  await stopping.stop();
}

/** Invokes a hub method; an error goes to the list of events. Returns whether it went well. */
async function invoke(method, ...args) {
  try {
    const result = await connection.invoke(method, ...args);
    return { ok: true, result };
  } catch (error) {
    logEvent(`${method}: ${error.message}`, true);
    return { ok: false };
  }
}

// ---- chat ------------------------------------------------------------------------------------------------

const senderName = () => myName() || "anonymous";

async function join(group) {
  const key = groupKey(group);
  if (!rooms.has(key)) {
    if (!(await invoke("JoinGroup", group)).ok) return;
    rooms.set(key, newRoom(`# ${group}`, `Message to ${group}`));
    showMessage(key, null, `You joined ${group}.`);
    logEvent(`joined ${group}`);
  }
  openRoom(key);
}

async function leave() {
  const group = groupOf(room);
  if (group === null || !(await invoke("LeaveGroup", group)).ok) return;
  rooms.delete(groupKey(group));
  logEvent(`left ${group}`);
  openRoom(EVERYONE);
}

/** Sends to the open room. Groups and direct messages carry no sender, so the text begins with it. */
async function send(text) {
  const group = groupOf(room);
  const signed = `${senderName()}: ${text}`;
  if (room === EVERYONE) return invoke("SendMessage", senderName(), text);
  if (group !== null) {
    return invoke($("others").checked ? "SendToOthersInGroup" : "SendToGroup", group, signed);
  }
  const [kind, target] = [$("direct-kind").value, $("direct-target").value.trim()];
  const sent = await invoke(kind === "user" ? "SendToUser" : "SendToConnection", target, signed);
  if (sent.ok) showMessage(DIRECT, `to ${target}`, text, true);
  return sent;
}

// ---- stream ----------------------------------------------------------------------------------------------

function startStream(count, delay) {
  stream?.dispose();
  let received = 0;
  $("stream-progress").max = count;
  $("stream-progress").value = 0;
  $("stream-output").textContent = "waiting for the first number";
  const mine = connection.stream("Counter", count, delay).subscribe({
    next: (number) => {
      received += 1;
      $("stream-progress").value = received;
      $("stream-output").textContent = `${number} (${received} of ${count})`;
    },
    complete: () => stream === mine && endStream(`complete: ${received} numbers`),
    error: (error) => stream === mine && endStream(`ended after ${received} numbers: ${error.message}`),
  });
  stream = mine;
  $("stream-cancel").disabled = false;
  logEvent(`stream of ${count} started`);
}

function endStream(text) {
  stream = null;
  $("stream-cancel").disabled = true;
  if (text) {
    $("stream-output").textContent = text;
    logEvent(`stream ${text}`);
  }
}

// ---- what the buttons do ---------------------------------------------------------------------------------

const tries = {
  async echo() {
    const start = performance.now();
    const text = `hello from ${senderName()}`;
    const { ok, result } = await invoke("Echo", text);
    if (ok) logEvent(`Echo: ${JSON.stringify(result)} after ${(performance.now() - start).toFixed(1)} ms`);
  },
  throw: () => invoke("Throw", "the demo wanted this error"),
  abort: () => invoke("Abort"),
};

function onSubmit(id, action) {
  $(id).addEventListener("submit", (event) => {
    event.preventDefault();
    action();
  });
}

onSubmit("connect-form", () => connection === null ? connect() : disconnect());
onSubmit("join-form", () => {
  const group = $("join-room").value.trim();
  $("join-room").value = "";
  if (group) join(group);
});
onSubmit("send-form", async () => {
  const text = $("message").value;
  if (text && (await send(text)).ok) $("message").value = "";
  $("message").focus();
});
onSubmit("stream-form", () => startStream($("stream-count").valueAsNumber, $("stream-delay").valueAsNumber));
$("stream-cancel").addEventListener("click", () => {
  stream?.dispose();
  endStream("cancelled");
});
$("leave").addEventListener("click", leave);
$("direct-kind").addEventListener("change", () => {
  $("direct-target").placeholder = $("direct-kind").value === "user" ? "Name of the user" : "Connection id";
});
for (const button of document.querySelectorAll("[data-try]")) {
  button.addEventListener("click", tries[button.dataset.try]);
}

async function start() {
  openRoom(EVERYONE);
  showFacts();
  showStatus("disconnected");
  const preset = new URLSearchParams(location.search);
  for (const id of ["name", "transport", "protocol"]) {
    if (preset.has(id)) $(id).value = preset.get(id);
  }
  if (!preset.has("connect")) return;
  await connect();
  const group = preset.get("room");
  if (group && connection !== null) await join(group);
}

start();
