package hubcast.tests;

import com.microsoft.signalr.HubConnection;
import com.microsoft.signalr.HubConnectionBuilder;
import com.microsoft.signalr.TransportEnum;
import io.reactivex.rxjava3.core.Completable;
import io.reactivex.rxjava3.core.Observable;
import io.reactivex.rxjava3.core.Single;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;

/**
 * Checks a demo hub with Microsoft's client for Java: {@code Client URL}.
 *
 * <p>The client speaks WebSockets and long polling and negotiates version 1. Prints {@code ok NAME},
 * {@code FAILED NAME: why} or {@code skipped NAME: why} for each check.
 */
public final class Client {
    /** The bound on every single wait. */
    private static final long BOUND_SECONDS = 20;

    private static final Map<String, TransportEnum> TRANSPORTS =
            Map.of("WebSockets", TransportEnum.WEBSOCKETS, "LongPolling", TransportEnum.LONG_POLLING);

    private static final Map<String, Check> CHECKS = Map.of(
            "invoke", Client::invoke,
            "hub_error", Client::hubError,
            "group_message", Client::groupMessage,
            "stream_down", Client::streamDown,
            "stream_up", Client::streamUp,
            "stream_through", Client::streamThrough,
            "client_result", Client::clientResult);

    /** What is expected of the hub; an exception or error says that it was not so. */
    private interface Check {
        void run(Party party) throws Exception;
    }

    /** The client can't do what is checked; the text says why. */
    private static final class Skipped extends RuntimeException {
        private static final long serialVersionUID = 1;

        Skipped(String reason) {
            super(reason);
        }
    }

    /** Clients of one kind; closing it stops them all. */
    private static final class Party implements AutoCloseable {
        private final String url;
        private final String transport;
        private final List<HubConnection> connections = new ArrayList<>();

        Party(String url, String transport) {
            this.url = url;
            this.transport = transport;
        }

        HubConnection connect() {
            HubConnection connection = HubConnectionBuilder.create(url)
                    .withTransport(TRANSPORTS.get(transport))
                    .build();
            connections.add(connection);
            connection.start().timeout(BOUND_SECONDS, TimeUnit.SECONDS).blockingAwait();
            return connection;
        }

        /** Skips a check of uploads where they can't work. */
        void needsOrder() {
            if (transport.equals("LongPolling")) {
                throw new Skipped("the client posts a stream's items and its end side by side, in no certain order");
            }
        }

        @Override
        public void close() {
            for (HubConnection connection : connections) {
                connection.stop().timeout(BOUND_SECONDS, TimeUnit.SECONDS).blockingAwait();
            }
        }
    }

    private static void invoke(Party party) {
        HubConnection connection = party.connect();
        equal(result(connection.invoke(String.class, "Echo", "ä€😀")), "ä€😀");
        equal(result(connection.invoke(Integer.class, "Echo", 7)), 7);
        equal(result(connection.invoke(Boolean.class, "Echo", true)), true);
        equal(List.of(result(connection.invoke(String[].class, "Echo", List.of("a", "b")))), List.of("a", "b"));
        Map<?, ?> me = result(connection.invoke(Map.class, "WhoAmI"));
        equal(me.get("connectionId"), connection.getConnectionId());
        equal(me.get("transport"), party.transport);
    }

    private static void hubError(Party party) {
        HubConnection connection = party.connect();
        Throwable error = connection
                .invoke("Throw", "told you")
                .timeout(BOUND_SECONDS, TimeUnit.SECONDS)
                .materialize()
                .blockingGet()
                .getError();
        String text = "An unexpected error occurred invoking 'Throw' on the server. HubException: told you";
        equal(error == null ? null : error.getMessage(), text);
    }

    private static void groupMessage(Party party) throws InterruptedException {
        BlockingQueue<List<String>> received = new ArrayBlockingQueue<>(16);
        HubConnection one = party.connect();
        HubConnection other = party.connect();
        one.on("GroupMessage", (to, text) -> received.add(List.of(to, text)), String.class, String.class);
        String group = UUID.randomUUID().toString();
        done(one.invoke("JoinGroup", group));
        done(other.invoke("SendToGroup", group, "hello"));
        equal(received.poll(BOUND_SECONDS, TimeUnit.SECONDS), List.of(group, "hello"));
    }

    private static void streamDown(Party party) {
        Observable<Integer> numbers = party.connect().stream(Integer.class, "Counter", 100, 0);
        List<Integer> expected = IntStream.range(0, 100).boxed().toList();
        equal(result(numbers.toList()), expected);
    }

    private static void streamUp(Party party) {
        party.needsOrder();
        HubConnection connection = party.connect();
        equal(result(connection.invoke(Double.class, "Sum", Observable.just(1.0, 2.5, 3.0))), 6.5);
    }

    private static void streamThrough(Party party) {
        party.needsOrder();
        HubConnection connection = party.connect();
        Observable<Double> scaled = connection.stream(Double.class, "Scale", Observable.just(1.0, 2.5), 2);
        equal(result(scaled.toList()), List.of(2.0, 5.0));
    }

    private static void clientResult(Party party) {
        HubConnection connection = party.connect();
        connection.onWithResult("GetAnswer", () -> Single.just(42));
        equal(result(connection.invoke(Integer.class, "AskCaller")), 42);
    }

    private static <T> T result(Single<T> single) {
        return single.timeout(BOUND_SECONDS, TimeUnit.SECONDS).blockingGet();
    }

    private static void done(Completable completable) {
        completable.timeout(BOUND_SECONDS, TimeUnit.SECONDS).blockingAwait();
    }

    private static void equal(Object seen, Object expected) {
        if (!Objects.equals(seen, expected)) {
            throw new AssertionError("expected " + expected + ", got " + seen);
        }
    }

    private Client() {}

    /** Runs every check by every transport. */
    public static void main(String[] args) {
        boolean failed = false;
        for (String transport : TRANSPORTS.keySet().stream().sorted().toList()) {
            for (String name : CHECKS.keySet().stream().sorted().toList()) {
                String title = name + " " + transport + " json";
                try (Party party = new Party(args[0], transport)) {
                    CHECKS.get(name).run(party);
                    System.out.println("ok " + title);
                } catch (Skipped reason) {
                    System.out.println("skipped " + title + ": " + reason.getMessage());
                } catch (Exception | AssertionError error) {
                    failed = true;
                    System.out.println("FAILED " + title + ": " + error);
                }
            }
        }
        // The client's threads would keep the process for a while.
        System.exit(failed ? 1 : 0);
    }
}
