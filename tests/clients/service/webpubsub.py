"""Azure's SDK for servers, azure-messaging-webpubsubservice, unchanged: every operation of it.

    python webpubsub.py '{"connectionString":"Endpoint=…;AccessKey=…;Version=1.0;","hub":"chat","ann":ID,"bob":ID}'

What it prints is what webpubsub.mjs prints, but for addConnectionsToGroups and removeConnectionsFromGroups, which this SDK
does not have.
"""

import json
import sys
import traceback

from azure.core.exceptions import HttpResponseError
from azure.messaging.webpubsubservice import WebPubSubServiceClient

config = json.loads(sys.argv[1])
ann = config["ann"]
service = WebPubSubServiceClient.from_connection_string(config["connectionString"], hub=config["hub"])
TEXT = {"content_type": "text/plain"}
JSON = {"content_type": "application/json"}
BINARY = {"content_type": "application/octet-stream"}


def step(name, run):
    try:
        run()
    except Exception:
        print(json.dumps({"step": name, "error": traceback.format_exc()}), flush=True)
        sys.exit(1)
    print(json.dumps({"step": name, "ok": True}), flush=True)


def expect(expected, got):
    assert got == expected, f"{got!r} is not {expected!r}"


def refused(status, run):
    try:
        run()
    except HttpResponseError as error:
        expect(status, error.status_code)
    else:
        raise AssertionError("it was not refused")


def users(group, **options):
    return sorted(member.user_id for member in service.list_connections(group=group, **options))


step("sendToAll text", lambda: service.send_to_all("text ü", **TEXT))
step("sendToAll json", lambda: service.send_to_all({"a": [1, 2.5]}, **JSON))
step("sendToAll binary", lambda: service.send_to_all(b"\x00\xff\n", **BINARY))
step("sendToAll excluded", lambda: service.send_to_all("not ann", excluded=[ann, "x&y"], **TEXT))
step("sendToAll filter", lambda: service.send_to_all("only ann", filter="userId eq 'ann'", **TEXT))
step("sendToAll ttl", lambda: service.send_to_all("soon", params={"messageTtlSeconds": "60"}, **TEXT))
step("sendToAll bad filter", lambda: refused(400, lambda: service.send_to_all("x", filter="length(userId)", **TEXT)))
step("addConnection", lambda: service.add_connection_to_group(group="g/1", connection_id=ann))
step("addConnection unknown", lambda: refused(404, lambda: service.add_connection_to_group("g/1", "nosuch")))
step("groupExists", lambda: expect(True, service.group_exists("g/1")))
step("groupExists unknown", lambda: expect(False, service.group_exists("nosuch")))
step("group.sendToAll", lambda: service.send_to_group("g/1", "to group", **TEXT))
step("addUser", lambda: service.add_user_to_group(group="g/1", user_id="bob"))
step("group.sendToAll filter", lambda: service.send_to_group("g/1", "bob of group", filter="userId ne 'ann'", **TEXT))
step("listConnections", lambda: expect(["ann", "bob"], users("g/1")))
step("listConnections pages", lambda: expect(1, len(users("g/1", top=1))))
step("removeUser", lambda: service.remove_user_from_group(group="g/1", user_id="bob"))
step("removeConnection", lambda: service.remove_connection_from_group(group="g/1", connection_id=ann))
step("group.sendToAll nobody", lambda: service.send_to_group("g/1", "to nobody", **TEXT))
step("sendToUser", lambda: service.send_to_user("bob", "to bob", **TEXT))
step("sendToUser json filter", lambda: service.send_to_user("ann", [], filter="length(groups) eq 0", **JSON))
step("sendToConnection", lambda: service.send_to_connection(ann, "to ann", **TEXT))
step("connectionExists", lambda: expect(True, service.connection_exists(ann)))
step("connectionExists unknown", lambda: expect(False, service.connection_exists("nosuch")))
step("userExists", lambda: expect(True, service.user_exists("bob")))
step("userExists unknown", lambda: expect(False, service.user_exists("nobody")))
step("removeUserFromAllGroups", lambda: service.remove_user_from_all_groups("bob"))
step("removeConnectionFromAllGroups", lambda: service.remove_connection_from_all_groups(ann))
for permission in ("sendToGroup", "joinLeaveGroup"):
    target = {"permission": permission, "connection_id": ann, "target_name": "p/1"}
    step(f"grantPermission {permission}", lambda: service.grant_permission(**target))
    step(f"hasPermission {permission}", lambda: expect(True, service.has_permission(**target)))
    step(f"revokePermission {permission}", lambda: service.revoke_permission(**target))
    step(f"hasPermission {permission} no more", lambda: expect(False, service.has_permission(**target)))
step("closeConnection unknown", lambda: service.close_connection("nosuch", reason="x"))
step("group.closeAllConnections", lambda: service.close_group_connections("none", reason="x", excluded=[ann]))
access = service.get_client_access_token(
    user_id="new", roles=["webpubsub.sendToGroup.t"], groups=["t"], minutes_to_expire=5
)
print(json.dumps({"url": access["url"]}), flush=True)
step("closeUserConnections", lambda: service.close_user_connections("bob", reason="bye bob"))
step("closeConnection", lambda: service.close_connection(ann, reason="bye ann"))
step("closeAllConnections", lambda: service.close_all_connections(reason="bye"))
print(json.dumps({"done": True}), flush=True)
