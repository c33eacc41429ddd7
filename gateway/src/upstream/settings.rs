//! The settings of handlers, as files and applications write them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::template::UrlTemplate;
use crate::options::seconds;

/// The headers that only Hubcast itself may set, in lower case, besides those that begin with `ce-` and `x-asrs-`.
const OWN_HEADERS: [&str; 8] = [
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "transfer-encoding",
    "webhook-request-origin",
    "x-hubcast-event-id",
];
/// Most bytes of an answer that any setting may allow: the bound of Azure's services.
const MOST_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// Longest time-out of a call.
const MOST_TIMEOUT: Duration = Duration::from_secs(230);

/// The wire form in which a handler is called.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The upstream form of Azure SignalR Service in serverless mode: the client's invocation is the body, a completion
    /// the answer.
    SignalR,
    /// The event handler form of Azure Web PubSub: CloudEvents 1.0 in binary mode, with abuse protection.
    CloudEvents,
}

impl Form {
    /// The name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SignalR => "signalr",
            Self::CloudEvents => "cloudevents",
        }
    }
}

/// The categories of calls to handlers of the form [`SignalR`](Form::SignalR).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// `connected` and `disconnected`.
    Connections,
    /// Invocations of clients; the event is their target.
    Messages,
}

impl Category {
    /// The name in the configuration, and on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Messages => "messages",
        }
    }
}

/// The events of connections that handlers of the form [`CloudEvents`](Form::CloudEvents) may ask for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SystemEvent {
    /// A client wants to connect, and waits for the answer.
    Connect,
    /// A client has connected.
    Connected,
    /// A connection has ended.
    Disconnected,
    /// A connection has joined a group.
    Joined,
    /// A connection has left a group.
    Left,
}

impl SystemEvent {
    /// The name in the configuration, and on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Joined => "joined",
            Self::Left => "left",
        }
    }
}

/// One handler: where it is, what it is called for, and how long that may take.
///
/// ```
/// use hubcast::upstream::{Form, HandlerSettings};
///
/// let handler = HandlerSettings {
///     url: "https://app.example.org/hubs/{hub}/{event}".into(),
///     form: Some(Form::CloudEvents),
///     ..HandlerSettings::default()
/// };
/// assert_eq!(handler.check(), Ok(()));
/// ```
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HandlerSettings {
    /// The name in logs and metrics; its host unless set.
    pub name: Option<String>,
    /// The hubs that it is for: names, or `*` for all.
    pub hubs: Vec<String>,
    /// An absolute `http` or `https` URL, in which `{hub}`, `{category}` and `{event}` are replaced, percent-encoded. They
    /// may not stand in the host. It may hold a secret in its query.
    pub url: SecretString,
    /// How it is called.
    pub form: Option<Form>,
    /// The invocations or user events that it is called for: names, or `*` for all.
    pub events: Vec<String>,
    /// [`SignalR`](Form::SignalR) alone: the categories that it is called for; both unless set.
    pub categories: Option<Vec<Category>>,
    /// [`CloudEvents`](Form::CloudEvents) alone: the events of connections that it is called for; none unless set.
    pub system_events: Vec<SystemEvent>,
    /// How long a call may take in all, with waiting, connecting and reading the answer.
    #[serde(rename = "timeout_seconds", deserialize_with = "seconds")]
    pub timeout: Duration,
    /// Calls at the same time, for each hub.
    pub concurrency: usize,
    /// Calls of clients that may wait for a place, for each hub; ten times as many events of connections may wait.
    pub queue: usize,
    /// Largest answer, in bytes.
    pub answer_bytes: usize,
    /// More headers of each request, such as `Authorization`. Their values are secrets.
    pub headers: BTreeMap<String, SecretString>,
    /// Keys that sign its requests in place of the access keys, so that it need not hold a key that makes tokens.
    pub keys: Vec<SecretString>,
    /// Certificates (PEM) to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// A certificate with its key (PEM), by which the gateway proves who it is (mTLS).
    pub identity_file: Option<PathBuf>,
    /// Roles that an answer to `connect` may give: names, or beginnings with a `*` after them.
    pub allow_roles: Vec<String>,
    /// Groups that an answer to `connect` may name: the same.
    pub allow_groups: Vec<String>,
    /// True if protobuf data is sent as `application/octet-stream`, which Azure's middlewares can read, instead of
    /// `application/x-protobuf`, which they refuse.
    pub protobuf_as_binary: bool,
}

impl Default for HandlerSettings {
    fn default() -> Self {
        let all = || vec!["*".to_owned()];
        Self {
            name: None,
            hubs: all(),
            url: SecretString::default(),
            form: None,
            events: all(),
            categories: None,
            system_events: Vec::new(),
            timeout: Duration::from_secs(10),
            concurrency: 64,
            queue: 1_000,
            answer_bytes: 1024 * 1024,
            headers: BTreeMap::new(),
            keys: Vec::new(),
            ca_file: None,
            identity_file: None,
            allow_roles: vec!["hubcast.*".to_owned(), "webpubsub.*".to_owned()],
            allow_groups: all(),
            protobuf_as_binary: false,
        }
    }
}

/// A setting of a handler that can't work.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{key} {problem}")]
pub struct SettingError {
    /// The setting's name, such as `url`.
    pub key: &'static str,
    /// The problem, and how to fix it.
    pub problem: String,
}

fn wrong(key: &'static str, problem: impl Into<String>) -> SettingError {
    SettingError {
        key,
        problem: problem.into(),
    }
}

impl HandlerSettings {
    /// Checks what can be checked without files and network.
    ///
    /// # Errors
    /// The first setting that can't work.
    pub fn check(&self) -> Result<(), SettingError> {
        let Some(form) = self.form else {
            return Err(wrong("form", "is missing: signalr or cloudevents"));
        };
        self.template()?;
        match form {
            Form::SignalR if !self.system_events.is_empty() => {
                let problem = "is for form = \"cloudevents\" alone; here categories = [\"connections\"] asks for connected and disconnected";
                return Err(wrong("system_events", problem));
            }
            Form::CloudEvents if self.categories.is_some() => {
                let problem =
                    "is for form = \"signalr\" alone; here system_events names the events of connections";
                return Err(wrong("categories", problem));
            }
            _ => {}
        }
        if self.hubs.is_empty() {
            return Err(wrong(
                "hubs",
                "is empty: no hub would call it; leave it out for all",
            ));
        }
        if self.asks_for_nothing() {
            return Err(wrong("events", "leaves nothing that it would be called for"));
        }
        self.check_bounds()?;
        for (name, value) in &self.headers {
            check_header(name, value.expose_secret())?;
        }
        if self.keys.iter().any(|key| key.expose_secret().is_empty()) {
            return Err(wrong("keys", "holds an empty key"));
        }
        for (key, patterns) in [
            ("allow_roles", &self.allow_roles),
            ("allow_groups", &self.allow_groups),
        ] {
            if let Some(bad) = patterns.iter().find(|pattern| star_within(pattern)) {
                return Err(wrong(key, format!("has {bad:?}: a * may stand at the end alone")));
            }
        }
        Ok(())
    }

    fn check_bounds(&self) -> Result<(), SettingError> {
        if self.timeout.is_zero() || self.timeout > MOST_TIMEOUT {
            let most = MOST_TIMEOUT.as_secs();
            return Err(wrong(
                "timeout_seconds",
                format!("must be more than 0 and at most {most}"),
            ));
        }
        if self.concurrency == 0 || self.concurrency > 10_000 {
            return Err(wrong("concurrency", "must be from 1 to 10000"));
        }
        if self.queue > 1_000_000 {
            return Err(wrong("queue", "must be at most 1000000"));
        }
        if self.answer_bytes == 0 || self.answer_bytes > MOST_ANSWER_BYTES {
            return Err(wrong(
                "answer_bytes",
                format!("must be from 1 to {MOST_ANSWER_BYTES}"),
            ));
        }
        Ok(())
    }

    fn asks_for_nothing(&self) -> bool {
        match self.form {
            Some(Form::CloudEvents) => self.events.is_empty() && self.system_events.is_empty(),
            _ => self.events.is_empty() || self.categories.as_ref().is_some_and(Vec::is_empty),
        }
    }

    pub(super) fn template(&self) -> Result<UrlTemplate, SettingError> {
        UrlTemplate::parse(self.url.expose_secret()).map_err(|problem| wrong("url", problem.to_string()))
    }

    /// The name in logs and metrics.
    #[must_use]
    pub fn label(&self) -> String {
        let host = || Some(self.template().ok()?.host());
        self.name.clone().or_else(host).unwrap_or_default()
    }

    /// Returns whether the handler is for that hub.
    #[must_use]
    pub fn is_for(&self, hub: &str) -> bool {
        self.hubs
            .iter()
            .any(|name| name == "*" || name.eq_ignore_ascii_case(hub))
    }

    /// The hubs that it names, without `*`.
    pub fn named_hubs(&self) -> impl Iterator<Item = &str> {
        self.hubs.iter().map(String::as_str).filter(|name| *name != "*")
    }

    /// Returns whether it is called for that event of connections.
    pub(super) fn wants_system(&self, event: SystemEvent) -> bool {
        match self.form {
            Some(Form::CloudEvents) => self.system_events.contains(&event),
            _ => {
                matches!(event, SystemEvent::Connected | SystemEvent::Disconnected)
                    && self.has_category(Category::Connections)
                    && matches_any(&self.events, event.name(), true)
            }
        }
    }

    /// Returns whether it is called for an invocation or user event of that name.
    pub(super) fn wants_message(&self, event: &str) -> bool {
        match self.form {
            Some(Form::CloudEvents) => matches_any(&self.events, event, false),
            _ => self.has_category(Category::Messages) && matches_any(&self.events, event, true),
        }
    }

    /// Returns whether it is called for any message.
    #[must_use]
    pub fn takes_messages(&self) -> bool {
        match self.form {
            Some(Form::CloudEvents) => !self.events.is_empty(),
            _ => self.has_category(Category::Messages) && !self.events.is_empty(),
        }
    }

    fn has_category(&self, category: Category) -> bool {
        self.categories
            .as_ref()
            .is_none_or(|categories| categories.contains(&category))
    }

    /// Returns whether an answer to `connect` may give that role.
    pub(super) fn allows_role(&self, role: &str) -> bool {
        begins_any(&self.allow_roles, role)
    }

    /// Returns whether an answer to `connect` may name that group.
    pub(super) fn allows_group(&self, group: &str) -> bool {
        begins_any(&self.allow_groups, group)
    }

    /// Returns whether two say the same, secrets included.
    pub(super) fn same(&self, other: &Self) -> bool {
        let secrets = |keys: &[SecretString]| -> Vec<String> {
            keys.iter().map(|key| key.expose_secret().to_owned()).collect()
        };
        let headers = |map: &BTreeMap<String, SecretString>| -> Vec<(String, String)> {
            let pair =
                |(name, value): (&String, &SecretString)| (name.clone(), value.expose_secret().to_owned());
            map.iter().map(pair).collect()
        };
        format!("{self:?}") == format!("{other:?}")
            && self.url.expose_secret() == other.url.expose_secret()
            && secrets(&self.keys) == secrets(&other.keys)
            && headers(&self.headers) == headers(&other.headers)
    }

    /// The URL without what may be secret: values of its query.
    #[must_use]
    pub fn shown_url(&self) -> String {
        let url = self.url.expose_secret();
        let Some((path, query)) = url.split_once('?') else {
            return url.to_owned();
        };
        let hidden = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, value)) if !value.contains('{') => format!("{name}=***"),
            _ => pair.to_owned(),
        });
        format!("{path}?{}", hidden.collect::<Vec<_>>().join("&"))
    }
}

impl fmt::Debug for HandlerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerSettings")
            .field("name", &self.name)
            .field("hubs", &self.hubs)
            .field("url", &self.shown_url())
            .field("form", &self.form)
            .field("events", &self.events)
            .field("categories", &self.categories)
            .field("system_events", &self.system_events)
            .field("timeout", &self.timeout)
            .field("concurrency", &self.concurrency)
            .field("queue", &self.queue)
            .field("answer_bytes", &self.answer_bytes)
            .field("headers", &self.headers.keys())
            .field("keys", &self.keys.len())
            .field("ca_file", &self.ca_file)
            .field("identity_file", &self.identity_file)
            .field("allow_roles", &self.allow_roles)
            .field("allow_groups", &self.allow_groups)
            .field("protobuf_as_binary", &self.protobuf_as_binary)
            .finish()
    }
}

fn matches_any(patterns: &[String], name: &str, exact: bool) -> bool {
    patterns.iter().any(|pattern| {
        pattern == "*"
            || if exact {
                pattern == name
            } else {
                pattern.eq_ignore_ascii_case(name)
            }
    })
}

fn begins_any(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    })
}

fn star_within(pattern: &str) -> bool {
    pattern.strip_suffix('*').unwrap_or(pattern).contains('*')
}

fn check_header(name: &str, value: &str) -> Result<(), SettingError> {
    let lower = name.to_ascii_lowercase();
    if HeaderName::from_bytes(lower.as_bytes()).is_err() {
        return Err(wrong(
            "headers",
            format!("has {name:?}, which is no name of a header"),
        ));
    }
    if OWN_HEADERS.contains(&&*lower) || lower.starts_with("ce-") || lower.starts_with("x-asrs-") {
        return Err(wrong(
            "headers",
            format!("has {name:?}, which Hubcast sets itself"),
        ));
    }
    if HeaderValue::from_str(value).is_err() {
        return Err(wrong(
            "headers",
            format!("has a value for {name:?} that no header may have"),
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
