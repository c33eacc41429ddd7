//! The way from an invocation to its method, and from the method's end to the completion for the client.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tracing::Instrument;

use super::runtime::{guarded, panicked};
use super::{
    BindError, Call, Context, Entry, HubError, HubRuntime, Invoked, Next, RawUpload, Reply, ReplyKind,
    Target, ValueStream,
};
use crate::protocol::{Encoding, Invocation, Value};
use crate::telemetry::labels::InvocationLabel;
use crate::telemetry::trace;

/// How a plain method ended.
pub(crate) type InvocationOutcome = Result<Value, MethodFailure>;

/// A method that failed.
pub(crate) struct MethodFailure {
    /// The error text for the client.
    pub(crate) text: String,
    /// The backplane could not be reached: a client that waits for no answer has to be notified in another way.
    pub(crate) unreachable: bool,
}

impl MethodFailure {
    fn of(hub: &HubRuntime, name: &str, error: &HubError) -> Self {
        Self {
            text: invocation_error(hub, name, error),
            unreachable: error.is_unreachable(),
        }
    }
}

/// The outcome of dispatching an invocation.
pub(crate) enum Dispatched {
    /// A method runs; it takes one of the connection's slots.
    Plain(BoxFuture<'static, InvocationOutcome>),
    /// A streaming method runs.
    Stream(BoxFuture<'static, Result<ValueStream, MethodFailure>>),
    /// No method runs; the error text for the client.
    Refused(String),
}

/// Finds the method and takes its arguments. `streaming` says how the client called it. A panic of code that takes
/// part in it, such as a type's `Deserialize`, fails this invocation alone.
pub(crate) fn dispatch(
    hub: &Arc<HubRuntime>,
    context: Context,
    invocation: Invocation,
    uploads: Vec<RawUpload>,
    encoding: Encoding,
    streaming: bool,
) -> Dispatched {
    let found = hub.hub().find(&invocation.target);
    // The fallback serves any name, and is spoken of by the one that was called.
    let name = found.map_or_else(|| invocation.target.clone(), |entry| entry.name.clone());
    let Some(entry) = found.or_else(|| hub.hub().fallback_entry()) else {
        return refused(
            hub,
            InvocationLabel::UnknownMethod,
            HubError::no_such_method(&name),
        );
    };
    let beginning = || {
        if !entry.permits(&context.connection().identity()) {
            let text = format!("Failed to invoke '{name}' because user is unauthorized");
            return refused(hub, InvocationLabel::BadArguments, text);
        }
        let filtered = !hub.hub().filters().is_empty();
        let invoked = filtered.then(|| Invoked::new(&name, &context, &invocation.arguments, uploads.len()));
        let call = Call::new(context, invocation, uploads, encoding);
        begin(hub, entry, &name, call, invoked, streaming)
    };
    catch_unwind(AssertUnwindSafe(beginning)).unwrap_or_else(|panic| {
        let text = invocation_error(hub, &name, &panicked(&*panic));
        refused(hub, InvocationLabel::Error, text)
    })
}

fn refused(hub: &HubRuntime, label: InvocationLabel, text: String) -> Dispatched {
    hub.shared().metrics().invocations.get(label).inc();
    Dispatched::Refused(text)
}

fn begin(
    hub: &Arc<HubRuntime>,
    entry: &Entry,
    name: &String,
    call: Call,
    invoked: Option<Invoked>,
    streaming: bool,
) -> Dispatched {
    let span = tracing::info_span!(target: trace::TARGET, "hub.invoke", hub = %hub.name(), method = %name, otel.kind = "server");
    let bound = match (&entry.target, streaming) {
        (Target::Plain(method), false) => span.in_scope(|| method.begin(call)).map(|running| {
            let running = plain(
                Arc::clone(hub),
                name.clone(),
                filtered_value(hub, invoked, running),
            );
            Dispatched::Plain(running.instrument(span).boxed())
        }),
        (Target::Stream(method), true) => span.in_scope(|| method.begin(call)).map(|running| {
            let running = stream(
                Arc::clone(hub),
                name.clone(),
                filtered_stream(hub, invoked, running),
            );
            Dispatched::Stream(running.instrument(span).boxed())
        }),
        (Target::Stream(_), false) => {
            let text = format!(
                "The client attempted to invoke the streaming '{name}' method with a non-streaming invocation."
            );
            return refused(hub, InvocationLabel::BadArguments, text);
        }
        (Target::Plain(_), true) => {
            let text = format!(
                "The client attempted to invoke the non-streaming '{name}' method with a streaming invocation."
            );
            return refused(hub, InvocationLabel::BadArguments, text);
        }
    };
    bound.unwrap_or_else(|error| refused(hub, InvocationLabel::BadArguments, bind_error(hub, name, &error)))
}

type Running<T> = BoxFuture<'static, Result<T, HubError>>;

fn filtered_value(
    hub: &Arc<HubRuntime>,
    invoked: Option<Invoked>,
    running: Running<Value>,
) -> Running<Value> {
    let Some(invoked) = invoked else { return running };
    let running = running
        .map(|outcome| outcome.map(|value| Reply(ReplyKind::Value(value))))
        .boxed();
    let filtered = through_filters(Arc::clone(hub), invoked, running);
    filtered
        .map(|outcome| match outcome?.0 {
            ReplyKind::Value(value) => Ok(value),
            ReplyKind::Stream(_) => Err(HubError::new("a filter answered with a stream")),
        })
        .boxed()
}

fn filtered_stream(
    hub: &Arc<HubRuntime>,
    invoked: Option<Invoked>,
    running: Running<ValueStream>,
) -> Running<ValueStream> {
    let Some(invoked) = invoked else { return running };
    let running = running
        .map(|outcome| outcome.map(|items| Reply(ReplyKind::Stream(items))))
        .boxed();
    let filtered = through_filters(Arc::clone(hub), invoked, running);
    filtered
        .map(|outcome| match outcome?.0 {
            ReplyKind::Stream(items) => Ok(items),
            ReplyKind::Value(_) => Err(HubError::new("a filter answered without a stream")),
        })
        .boxed()
}

async fn through_filters(
    hub: Arc<HubRuntime>,
    invoked: Invoked,
    running: Running<Reply>,
) -> Result<Reply, HubError> {
    Next::new(hub.hub().filters(), running).run(&invoked).await
}

async fn plain(
    hub: Arc<HubRuntime>,
    name: String,
    running: BoxFuture<'static, Result<Value, HubError>>,
) -> InvocationOutcome {
    let began = tokio::time::Instant::now();
    let outcome = guarded(running).await;
    let metrics = hub.shared().metrics();
    metrics.invocation_seconds.observe(began.elapsed().as_secs_f64());
    metrics
        .invocations
        .get(if outcome.is_ok() {
            InvocationLabel::Ok
        } else {
            InvocationLabel::Error
        })
        .inc();
    outcome.map_err(|error| MethodFailure::of(&hub, &name, &error))
}

async fn stream(
    hub: Arc<HubRuntime>,
    name: String,
    running: BoxFuture<'static, Result<ValueStream, HubError>>,
) -> Result<ValueStream, MethodFailure> {
    let outcome = guarded(running).await;
    let label = if outcome.is_ok() {
        InvocationLabel::Ok
    } else {
        InvocationLabel::Error
    };
    hub.shared().metrics().invocations.get(label).inc();
    outcome.map_err(|error| MethodFailure::of(&hub, &name, &error))
}

fn bind_error(hub: &HubRuntime, name: &str, error: &BindError) -> String {
    if let BindError::Streams { .. } = error {
        return format!(
            "An unexpected error occurred invoking '{name}' on the server. HubException: {error}"
        );
    }
    let mut text = format!("Failed to invoke '{name}' due to an error on the server.");
    if hub.options().hubs.detailed_errors {
        text.push_str(" InvalidDataException: ");
        text.push_str(&error.to_string());
    }
    text
}

fn invocation_error(hub: &HubRuntime, name: &str, error: &HubError) -> String {
    log(hub, name, error);
    if let Some(text) = error.whole_text() {
        return text.to_owned();
    }
    let base = format!("An unexpected error occurred invoking '{name}' on the server.");
    with_suffix(hub, base, error)
}

/// The text for a stream that failed after it began.
pub(crate) fn stream_error(hub: &HubRuntime, name: &str, error: &HubError) -> String {
    log(hub, name, error);
    with_suffix(
        hub,
        "An error occurred on the server while streaming results.".to_owned(),
        error,
    )
}

fn with_suffix(hub: &HubRuntime, mut text: String, error: &HubError) -> String {
    if let Some(suffix) = error.client_suffix(hub.options().hubs.detailed_errors) {
        text.push_str(&suffix);
    }
    text
}

fn log(hub: &HubRuntime, method: &str, error: &HubError) {
    if error.is_theirs() {
        tracing::debug!(hub = %hub.name(), method, %error, "hub method refused");
    } else {
        tracing::error!(hub = %hub.name(), method, %error, "hub method failed");
    }
}
