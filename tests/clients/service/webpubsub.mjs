// Azure's SDK for servers, @azure/web-pubsub, unchanged: every operation of it.
//
//   node webpubsub.mjs '{"connectionString":"Endpoint=http://127.0.0.1:PORT;AccessKey=…;Version=1.0;","hub":"chat","ann":ID,"bob":ID}'
//
// `ann` and `bob` are connections of users of these names, on whatever node. What they get is checked by whoever runs this. It
// prints a line {"step":NAME,"ok":true} for each operation, then {"url":…}, where a client could connect, and ends with
// {"done":true}; at the first failure it prints {"step":NAME,"error":…} and ends with exit code 1.
import assert from "node:assert/strict";
import { WebPubSubServiceClient } from "@azure/web-pubsub";

const { connectionString, hub, ann, bob } = JSON.parse(process.argv[2]);
const service = new WebPubSubServiceClient(connectionString, hub, { allowInsecureConnection: true });
const group = service.group("g/1");
const text = { contentType: "text/plain" };

async function step(name, run) {
  try {
    await run();
    console.log(JSON.stringify({ step: name, ok: true }));
  } catch (error) {
    console.log(JSON.stringify({ step: name, error: String(error.stack ?? error) }));
    process.exit(1);
  }
}

async function is(expected, promise) {
  assert.deepEqual(await promise, expected);
}


/** The users of a group's members, page by page. */
async function users(ofGroup, options) {
  const found = [];
  for await (const page of (await ofGroup.listConnections(options)).byPage()) {
    assert(page.length <= (options?.maxPageSize ?? 200));
    found.push(...page.map((member) => member.userId));
  }
  return found.sort();
}

await step("sendToAll text", () => service.sendToAll("text ü", text));
await step("sendToAll json", () => service.sendToAll({ a: [1, 2.5] }));
await step("sendToAll binary", () => service.sendToAll(Buffer.from([0, 255, 10])));
await step("sendToAll excluded", () => service.sendToAll("not ann", { ...text, excludedConnections: [ann, "x&y"] }));
await step("sendToAll filter", () => service.sendToAll("only ann", { ...text, filter: "userId eq 'ann'" }));
await step("sendToAll ttl", () => service.sendToAll("soon", { ...text, messageTtlSeconds: 60 }));
await step("sendToAll bad filter", () =>
  assert.rejects(service.sendToAll("x", { ...text, filter: "length(userId)" }), (error) => error.statusCode === 400));
await step("addConnection", () => group.addConnection(ann));
await step("addConnection unknown", () => assert.rejects(group.addConnection("nosuch"), (error) => error.statusCode === 404));
await step("groupExists", () => is(true, service.groupExists("g/1")));
await step("groupExists unknown", () => is(false, service.groupExists("nosuch")));
await step("group.sendToAll", () => group.sendToAll("to group", text));
await step("addUser", () => group.addUser("bob"));
await step("group.sendToAll filter", () => group.sendToAll("bob of group", { ...text, filter: "userId ne 'ann'" }));
await step("listConnections", () => is(["ann", "bob"], users(group)));
await step("listConnections pages", () => is(["ann", "bob"], users(group, { maxPageSize: 1 })));
await step("removeUser", () => group.removeUser("bob"));
await step("removeConnection", () => group.removeConnection(ann));
await step("group.sendToAll nobody", () => group.sendToAll("to nobody", text));
await step("sendToUser", () => service.sendToUser("bob", "to bob", text));
await step("sendToUser json filter", () => service.sendToUser("ann", [], { filter: "length(groups) eq 0" }));
await step("sendToConnection", () => service.sendToConnection(ann, "to ann", text));
await step("connectionExists", () => is(true, service.connectionExists(ann)));
await step("connectionExists unknown", () => is(false, service.connectionExists("nosuch")));
await step("userExists", () => is(true, service.userExists("bob")));
await step("userExists unknown", () => is(false, service.userExists("nobody")));
await step("addConnectionsToGroups", () => service.addConnectionsToGroups(["x", "y"], "userId in ('ann','bob')"));
await step("removeConnectionsFromGroups", () => service.removeConnectionsFromGroups(["x"], "userId eq 'bob'"));
await step("group x", () => service.group("x").sendToAll("members of x", text));
await step("removeUserFromAllGroups", () => service.removeUserFromAllGroups("bob"));
await step("removeConnectionFromAllGroups", () => service.removeConnectionFromAllGroups(ann));
await step("group y", () => is(false, service.groupExists("y")));
for (const permission of ["sendToGroup", "joinLeaveGroup"]) {
  const options = { targetName: "p/1" };
  await step(`grantPermission ${permission}`, () => service.grantPermission(ann, permission, options));
  await step(`hasPermission ${permission}`, () => is(true, service.hasPermission(ann, permission, options)));
  await step(`revokePermission ${permission}`, () => service.revokePermission(ann, permission, options));
  await step(`hasPermission ${permission} no more`, () => is(false, service.hasPermission(ann, permission, options)));
}
await step("closeConnection unknown", () => service.closeConnection("nosuch", { reason: "x" }));
await step("group.closeAllConnections", () => service.group("none").closeAllConnections({ reason: "x", excluded: [ann] }));
const access = await service.getClientAccessToken({
  userId: "new", roles: ["webpubsub.sendToGroup.t"], groups: ["t"], expirationTimeInMinutes: 5,
});
console.log(JSON.stringify({ url: access.url }));
await step("closeUserConnections", () => service.closeUserConnections("bob", { reason: "bye bob" }));
await step("closeConnection", () => service.closeConnection(ann, { reason: "bye ann" }));
await step("closeAllConnections", () => service.closeAllConnections({ reason: "bye" }));
console.log(JSON.stringify({ done: true }));
