//! Calls of clients on their way to a handler, and its answer on the way back.

use tokio::time::{Instant, timeout_at};

use super::call_error::{CallError, Fault};
use super::cloudevents::{self, EventData};
use super::handler::Handler;
use super::line::Line;
use super::of_hub::HubUpstream;
use super::settings::Form;
use super::signalr::{self, About, Unsendable};
use crate::auth::random_connection_id;
use crate::hub::{
    BindError, Call, Connection, Context, FromInvocation, HubError, HubRuntime, Outgoing, Rest, marker,
};
use crate::protocol::{ClientProtocol, DataType, Encoding, Invocation, MESSAGE, Outcome, Value, webpubsub};
use crate::session::event_state;

/// A call that a handler is to answer.
pub(super) struct Relayed {
    context: Context,
    target: String,
    invocation_id: Option<String>,
    data_type: Option<DataType>,
    encoding: Encoding,
    arguments: Vec<Value>,
}

impl FromInvocation<marker::Raw> for Relayed {
    const ARGUMENTS: usize = 0;
    const REST: bool = true;

    fn from_invocation(call: &mut Call) -> Result<Self, BindError> {
        let Rest(arguments) = Rest::from_invocation(call)?;
        Ok(Self {
            context: call.context().clone(),
            target: call.target().to_owned(),
            invocation_id: call.invocation_id().map(str::to_owned),
            data_type: call.data_type(),
            encoding: call.encoding(),
            arguments,
        })
    }
}

/// The reason why a call comes too early for its handler.
const NOT_REPORTED: &str = "the handler could not be told yet that the client has connected";

/// An id that no other event has.
pub(super) fn random_id() -> String {
    random_connection_id()
        .map(|id| id.to_string())
        .unwrap_or_default()
}

impl HubUpstream {
    /// Has the handler answer a call.
    pub(super) async fn relay(&self, call: Relayed) -> Result<Value, HubError> {
        let Some(handler) = self.for_message(&call.target) else {
            return Err(HubError::whole(HubError::no_such_method(&call.target)));
        };
        let end = Instant::now() + handler.settings.timeout;
        let line = Line::of(call.context.connection());
        // After `connected`, which is tried again for a while, and before `disconnected`.
        let connection_id = call.context.connection_id().clone();
        let _runs = self.runs(&connection_id, &line);
        let hub = call.context.hub();
        let turn = async {
            self.after_connected(hub.runtime(), call.context.connection(), &line)
                .await;
            line.order().read_owned().await
        };
        let Ok(_turn) = timeout_at(end, turn).await else {
            let why = if line.has_trouble() {
                NOT_REPORTED
            } else {
                "other calls of the connection took all the time"
            };
            return Err(failed(&handler, &call.target, why));
        };
        let (context, target) = (call.context.clone(), call.target.clone());
        let event_id = random_id();
        let about = About {
            hub: self.name(),
            connection: context.connection(),
            line: &line,
            event_id: &event_id,
        };
        let answered = match handler.form {
            Form::SignalR => invoke(&handler, &about, call, end).await,
            Form::CloudEvents => raise(&handler, &about, call, end).await,
        };
        answered.map_err(|error| match error {
            CallFailure::Whole(fault) => {
                note(&handler, self.name(), &target, &fault.why);
                HubError::whole(fault.for_client)
            }
            CallFailure::Because(fault) => {
                note(&handler, self.name(), &target, &fault.why);
                failed(&handler, &target, &fault.for_client)
            }
            CallFailure::Said(text) => HubError::whole(text), // the application's own words
            CallFailure::Hub(error) => error,
        })
    }
}

/// The reason why a call has no result.
enum CallFailure {
    /// The fault of the handler, or of its answer, with the whole text for the client.
    Whole(Fault),
    /// The same, with the reason alone.
    Because(Fault),
    /// An error that the handler answered with.
    Said(String),
    Hub(HubError),
}

impl From<Unsendable> for CallFailure {
    fn from(error: Unsendable) -> Self {
        Self::Because(Fault::public(format_args!(
            "the call can't be passed on: {error}"
        )))
    }
}

/// Has other nodes know a connection's new state, should it go on there.
async fn keep_state(hub: &HubRuntime, connection: &Connection) {
    let Some(session) = hub.registry().find(connection.id()) else {
        return;
    };
    if hub.hub().event_handler().is_some() {
        let backplane = hub.backplane();
        let restated = backplane.restate_events(connection.id(), event_state(connection));
        if let Err(error) = restated.await {
            tracing::warn!(connection_id = %connection.id(), %error, "a connection's end will be told with an older ce-connectionState");
        }
    }
    if let Err(error) = session.write_state().await {
        tracing::warn!(connection_id = %connection.id(), %error, "a connection's ce-connectionState is known to this node alone");
    }
}

/// The error for a client whose event was not served. It names no address.
fn failed(handler: &Handler, event: &str, why: &str) -> HubError {
    match handler.form {
        Form::SignalR => HubError::whole(format!("Invocation failed, error: {why}.")),
        Form::CloudEvents => HubError::whole(format!("The handler of {event:?} failed: {why}.")),
    }
}

fn note(handler: &Handler, hub: &str, event: &str, why: &str) {
    tracing::warn!(
        handler = handler.label,
        hub,
        event,
        why,
        "a handler did not serve a call"
    );
}

async fn invoke(
    handler: &Handler,
    about: &About<'_>,
    call: Relayed,
    end: Instant,
) -> Result<Value, CallFailure> {
    let invocation_id = call.invocation_id.clone();
    let connection = call.context.connection();
    let invocation = Invocation {
        headers: call.context.invocation_headers().clone(),
        invocation_id: call.invocation_id,
        target: call.target,
        arguments: call.arguments,
        ..Invocation::default()
    };
    let request = signalr::message(handler, about, invocation)?;
    let url = request.url.clone();
    let runtime = call.context.hub();
    let metrics = &runtime.runtime().shared().metrics().upstream;
    let answer = handler.call_patiently(metrics, request, end).await;
    if let Ok(answer) = &answer {
        about.line.learn_cookies(&url, &answer.headers);
    }
    match signalr::outcome(connection, invocation_id.as_deref(), answer) {
        Ok(Outcome::Void) => Ok(Value::null(signalr::encoding(connection))),
        Ok(Outcome::Result(value)) => Ok(value),
        Ok(Outcome::Error(text)) => Err(CallFailure::Said(text)),
        Err(fault) => Err(CallFailure::Whole(fault)),
    }
}

async fn raise(
    handler: &std::sync::Arc<Handler>,
    about: &About<'_>,
    call: Relayed,
    end: Instant,
) -> Result<Value, CallFailure> {
    let runtime = call.context.hub();
    let runtime = runtime.runtime();
    let metrics = &runtime.shared().metrics().upstream;
    let validation = cloudevents::validation_url(handler, about.hub)?;
    let data = EventData::of_call(call.data_type, &call.arguments)?;
    let metadata = call.context.invocation_headers();
    let request = cloudevents::message(handler, about, &call.target, data, metadata)?;
    let because = |error: &CallError| CallFailure::Because(error.into());
    let allowed = timeout_at(end, handler.validated(metrics, validation)).await;
    allowed
        .map_err(|_| because(&CallError::Late(handler.settings.timeout)))?
        .map_err(CallFailure::Because)?;
    let url = request.url.clone();
    let answer = handler.call_patiently(metrics, request, end).await;
    let answer = answer.map_err(|error| because(&error))?;
    let data = cloudevents::outcome(&answer).map_err(|error| CallFailure::Because(Fault::public(error)))?;
    let learned = about.line.learn(about.connection, &url, &answer.headers);
    if learned.map_err(|error| CallFailure::Because(Fault::public(error)))? {
        keep_state(runtime, about.connection).await;
    }
    let null = Value::null(call.encoding);
    let Some(data) = data else { return Ok(null) };
    let protocol = call.context.connection().protocol();
    let invoked = call.invocation_id.as_deref().is_some_and(webpubsub::is_invoke);
    if invoked {
        return Ok(data.result());
    }
    if !protocol.is_some_and(ClientProtocol::results_are_messages) {
        return Ok(data.packed().unwrap_or_else(|| data.json()));
    }
    // A message to the caller, before the ack of its event.
    let connection = call.context.connection();
    let topics = [hubcast_backplane::Topic::Connection(connection.id().clone())];
    let message = Outgoing {
        target: MESSAGE.to_owned(),
        arguments: vec![data.json()],
        translated: data.packed().into_iter().collect(),
        data_type: data.kind,
        ..Outgoing::default()
    };
    let published = runtime.publish_message(Some(connection), &topics, message).await;
    published
        .map(|_| null)
        .map_err(|error| CallFailure::Hub(error.into()))
}
