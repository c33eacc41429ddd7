//! Events of connections on their way to a handler: in order, and more than once where it has to be.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::{BoxFuture, FutureExt};
use hubcast_backplane::{ConnectionEvent, EventKind, GroupName};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::call_error::{BadStatus, CallError};
use super::cloudevents;
use super::connect::{self, ConnectError, ConnectRefusal};
use super::handler::{Handler, RETRIES, WebhookRequest, may_pass};
use super::line::Line;
use super::of_hub::HubUpstream;
use super::relay::random_id;
use super::settings::{Form, SystemEvent};
use super::signalr::{self, About, Unsendable};
use crate::hub::{
    Accepted, ConnectHandler, Connecting, Connection, Context, Delivering, EventHandler, HubRuntime, Owed,
    TurnedAway,
};
use crate::session::connection_of_event;
use crate::telemetry::upstream::{UpstreamLabels, UpstreamMetrics};

/// Waits between the tries of an event of a connection, and then the last one again and again.
const WAITS: [Duration; 6] = [
    RETRIES[0],
    RETRIES[1],
    RETRIES[2],
    Duration::from_secs(15),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// The waits of one event.
#[derive(Default)]
struct Waits {
    /// Number of attempts that failed since the handler last worked again.
    failed: usize,
}

impl Waits {
    /// Returns whether the next wait is longer than the one before. Operators are not told of each further attempt.
    fn are_of_interest(&self) -> bool {
        self.failed < WAITS.len()
    }

    /// Waits for the next attempt: for longer after each one, and no longer than until the handler works again.
    async fn next(&mut self, works_again: impl Future<Output = ()>) {
        let wait = WAITS
            .get(self.failed)
            .or(WAITS.last())
            .copied()
            .unwrap_or_default();
        self.failed = self.failed.saturating_add(1);
        tokio::select! {
            () = sleep(wait) => {}
            () = works_again => self.failed = 0,
        }
    }
}

/// How often it is asked whether another node has told the handler that a client has connected.
const ASK: Duration = Duration::from_millis(250);

impl EventHandler for Arc<HubUpstream> {
    fn delivers(&self) -> bool {
        HubUpstream::delivers(self)
    }

    fn deliver(&self, hub: Arc<HubRuntime>, event: ConnectionEvent) -> BoxFuture<'static, Delivering> {
        let own = Arc::clone(self);
        async move { own.deliver_event(&hub, &event).await }.boxed()
    }
}

impl HubUpstream {
    /// Sends a handler an event of a connection until the handler has taken it.
    async fn deliver_event(&self, hub: &Arc<HubRuntime>, event: &ConnectionEvent) -> Delivering {
        let session = hub.registry().find(&event.connection);
        let line = match (&session, self.running(&event.connection)) {
            (Some(session), _) => Line::of(session.connection()),
            (None, running) => running.unwrap_or_default(),
        };
        drop(session);
        let connection = connection_of_event(event);
        let outcome = match &event.kind {
            EventKind::Connected => {
                let outcome = self
                    .deliver_until_taken(hub, event, &connection, &line, SystemEvent::Connected)
                    .await;
                if outcome == Delivering::Finished {
                    line.begin();
                }
                outcome
            }
            EventKind::Disconnected { .. } => {
                let order = line.order();
                let _after_calls = order.write().await;
                self.deliver_until_taken(hub, event, &connection, &line, SystemEvent::Disconnected)
                    .await
            }
        };
        line.set_trouble(false);
        outcome
    }

    async fn deliver_until_taken(
        &self,
        hub: &Arc<HubRuntime>,
        event: &ConnectionEvent,
        connection: &Connection,
        line: &Line,
        kind: SystemEvent,
    ) -> Delivering {
        let metrics = &hub.shared().metrics().upstream;
        let stopping = hub.shared().stopping();
        let mut waits = Waits::default();
        // The settings may change while an event waits.
        while let Some(handler) = self.for_system(kind) {
            let works_again = handler.works_again();
            let about = About {
                hub: self.name(),
                connection,
                line,
                event_id: &event.id,
            };
            let attempt = match self.request(&handler, &about, &event.kind) {
                Ok(request) => attempt(&handler, metrics, self.name(), request).await,
                Err(error) => {
                    let (id, why) = (&event.connection, error.to_string());
                    metrics.lost(&UpstreamLabels::of(&handler.label)).inc();
                    tracing::warn!(handler = handler.label, hub = self.name(), connection_id = %id, event = kind.name(), why, "an event can't be written as a request, and is given up");
                    return Delivering::Finished;
                }
            };
            if let Attempt::Refused(why) | Attempt::NotNow(why) = &attempt
                && waits.are_of_interest()
            {
                tracing::warn!(handler = handler.label, hub = self.name(), connection_id = %event.connection, event = kind.name(), why, "a handler has not taken an event; it is sent again");
            }
            let next_attempt = match attempt {
                Attempt::Taken => return Delivering::Finished,
                Attempt::LeftAlone => handler.is_called_again().left_future(),
                Attempt::Refused(_) | Attempt::NotNow(_) => waits.next(works_again).right_future(),
            };
            line.set_trouble(true);
            tokio::select! {
                () = next_attempt => {}
                () = stopping.cancelled() => return Delivering::LeftToOthers,
            }
            let holds = hub.backplane().holds_event(event).await;
            if matches!(holds, Ok(false)) {
                return Delivering::LeftToOthers; // another node has it by now
            }
        }
        Delivering::Finished
    }

    fn request(
        &self,
        handler: &Handler,
        about: &About<'_>,
        kind: &EventKind,
    ) -> Result<WebhookRequest, Unsendable> {
        match (kind, handler.form) {
            (EventKind::Connected, Form::SignalR) => signalr::connected(handler, about),
            (EventKind::Connected, Form::CloudEvents) => cloudevents::connected(handler, about),
            (EventKind::Disconnected { reason }, Form::SignalR) => {
                signalr::disconnected(handler, about, reason)
            }
            (EventKind::Disconnected { reason }, Form::CloudEvents) => {
                cloudevents::disconnected(handler, about, reason)
            }
        }
    }

    /// Waits until the handler was told that a client has connected, by whichever node.
    pub(super) async fn after_connected(&self, hub: &HubRuntime, connection: &Connection, line: &Line) {
        while self.delivers() && !line.has_begun() {
            tokio::select! {
                () = line.begun() => return,
                () = sleep(ASK) => {}
            }
            let finished = hub.backplane().connected_finished(connection.id());
            if matches!(finished.await, Ok(true)) {
                line.begin();
            }
        }
    }

    /// Tells the handler which group a connection has joined or left, after it was told that the client has connected.
    pub(super) fn group_changed(self: &Arc<Self>, context: Context, group: &GroupName, joined: bool) {
        let event = if joined {
            SystemEvent::Joined
        } else {
            SystemEvent::Left
        };
        let Some(handler) = self.for_system(event) else {
            return;
        };
        let (own, name, group) = (Arc::clone(self), self.name().to_owned(), group.clone());
        let hub = context.hub();
        let runtime = Arc::clone(hub.runtime());
        let line = Line::of(context.connection());
        let (before, delivered) = line.next_change();
        let delivering = {
            let runtime = Arc::clone(&runtime);
            async move {
                if let Some(before) = before {
                    let _ = before.await; // it ends in any case
                }
                let gone = context.cancelled().cancelled();
                tokio::select! {
                    () = own.after_connected(&runtime, context.connection(), &line) => {}
                    () = gone => return, // its groups ended with it
                }
                let turn = line.order().write_owned().await;
                let connection = context.connection();
                let request = cloudevents::group_changed(
                    &handler,
                    &About {
                        hub: &name,
                        connection,
                        line: &line,
                        event_id: &random_id(),
                    },
                    event,
                    group.as_str(),
                );
                let id = connection.id().as_str();
                deliver(
                    &handler,
                    &runtime.shared().metrics().upstream,
                    &name,
                    id,
                    event,
                    request,
                )
                .await;
                drop((turn, delivered));
            }
        };
        runtime.shared().tasks().spawn(delivering);
    }

    /// Makes the request of the question about a client, or of the end of one that never became a connection.
    fn about(
        &self,
        connection: &Connection,
        line: &Line,
        event: SystemEvent,
        make: impl FnOnce(&About<'_>) -> Result<WebhookRequest, Unsendable>,
    ) -> Result<WebhookRequest, Unsendable> {
        make(&About {
            hub: self.name(),
            connection,
            line,
            event_id: &format!("{}:{}", connection.id(), event.name()),
        })
    }
}

/// Sends an event until the handler has taken it, as often as is documented.
async fn deliver(
    handler: &Arc<Handler>,
    metrics: &Arc<UpstreamMetrics>,
    hub: &str,
    connection_id: &str,
    event: SystemEvent,
    request: Result<WebhookRequest, Unsendable>,
) {
    let labels = UpstreamLabels::of(&handler.label);
    let event = event.name();
    let lost = |why: &str| {
        metrics.lost(&labels).inc();
        tracing::warn!(
            handler = handler.label,
            hub,
            connection_id,
            event,
            why,
            "a handler was not told an event"
        );
    };
    let request = match request {
        Ok(request) => request,
        Err(error) => return lost(&error.to_string()),
    };
    let Some(_waits) = handler.queue_event() else {
        return lost("as many events wait for it as may (ten times queue)");
    };
    let mut waits = RETRIES.into_iter();
    loop {
        let why = match attempt(handler, metrics, hub, request.clone()).await {
            Attempt::Taken => return,
            Attempt::Refused(why) => return lost(&why),
            Attempt::NotNow(why) => why,
            Attempt::LeftAlone => CallError::Open.to_string(),
        };
        match waits.next() {
            Some(wait) => sleep(wait).await,
            None => return lost(&why),
        }
    }
}

/// The outcome of one try.
enum Attempt {
    Taken,
    /// Another try would go no better.
    Refused(String),
    /// Another try may succeed.
    NotNow(String),
    /// The handler was not called, because it failed call after call.
    LeftAlone,
}

async fn attempt(
    handler: &Arc<Handler>,
    metrics: &Arc<UpstreamMetrics>,
    hub: &str,
    request: WebhookRequest,
) -> Attempt {
    if handler.is_left_alone() {
        return Attempt::LeftAlone;
    }
    if handler.form == Form::CloudEvents {
        let url = match cloudevents::validation_url(handler, hub) {
            Ok(url) => url,
            Err(error) => return Attempt::Refused(error.to_string()),
        };
        if let Err(fault) = handler.validated(metrics, url).await {
            return Attempt::NotNow(fault.why);
        }
    }
    let status = match handler.call(metrics, request).await {
        Ok(answer) => answer.status,
        // The status decides: nobody reads the body of the answer to an event.
        Err(CallError::TooLarge { status, .. } | CallError::NoRoom { status }) => status,
        Err(CallError::Open) => return Attempt::LeftAlone,
        Err(error) => return Attempt::NotNow(error.to_string()),
    };
    if status.is_success() {
        Attempt::Taken
    } else if may_pass(status) {
        Attempt::NotNow(BadStatus(status).to_string())
    } else {
        Attempt::Refused(BadStatus(status).to_string())
    }
}

/// The text for a client that is refused for a reason that is not its own.
const FAILED: &str = "The application could not be asked about this connection";

impl ConnectHandler for Arc<HubUpstream> {
    fn is_asked(&self) -> bool {
        self.for_system(SystemEvent::Connect).is_some()
    }

    fn connect(
        &self,
        hub: Arc<HubRuntime>,
        connecting: Connecting,
    ) -> BoxFuture<'static, Result<Accepted, TurnedAway>> {
        let own = Arc::clone(self);
        async move {
            let Some(handler) = own.for_system(SystemEvent::Connect) else {
                return Ok(Accepted {
                    connection: connecting.connection,
                    subprotocol: None,
                });
            };
            let id = connecting.connection.id().clone();
            own.ask(&hub, &handler, connecting).await.map_err(|refusal| match refusal {
                ConnectRefusal::Refused(status) => TurnedAway {
                    status,
                    text: "The application refused the connection".to_owned(),
                },
                ConnectRefusal::Bad(error) => {
                    tracing::warn!(handler = handler.label, hub = own.name(), connection_id = %id, why = %error, "a client can't be let in");
                    TurnedAway {
                        status: StatusCode::INTERNAL_SERVER_ERROR,
                        text: FAILED.to_owned(),
                    }
                }
            })
        }
        .boxed()
    }
}

impl HubUpstream {
    async fn ask(
        self: &Arc<Self>,
        hub: &Arc<HubRuntime>,
        handler: &Arc<Handler>,
        connecting: Connecting,
    ) -> Result<Accepted, ConnectRefusal> {
        let Connecting {
            connection,
            subprotocols,
        } = connecting;
        let metrics = &hub.shared().metrics().upstream;
        let end = Instant::now() + handler.settings.timeout;
        let line = Line::default();
        let body = connect::question(&connection, &subprotocols);
        let request = self.about(&connection, &line, SystemEvent::Connect, |about| {
            cloudevents::connect(handler, about, body)
        })?;
        let url = cloudevents::validation_url(handler, self.name())?;
        let allowed = handler.validated(metrics, url).await;
        allowed.map_err(ConnectError::Validation)?;
        let url = request.url.clone();
        let answer = handler.call_patiently(metrics, request, end).await?;
        let verdict = connect::verdict(&handler.settings, &answer, &subprotocols)?;
        line.learn(&connection, &url, &answer.headers)?;
        let identity = connect::changed(&connection.identity(), verdict.changes)?;
        let connection = connection.with_identity(identity);
        if let Some(name) = &verdict.subprotocol {
            line.set_subprotocol(name);
        }
        self.owe_end(hub, &connection, &line);
        line.give_to(&connection);
        Ok(Accepted {
            connection,
            subprotocol: verdict.subprotocol,
        })
    }

    /// A handler that has let a client in is told its end, also when nothing came of the connection.
    fn owe_end(self: &Arc<Self>, hub: &Arc<HubRuntime>, connection: &Connection, line: &Line) {
        let Some(handler) = self.for_system(SystemEvent::Disconnected) else {
            return;
        };
        let (own, hub, line) = (Arc::clone(self), Arc::clone(hub), line.clone());
        let copy = connection.anew();
        let owed = Owed::new(move || {
            let delivering = {
                let hub = Arc::clone(&hub);
                async move {
                    let kind = EventKind::Disconnected {
                        reason: "the connection was not established".to_owned(),
                    };
                    let metrics = &hub.shared().metrics().upstream;
                    let event = SystemEvent::Disconnected;
                    let request = own.about(&copy, &line, event, |about| own.request(&handler, about, &kind));
                    deliver(&handler, metrics, own.name(), copy.id().as_str(), event, request).await;
                }
            };
            if let Ok(runtime) = Handle::try_current() {
                hub.shared().tasks().spawn_on(delivering, &runtime);
            }
        });
        connection.data().insert(owed);
    }
}
