//! Events of connections on their way to a handler: in order, and more than once where it has to be.

use std::sync::Arc;

use axum::http::StatusCode;
use futures_util::future::{BoxFuture, FutureExt};
use hubcast_backplane::GroupName;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::cloudevents;
use super::connect::{self, Refusal};
use super::handler::{CallError, Handler, Outgoing, RETRIES, may_pass};
use super::line::{Line, Owed};
use super::of_hub::HubUpstream;
use super::relay::random_id;
use super::settings::{Form, SystemEvent};
use super::signalr::{self, About, Unsendable};
use crate::hub::{
    Accepted, ConnectHandler, Connecting, Connection, Context, Disconnected, HubRuntime, TurnedAway,
};
use crate::telemetry::upstream::{UpstreamLabels, UpstreamMetrics};

impl HubUpstream {
    /// Tells the handler that a client has connected. The client goes on at once; its messages wait until the handler was
    /// told, or can't be.
    pub(super) async fn connected(&self, context: Context) {
        let connection = context.connection();
        if let Some(owed) = connection.data().remove::<Owed>() {
            owed.settle(); // from now on its end is told by the hook
        }
        let line = Line::of(connection);
        let turn = line.order().write_owned().await; // free: nothing was delivered yet
        line.begin();
        let Some(handler) = self.for_system(SystemEvent::Connected) else {
            return;
        };
        let hub = context.hub();
        let runtime = Arc::clone(hub.runtime());
        let request = self.about(connection, &line, SystemEvent::Connected, |about| {
            match handler.form {
                Form::SignalR => signalr::connected(&handler, about),
                Form::CloudEvents => cloudevents::connected(&handler, about),
            }
        });
        let (name, id) = (self.name().to_owned(), connection.id().to_string());
        let telling = {
            let runtime = Arc::clone(&runtime);
            async move {
                let event = SystemEvent::Connected;
                line.set_trouble(true);
                deliver(
                    &handler,
                    &runtime.shared().metrics().upstream,
                    &name,
                    &id,
                    event,
                    request,
                )
                .await;
                line.set_trouble(false);
                drop(turn);
            }
        };
        runtime.shared().tasks().spawn(telling);
    }

    /// Tells the handler that a connection has ended, and returns when it was told, or can't be.
    pub(super) async fn disconnected(&self, context: Context, reason: Disconnected) {
        let Some(handler) = self.for_system(SystemEvent::Disconnected) else {
            return;
        };
        let connection = context.connection();
        let line = Line::of(connection);
        let _turn = line.order().write_owned().await;
        let hub = context.hub();
        let metrics = &hub.runtime().shared().metrics().upstream;
        self.tell_end(&handler, metrics, connection, &line, &reason).await;
    }

    /// Tells the handler which group a connection has joined or left, after it was told that the client has connected.
    pub(super) fn group_changed(&self, context: Context, group: &GroupName, joined: bool) {
        let event = if joined {
            SystemEvent::Joined
        } else {
            SystemEvent::Left
        };
        let Some(handler) = self.for_system(event) else {
            return;
        };
        let (name, group) = (self.name().to_owned(), group.clone());
        let hub = context.hub();
        let runtime = Arc::clone(hub.runtime());
        let line = Line::of(context.connection());
        let telling = {
            let runtime = Arc::clone(&runtime);
            async move {
                let gone = context.cancelled().cancelled();
                tokio::select! {
                    () = line.begun() => {}
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
                drop(turn);
            }
        };
        runtime.shared().tasks().spawn(telling);
    }

    async fn tell_end(
        &self,
        handler: &Arc<Handler>,
        metrics: &Arc<UpstreamMetrics>,
        connection: &Connection,
        line: &Line,
        reason: &Disconnected,
    ) {
        let event = SystemEvent::Disconnected;
        let request = self.about(connection, line, event, |about| match handler.form {
            Form::SignalR => signalr::disconnected(handler, about, reason),
            Form::CloudEvents => cloudevents::disconnected(handler, about, reason),
        });
        deliver(
            handler,
            metrics,
            self.name(),
            connection.id().as_str(),
            event,
            request,
        )
        .await;
    }

    /// Makes the request of an event of a connection. Its id is the same on every try and node: there is one such event of a
    /// connection.
    fn about(
        &self,
        connection: &Connection,
        line: &Line,
        event: SystemEvent,
        make: impl FnOnce(&About<'_>) -> Result<Outgoing, Unsendable>,
    ) -> Result<Outgoing, Unsendable> {
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
    request: Result<Outgoing, Unsendable>,
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
            Told::Yes => return,
            Told::No(why) => return lost(&why),
            Told::NotNow(why) => why,
        };
        match waits.next() {
            Some(wait) => sleep(wait).await,
            None => return lost(&why),
        }
    }
}

/// The outcome of one try.
enum Told {
    Yes,
    /// Another try would go no better.
    No(String),
    NotNow(String),
}

async fn attempt(
    handler: &Arc<Handler>,
    metrics: &Arc<UpstreamMetrics>,
    hub: &str,
    request: Outgoing,
) -> Told {
    if handler.form == Form::CloudEvents {
        let url = match cloudevents::validation_url(handler, hub) {
            Ok(url) => url,
            Err(error) => return Told::No(error.to_string()),
        };
        if let Err(why) = handler.validated(metrics, url).await {
            return Told::NotNow(why);
        }
    }
    match handler.call(metrics, request).await {
        Ok(answer) if answer.status.is_success() => Told::Yes,
        Ok(answer) if may_pass(answer.status) => Told::NotNow(cloudevents::status(answer.status)),
        Ok(answer) => Told::No(cloudevents::status(answer.status)),
        Err(CallError::TooLarge(_) | CallError::NoRoom) => Told::Yes, // it has answered, and nobody reads it
        Err(error) => Told::NotNow(error.to_string()),
    }
}

/// What a client is told that is not let in for a reason that is not its own.
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
                Refusal::Refused(status) => TurnedAway {
                    status,
                    text: "The application refused the connection".to_owned(),
                },
                Refusal::Bad(why) => {
                    tracing::warn!(handler = handler.label, hub = own.name(), connection_id = %id, why, "a client can't be let in");
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
    ) -> Result<Accepted, Refusal> {
        let Connecting {
            connection,
            subprotocols,
        } = connecting;
        let bad = |error: &dyn std::fmt::Display| Refusal::Bad(error.to_string());
        let metrics = &hub.shared().metrics().upstream;
        let end = Instant::now() + handler.settings.timeout;
        let line = Line::default();
        let body = connect::question(&connection, &subprotocols);
        let request = self
            .about(&connection, &line, SystemEvent::Connect, |about| {
                cloudevents::connect(handler, about, body)
            })
            .map_err(|error| bad(&error))?;
        let url = cloudevents::validation_url(handler, self.name()).map_err(|error| bad(&error))?;
        handler.validated(metrics, url).await.map_err(Refusal::Bad)?;
        let url = request.url.clone();
        let answer = handler
            .call_patiently(metrics, request, end)
            .await
            .map_err(|error| bad(&error))?;
        let verdict = connect::verdict(&handler.settings, &answer, &subprotocols)?;
        line.learn(&connection, &url, &answer.headers)
            .map_err(|error| bad(&error))?;
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
            let telling = {
                let hub = Arc::clone(&hub);
                async move {
                    let reason = Disconnected::Lost("the connection was not established".to_owned());
                    let metrics = &hub.shared().metrics().upstream;
                    own.tell_end(&handler, metrics, &copy, &line, &reason).await;
                }
            };
            if let Ok(runtime) = Handle::try_current() {
                hub.shared().tasks().spawn_on(telling, &runtime);
            }
        });
        connection.data().insert(owed);
    }
}
