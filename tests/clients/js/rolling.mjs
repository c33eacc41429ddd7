// Official clients with stateful and automatic reconnect that talk to each other while somebody restarts the nodes.
//
//   node rolling.mjs HUB_URL CLIENTS
//
// Prints `ready` when every client hears every other one. When its standard input ends, the clients stop talking, and a
// line of JSON says what came of it.
import * as signalR from "@microsoft/signalr";
import { MessagePackHubProtocol } from "@microsoft/signalr-protocol-msgpack";

const [url, count] = [process.argv[2], Number(process.argv[3])];
const ROOM = "room";
const PAUSE_MS = 50;
const BOUND_MS = 30_000;
// Often and for long, but not at once: a client that has to start anew is counted anyway.
const RECONNECT = [0, ...Array(150).fill(200)];

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits for a condition; `false` when it doesn't come about in time. */
async function within(holds) {
    const end = Date.now() + BOUND_MS;
    while (!holds()) {
        if (Date.now() > end) return false;
        await sleep(10);
    }
    return true;
}

class Client {
    constructor(index) {
        this.index = index;
        this.session = 1;
        this.isJoined = false;
        this.reconnecting = 0;
        this.closed = 0;
        this.errors = [];
        this.accepted = [];
        /** For each sender, what came from it: `{ number, session }`. */
        this.received = Array.from({ length: count }, () => []);
        this.wrongEchoes = 0;
        const builder = new signalR.HubConnectionBuilder()
            .withUrl(url, { transport: signalR.HttpTransportType.WebSockets })
            .withStatefulReconnect()
            .withAutomaticReconnect(RECONNECT)
            .configureLogging(signalR.LogLevel.None);
        if (index % 2 === 1) builder.withHubProtocol(new MessagePackHubProtocol());
        this.connection = builder.build();
        this.connection.on("GroupMessage", (_, text) => this.hear(text));
        this.connection.onreconnecting(() => {
            this.reconnecting++;
            this.isJoined = false;
        });
        this.connection.onreconnected(() => {
            this.session++;
            return this.join();
        });
        this.connection.onclose(() => this.closed++);
    }

    hear(text) {
        const [sender, number] = text.split(":").map(Number);
        this.received[sender].push({ number, session: this.session });
    }

    async join() {
        await this.call(async () => {
            await this.connection.invoke("JoinGroup", ROOM);
            this.isJoined = true;
        });
    }

    async start() {
        await this.connection.start();
        await this.join();
    }

    /** One call after the other: to itself, and to all. */
    async talk(goesOn) {
        for (let number = 1; goesOn(); number++) {
            await sleep(PAUSE_MS * (0.5 + Math.random()));
            await this.call(async () => {
                const echo = await this.connection.invoke("Echo", number);
                if (echo !== number) this.wrongEchoes++;
            });
            await this.call(async () => {
                await this.connection.invoke("SendToGroup", ROOM, `${this.index}:${number}`);
                this.accepted.push(number);
            });
        }
    }

    async call(invocation) {
        // A stateful client keeps what it is asked for while it starts anew, and neither sends nor fails it.
        await within(() => this.connection.state === "Connected");
        try {
            await invocation();
        } catch (error) {
            this.errors.push(error.message);
        }
    }

    heardAll(sender) {
        const last = sender.accepted.at(-1);
        return this.received[sender.index].some(({ number }) => number === last);
    }
}

/** What one client got from another: each accepted number once and in order. Others may come once, at any time. */
function judge(arrivals, accepted) {
    const result = { duplicated: 0, reordered: 0, missing: 0, excused: 0 };
    const promised = new Set(accepted);
    const seen = new Map();
    let newest = 0;
    for (const { number, session } of arrivals) {
        if (seen.has(number)) {
            result.duplicated++;
            continue;
        }
        seen.set(number, session);
        if (!promised.has(number)) continue;
        if (number < newest) result.reordered++;
        newest = Math.max(newest, number);
    }
    let [before, gap] = [1, 0];
    for (const number of accepted) {
        if (!seen.has(number)) {
            gap++;
            continue;
        }
        // Between two sessions there is nobody who was promised anything.
        result[seen.get(number) === before ? "missing" : "excused"] += gap;
        [before, gap] = [seen.get(number), 0];
    }
    result.missing += gap;
    return result;
}

function report(clients) {
    const sum = (value) => clients.reduce((total, client) => total + value(client), 0);
    const result = {
        clients: clients.length,
        accepted: sum((client) => client.accepted.length),
        deliveries: sum((client) => client.received.flat().length),
        duplicated: 0,
        reordered: 0,
        missing: 0,
        excused: 0,
        wrongEchoes: sum((client) => client.wrongEchoes),
        errors: sum((client) => client.errors.length),
        reconnecting: sum((client) => client.reconnecting),
        closed: sum((client) => client.closed),
        texts: [...new Set(clients.flatMap((client) => client.errors))],
    };
    for (const receiver of clients) {
        for (const sender of clients) {
            const judged = judge(receiver.received[sender.index], sender.accepted);
            for (const [key, value] of Object.entries(judged)) result[key] += value;
        }
    }
    return result;
}

const clients = Array.from({ length: count }, (_, index) => new Client(index));
await Promise.all(clients.map((client) => client.start()));
let goesOn = true;
const talking = clients.map((client) => client.talk(() => goesOn));
const allHear = () => clients.every((receiver) => receiver.received.every((arrivals) => arrivals.length > 0));
if (!(await within(allHear))) throw new Error("the clients don't hear each other");
console.log("ready");

await new Promise((resolve) => process.stdin.on("end", resolve).resume());
// Whoever had to start anew gets some more: what is missing after the last number can be told from what is late.
await within(() => clients.every((client) => client.isJoined));
const marks = clients.map((client) => client.accepted.length + 2);
await within(() => clients.every((client, index) => client.accepted.length >= marks[index]));
goesOn = false;
await Promise.all(talking);
await within(() => clients.every((receiver) => clients.every((sender) => receiver.heardAll(sender))));
console.log(JSON.stringify(report(clients)));
process.exit(0);
