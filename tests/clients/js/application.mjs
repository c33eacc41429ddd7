// An application with a negotiate endpoint of its own, as the SDKs of Azure SignalR give it one: it knows its users, and sends
// their clients on to the hub `chat` of a gateway, with a token that it signs.
//   PORT, HUBCAST_ENDPOINT, HUBCAST_ACCESS_KEY, LIFETIME (of a token, in seconds)
//   POST /chat/negotiate   {"url", "accessToken"}
//   POST /chat/refresh     a newer token for a connection (X-SignalR-Connection-Token), after the gateway took it
// Users show `Authorization: Bearer app-NAME`. Each request is a line on standard output: its path and the user.
import { createHmac } from "node:crypto";
import { createServer } from "node:http";

const { PORT, HUBCAST_ENDPOINT, HUBCAST_ACCESS_KEY, LIFETIME = "3600" } = process.env;
const seconds = () => Math.floor(Date.now() / 1000);

function sign(claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${signed}.${createHmac("sha256", HUBCAST_ACCESS_KEY).update(signed).digest("base64url")}`;
}

function tokenOf(user, end) {
  const role = ["hubcast.join", "hubcast.send"];
  return sign({ aud: `${HUBCAST_ENDPOINT}/client/?hub=chat`, nameid: user, role, exp: end, iat: seconds() });
}

function negotiate(user) {
  return { url: `${HUBCAST_ENDPOINT}/client/?hub=chat`, accessToken: tokenOf(user, seconds() + Number(LIFETIME)) };
}

async function refresh(user, connectionToken) {
  const end = seconds() + 600;
  const url = `${HUBCAST_ENDPOINT}/api/hubs/chat/connections/:refreshAuth?api-version=2026-07-01`;
  const answer = await fetch(url, {
    method: "POST",
    headers: { Authorization: `Bearer ${sign({ aud: url, exp: seconds() + 60 })}`, "Content-Type": "application/json" },
    body: JSON.stringify({ connectionToken, expireTime: new Date(end * 1000).toISOString(), claims: null }),
  });
  if (!answer.ok) return { status: answer.status };
  const { claims } = await answer.json();
  const owner = claims.find(({ type }) => type === "nameid")?.value;
  if (owner !== user) return { status: 403 };
  return { tokenLifetimeSeconds: 600, accessToken: tokenOf(user, end) };
}

createServer(async (request, response) => {
  const user = /^Bearer app-(\w+)$/.exec(request.headers.authorization ?? "")?.[1];
  const path = new URL(request.url, "http://application").pathname;
  console.log(path, user ?? "nobody");
  let answer = { status: 404 };
  if (!user) answer = { status: 401 };
  else if (path === "/chat/negotiate") answer = negotiate(user);
  else if (path === "/chat/refresh") answer = await refresh(user, request.headers["x-signalr-connection-token"]);
  response.writeHead(answer.status ?? 200, { "Content-Type": "application/json" });
  response.end(JSON.stringify(answer));
}).listen(Number(PORT), "127.0.0.1");
