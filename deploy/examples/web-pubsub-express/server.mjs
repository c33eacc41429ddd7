// A back end for Web PubSub clients, by Azure's own middleware: decides who may connect, answers events, and is told who came
// and went. Hubcast calls it by HTTP: see README.md.
import express from "express";
import { WebPubSubEventHandler } from "@azure/web-pubsub-express";

const handler = new WebPubSubEventHandler("chat", {
  path: "/events",
  // The host by which clients know the gateway: its server.public_host.
  allowedEndpoints: [process.env.HUBCAST_ENDPOINT ?? "http://localhost:8080"],

  handleConnect(request, response) {
    const user = request.context.userId ?? request.queries.user?.[0];
    if (!user || user === "mallory") return response.fail(401, "who are you?");
    response.setState("calls", 0);
    response.success({ userId: user, roles: ["webpubsub.sendToGroup.hall"], groups: ["hall"] });
  },

  handleUserEvent(request, response) {
    const { userId, eventName, states } = request.context;
    const calls = states.calls + 1; // kept with the connection, on whatever node it is
    response.setState("calls", calls);
    if (eventName === "shout") return response.success(String(request.data).toUpperCase(), "text");
    if (eventName === "count") return response.success(JSON.stringify({ user: userId, calls }), "json");
    response.fail(400, "there are shout and count");
  },

  onConnected: ({ context }) => console.log(`${context.userId} has connected`),
  onDisconnected: ({ context, reason }) => console.log(`${context.userId} has left: ${reason}`),
});

const app = express().disable("x-powered-by");
app.use(handler.getMiddleware());
const server = app.listen(Number(process.env.PORT ?? 3000), () => console.log(`listening on ${server.address().port}`));
