//! Applications in any language behind a hub: their handlers are called by HTTP.
//!
//! A handler is asked when a client wants to connect, is told when one has connected and when a connection has ended, and
//! answers the calls and messages of clients. It is called in one of two [forms](Form), which are those of Azure SignalR
//! Service and of Azure Web PubSub: their server libraries work as they are.
//!
//! | client | handler of the form `signalr` | of the form `cloudevents` |
//! | --- | --- | --- |
//! | SignalR | its invocation, in its own protocol | the arguments as one JSON array; text, JSON or bytes answered are the result |
//! | Web PubSub, plain WebSocket | an invocation in JSON: the event's name, the data as the only argument | the data as it is |
//!
//! Every kind of client raises `connected` and `disconnected` in both forms. `connect` is asked for clients of WebSockets that
//! do not speak SignalR, and for event streams; on a hub whose handlers want it, SignalR clients are refused: their token
//! alone decides about them, at negotiation, and a hub with two kinds of admission would have none.
//!
//! ```
//! use hubcast::Hub;
//! use hubcast::upstream::{Form, HandlerSettings, Upstream, UpstreamOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let upstream = Upstream::new(&UpstreamOptions {
//!     handlers: vec![HandlerSettings {
//!         url: "http://127.0.0.1:7071/runtime/webhooks/signalr".into(),
//!         form: Some(Form::SignalR),
//!         ..HandlerSettings::default()
//!     }],
//!     keys: vec!["an access key of at least 32 bytes".into()],
//!     ..UpstreamOptions::default()
//! })?;
//! let hub = Hub::new("chat").upstream(&upstream);
//! # Ok(())
//! # }
//! ```

mod breaker;
mod call_error;
mod carried;
mod cloudevents;
mod connect;
mod deliver;
mod handler;
mod line;
mod of_hub;
mod origin;
mod relay;
mod settings;
mod signalr;
mod signature;
mod template;
mod tls;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use secrecy::SecretString;

use handler::{Handler, PublicHost};
use of_hub::HubUpstream;
pub use settings::{Category, Form, HandlerSettings, SettingError, SystemEvent};

use crate::hub::Hub;
use crate::telemetry::upstream::UpstreamMetrics;

/// The parts of an [`Upstream`].
#[derive(Clone, Debug, Default)]
pub struct UpstreamOptions {
    /// The handlers: of those that want an event of a hub, the first one gets it.
    pub handlers: Vec<HandlerSettings>,
    /// The keys that sign requests, unless a handler has its own: the access keys.
    pub keys: Vec<SecretString>,
    /// The host by which clients know the gateway, with or without port: it is the one in applications' connection strings.
    /// Handlers of the form [`CloudEvents`](Form::CloudEvents) are told it without port, and must allow it.
    pub public_host: Option<String>,
}

/// The reason why handlers can't be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct UpstreamError {
    /// The setting, such as `upstream[0].url` or `server.public_host`.
    pub key: String,
    /// The problem, and how to fix it.
    pub problem: String,
}

/// Handlers for the hubs of a gateway. Cheap to clone.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

struct Inner {
    state: Mutex<UpstreamState>,
}

struct UpstreamState {
    handlers: Arc<[Handler]>,
    hubs: HashMap<String, Arc<HubUpstream>>,
}

/// The outcome of asking one handler whether it wants requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The handler's name.
    pub handler: String,
    /// The hub that it was asked for.
    pub hub: String,
    /// The problem, if there is one, and what to do.
    pub problem: Option<String>,
}

impl Upstream {
    /// # Errors
    /// The first setting that can't work, or file that can't be read.
    pub fn new(options: &UpstreamOptions) -> Result<Self, UpstreamError> {
        let handlers = handlers(options)?;
        let hubs = HashMap::new();
        Ok(Self(Arc::new(Inner {
            state: Mutex::new(UpstreamState { handlers, hubs }),
        })))
    }

    /// Goes on with other settings. Calls that run come to their end with the former ones; a handler whose settings are as
    /// before keeps its connections, queues and breaker.
    ///
    /// # Errors
    /// As for [`new`](Self::new); nothing has changed then.
    pub fn reload(&self, options: &UpstreamOptions) -> Result<(), UpstreamError> {
        let handlers = handlers(options)?;
        let mut state = self.0.state.lock();
        // A hub's own methods, or their absence, are fixed when it is built.
        if let Some(hub) = state.hubs.values().find(|hub| !hub.may_have(&handlers)) {
            return Err(UpstreamError {
                key: "upstream".to_owned(),
                problem: format!(
                    "hub {:?} begins or ends to have a handler for messages, or begins to have one for connected or disconnected; that takes a restart",
                    hub.name()
                ),
            });
        }
        for hub in state.hubs.values() {
            hub.take(&handlers);
        }
        state.handlers = handlers;
        Ok(())
    }

    /// Returns whether a handler of that hub is called for messages. Such a hub should have no methods that its
    /// application does not know of.
    #[must_use]
    pub fn takes_messages(&self, hub: &str) -> bool {
        let state = self.0.state.lock();
        let mut handlers = state.handlers.iter();
        handlers.any(|handler| handler.settings.is_for(hub) && handler.settings.takes_messages())
    }

    /// Returns whether any handler is for that hub.
    #[must_use]
    pub fn is_for(&self, hub: &str) -> bool {
        let state = self.0.state.lock();
        state.handlers.iter().any(|handler| handler.settings.is_for(hub))
    }

    /// Asks the handlers of these hubs that need it for their word that they want requests, as abuse protection has it.
    pub async fn ask(&self, hubs: &[String]) -> Vec<Asked> {
        let handlers = Arc::clone(&self.0.state.lock().handlers);
        let metrics = UpstreamMetrics::default();
        let mut all = Vec::new();
        for handler in handlers
            .iter()
            .filter(|handler| handler.form == Form::CloudEvents)
        {
            for hub in hubs.iter().filter(|hub| handler.settings.is_for(hub)) {
                let problem = match cloudevents::validation_url(handler, hub) {
                    Ok(url) => handler
                        .ask(&metrics, url)
                        .await
                        .err()
                        .map(|refused| refused.to_string()),
                    Err(error) => Some(error.to_string()),
                };
                all.push(Asked {
                    handler: handler.label.clone(),
                    hub: hub.clone(),
                    problem,
                });
            }
        }
        all
    }

    /// The handlers of a hub.
    fn of_hub(&self, hub: &str) -> Arc<HubUpstream> {
        let mut state = self.0.state.lock();
        let handlers = Arc::clone(&state.handlers);
        let of_hub = state.hubs.entry(hub.to_owned());
        Arc::clone(of_hub.or_insert_with(|| Arc::new(HubUpstream::new(hub, &handlers))))
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        let handlers: Vec<_> = state.handlers.iter().map(|handler| &handler.settings).collect();
        f.debug_struct("Upstream")
            .field("handlers", &handlers)
            .finish_non_exhaustive()
    }
}

fn handlers(options: &UpstreamOptions) -> Result<Arc<[Handler]>, UpstreamError> {
    let public_host = options.public_host.as_deref().map(|host| {
        PublicHost::parse(host).ok_or_else(|| UpstreamError {
            key: "server.public_host".to_owned(),
            problem: format!(
                "{host:?} is not a host such as chat.example.org or chat.example.org:8443 (no scheme)"
            ),
        })
    });
    let public_host = public_host.transpose()?;
    let made = options.handlers.iter().enumerate().map(|(index, settings)| {
        if settings.form == Some(Form::CloudEvents) && public_host.is_none() {
            return Err(UpstreamError {
                key: "server.public_host".to_owned(),
                problem: format!(
                    "is not set, and upstream[{index}] needs it: the host that the application's connection string names"
                ),
            });
        }
        Handler::new(settings, &options.keys, public_host.as_ref()).map_err(|error| UpstreamError {
            key: format!("upstream[{index}].{}", error.key),
            problem: error.problem,
        })
    });
    made.collect()
}

impl Hub {
    /// Has the application's handlers serve the hub: calls that none of its own methods serves go to them, and they are
    /// asked and told about connections as they want. Hooks that the hub has run besides.
    #[must_use]
    pub fn upstream(self, upstream: &Upstream) -> Self {
        let own = upstream.of_hub(self.name());
        let (connecting, groups, events) = (Arc::clone(&own), Arc::clone(&own), Arc::clone(&own));
        self.fallback(move |relayed: relay::Relayed| {
            let own = Arc::clone(&own);
            async move { own.relay(relayed).await }
        })
        .on_connect(Arc::new(connecting))
        .on_events(Arc::new(events))
        .on_group_change(Box::new(move |context, group, joined| {
            groups.group_changed(context, group, joined);
        }))
    }
}
