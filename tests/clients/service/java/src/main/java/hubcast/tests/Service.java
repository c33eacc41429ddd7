package hubcast.tests;

import com.azure.core.exception.HttpResponseException;
import com.azure.core.http.rest.RequestOptions;
import com.azure.core.util.BinaryData;
import com.azure.messaging.webpubsub.WebPubSubServiceClient;
import com.azure.messaging.webpubsub.WebPubSubServiceClientBuilder;
import com.azure.messaging.webpubsub.models.GetClientAccessTokenOptions;
import com.azure.messaging.webpubsub.models.WebPubSubContentType;
import com.azure.messaging.webpubsub.models.WebPubSubPermission;
import java.time.Duration;
import java.util.List;

/**
 * Azure's SDK for servers, com.azure:azure-messaging-webpubsub, unchanged: every operation of it.
 *
 * <pre>java hubcast.tests.Service CONNECTION_STRING HUB ANN BOB</pre>
 *
 * What it prints is what webpubsub.mjs prints, but for listConnections and removeConnectionsFromGroups, which this SDK does
 * not have.
 */
public final class Service {
    private static final WebPubSubContentType TEXT = WebPubSubContentType.TEXT_PLAIN;
    private static final WebPubSubContentType JSON = WebPubSubContentType.APPLICATION_JSON;
    private static final WebPubSubContentType BINARY = WebPubSubContentType.APPLICATION_OCTET_STREAM;

    private interface Run {
        void run() throws Exception;
    }

    private static void step(String name, Run run) {
        try {
            run.run();
        } catch (Exception | AssertionError error) {
            String text = String.valueOf(error).replaceAll("[\\\\\"\\p{Cntrl}]", "'");
            System.out.println("{\"step\":\"" + name + "\",\"error\":\"" + text + "\"}");
            System.exit(1);
        }
        System.out.println("{\"step\":\"" + name + "\",\"ok\":true}");
    }

    private static void expect(boolean expected, boolean got) {
        if (expected != got) {
            throw new AssertionError("it is " + got);
        }
    }

    private static void refused(int status, Run run) throws Exception {
        try {
            run.run();
        } catch (HttpResponseException error) {
            if (error.getResponse().getStatusCode() != status) {
                throw error;
            }
            return;
        }
        throw new AssertionError("it was not refused");
    }

    private static RequestOptions with(String... pairs) {
        RequestOptions options = new RequestOptions();
        for (int index = 0; index < pairs.length; index += 2) {
            options.addQueryParam(pairs[index], pairs[index + 1]);
        }
        return options;
    }

    private static BinaryData of(String text) {
        return BinaryData.fromString(text);
    }

    private static long length(String text) {
        return of(text).toBytes().length;
    }

    public static void main(String[] arguments) {
        String hub = arguments[1];
        String ann = arguments[2];
        WebPubSubServiceClient service =
            new WebPubSubServiceClientBuilder().connectionString(arguments[0]).hub(hub).buildClient();

        step("sendToAll text", () -> service.sendToAll("text \u00fc", TEXT));
        step("sendToAll json", () -> service.sendToAll("{\"a\":[1,2.5]}", JSON));
        byte[] bytes = {0, (byte) 255, 10};
        step("sendToAll binary", () -> service.sendToAllWithResponse(BinaryData.fromBytes(bytes), BINARY, 3, with()));
        step("sendToAll excluded", () -> service.sendToAllWithResponse(
            of("not ann"), TEXT, 7, with("excluded", ann, "excluded", "x&y")));
        step("sendToAll filter", () -> service.sendToAllWithResponse(
            of("only ann"), TEXT, 8, with("filter", "userId eq 'ann'")));
        step("sendToAll ttl", () -> service.sendToAllWithResponse(of("soon"), TEXT, 4, with("messageTtlSeconds", "60")));
        step("sendToAll bad filter", () -> refused(400, () -> service.sendToAllWithResponse(
            of("x"), TEXT, 1, with("filter", "length(userId)"))));
        step("addConnection", () -> service.addConnectionToGroupWithResponse("g/1", ann, with()));
        step("addConnection unknown", () -> refused(404, () ->
            service.addConnectionToGroupWithResponse("g/1", "nosuch", with())));
        step("groupExists", () -> expect(true, service.groupExistsWithResponse("g/1", with()).getValue()));
        step("groupExists unknown", () -> expect(false, service.groupExistsWithResponse("nosuch", with()).getValue()));
        step("group.sendToAll", () -> service.sendToGroup("g/1", "to group", TEXT));
        step("addUser", () -> service.addUserToGroupWithResponse("g/1", "bob", with()));
        step("group.sendToAll filter", () -> service.sendToGroupWithResponse(
            "g/1", of("bob of group"), TEXT, length("bob of group"), with("filter", "userId ne 'ann'")));
        step("removeUser", () -> service.removeUserFromGroupWithResponse("g/1", "bob", with()));
        step("removeConnection", () -> service.removeConnectionFromGroupWithResponse("g/1", ann, with()));
        step("group.sendToAll nobody", () -> service.sendToGroup("g/1", "to nobody", TEXT));
        step("sendToUser", () -> service.sendToUser("bob", "to bob", TEXT));
        step("sendToUser json filter", () -> service.sendToUserWithResponse(
            "ann", of("[]"), JSON, 2, with("filter", "length(groups) eq 0")));
        step("sendToConnection", () -> service.sendToConnection(ann, "to ann", TEXT));
        step("connectionExists", () -> expect(true, service.connectionExistsWithResponse(ann, with()).getValue()));
        step("connectionExists unknown", () ->
            expect(false, service.connectionExistsWithResponse("nosuch", with()).getValue()));
        step("userExists", () -> expect(true, service.userExistsWithResponse("bob", with()).getValue()));
        step("userExists unknown", () -> expect(false, service.userExistsWithResponse("nobody", with()).getValue()));
        step("addConnectionsToGroups", () -> service.addConnectionsToGroups(List.of("x", "y"), "userId in ('ann')"));
        step("group x", () -> service.sendToGroup("x", "members of x", TEXT));
        step("removeUserFromAllGroups", () -> service.removeUserFromAllGroupsWithResponse("bob", with()));
        step("removeConnectionFromAllGroups", () -> service.removeConnectionFromAllGroupsWithResponse(ann, with()));
        step("group y", () -> expect(false, service.groupExistsWithResponse("y", with()).getValue()));
        for (WebPubSubPermission permission : WebPubSubPermission.values()) {
            RequestOptions[] target = {
                with("targetName", "p/1"), with("targetName", "p/1"), with("targetName", "p/1"), with("targetName", "p/1"),
            };
            step("grantPermission " + permission, () -> service.grantPermissionWithResponse(permission, ann, target[0]));
            step("hasPermission " + permission, () ->
                expect(true, service.checkPermissionWithResponse(permission, ann, target[1]).getValue()));
            step("revokePermission " + permission, () -> service.revokePermissionWithResponse(permission, ann, target[2]));
            step("hasPermission " + permission + " no more", () ->
                expect(false, service.checkPermissionWithResponse(permission, ann, target[3]).getValue()));
        }
        step("closeConnection unknown", () -> service.closeConnectionWithResponse("nosuch", with("reason", "x")));
        step("group.closeAllConnections", () -> service.closeGroupConnectionsWithResponse(
            "none", with("reason", "x", "excluded", ann)));
        GetClientAccessTokenOptions access = new GetClientAccessTokenOptions().setUserId("new")
            .addRole("webpubsub.sendToGroup.t").addGroup("t").setExpiresAfter(Duration.ofMinutes(5));
        System.out.println("{\"url\":\"" + service.getClientAccessToken(access).getUrl() + "\"}");
        step("closeUserConnections", () -> service.closeUserConnectionsWithResponse("bob", with("reason", "bye bob")));
        step("closeConnection", () -> service.closeConnectionWithResponse(ann, with("reason", "bye ann")));
        step("closeAllConnections", () -> service.closeAllConnectionsWithResponse(with("reason", "bye")));
        System.out.println("{\"done\":true}");
        System.exit(0);
    }
}
