//! Abuse protection of CloudEvents webhooks: a handler is asked once whether it wants requests of this gateway.
//!
//! Without its word no event is sent there, so that nobody can have a gateway send requests to a host of others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::{Method, Url};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout};

use super::breaker::PAUSE;
use super::call_error::Fault;
use super::handler::{Handler, PublicHost, WebhookRequest};
use crate::telemetry::upstream::UpstreamMetrics;

/// The header that names the gateway.
pub(super) const REQUEST_ORIGIN: &str = "webhook-request-origin";
/// The header that names who may send.
const ALLOWED_ORIGIN: &str = "webhook-allowed-origin";
/// The header without which Azure's middlewares answer nothing.
pub(super) const VERSION: &str = "ce-awpsversion";
/// How long a yes counts.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// How long it is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Waits after a no, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The longest wait where the handler said nothing, as it does while it is restarted.
const AGAIN_AFTER_SILENCE: Duration = PAUSE;
/// URLs that are known at most: a template without `{event}` has one for each hub.
const MOST_URLS: usize = 256;

/// The URLs of one handler, with the outcome of their validation.
#[derive(Default)]
pub(super) struct Validations {
    urls: Mutex<HashMap<Url, Arc<Validation>>>,
}

/// The outcome of one URL's validation.
#[derive(Default)]
struct Validation {
    state: Mutex<ConsentState>,
    /// Held by the one caller that asks.
    asking: AsyncMutex<()>,
}

#[derive(Default, Clone)]
struct ConsentState {
    /// When it last said yes.
    allowed: Option<Instant>,
    /// The last no, with when it may be asked again, and the wait that led there.
    refused: Option<(Fault, Instant, Duration)>,
}

/// The reason why a handler did not say yes.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Unconsented {
    /// It said nothing.
    #[error("{0}")]
    Unsure(Fault),
    /// It said no, or something else.
    #[error("{0}")]
    No(NoConsent),
}

/// The part that is missing to a handler's word that it wants requests, for operators.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum NoConsent {
    #[error("server.public_host is not set: it is the host that the handler allows")]
    NoPublicHost,
    #[error("it answered OPTIONS with status {}{}", .0.as_u16(), status_hint(*.0))]
    Status(StatusCode),
    #[error("its answer to OPTIONS has no WebHook-Allowed-Origin: is it a handler of Web PubSub events?")]
    NoOrigin,
    #[error(
        "it allows {allowed}, and this gateway is {own}: server.public_host must be the host that the application's \
         connection string names"
    )]
    OtherOrigins {
        /// The origins, with commas between them.
        allowed: String,
        own: String,
    },
}

fn status_hint(status: StatusCode) -> &'static str {
    match status.as_u16() {
        300..=399 => ": redirects are not followed, set the final URL",
        400 => ": it does not allow the host of server.public_host",
        401 | 403 => ": a function app wants its key in the URL (?code=…)",
        404 => ": is the path right?",
        _ => "",
    }
}

impl From<Unconsented> for Fault {
    fn from(refused: Unconsented) -> Self {
        match refused {
            Unconsented::Unsure(fault) => fault,
            Unconsented::No(consent) => Self {
                for_client: "it does not allow requests of this gateway".to_owned(),
                why: consent.to_string(),
            },
        }
    }
}

impl Validations {
    fn of(&self, url: &Url) -> Arc<Validation> {
        let mut urls = self.urls.lock();
        if urls.len() >= MOST_URLS && !urls.contains_key(url) {
            urls.clear(); // they are asked anew
        }
        Arc::clone(urls.entry(url.clone()).or_default())
    }
}

impl Handler {
    /// Asks the handler for its word, unless it gave it lately. The error says what is wrong.
    pub(super) async fn validated(
        self: &Arc<Self>,
        metrics: &Arc<UpstreamMetrics>,
        url: Url,
    ) -> Result<(), Fault> {
        let known = self.validations.of(&url);
        let state = known.state.lock().clone();
        match state.allowed {
            Some(at) if at.elapsed() < GOOD_FOR => return Ok(()),
            // It is asked again beside the events, which go on.
            Some(_) => {
                let (handler, metrics) = (Arc::clone(self), Arc::clone(metrics));
                tokio::spawn(async move { handler.refresh(&known, &metrics, url).await });
                return Ok(());
            }
            None => {}
        }
        let _one = known.asking.lock().await; // others wait for the same answer
        let state = known.state.lock().clone();
        if state.allowed.is_some() {
            return Ok(());
        }
        if let Some((fault, until, _)) = state.refused
            && Instant::now() < until
        {
            return Err(fault);
        }
        self.note(&known, metrics, url).await.map_err(Fault::from)
    }

    async fn refresh(&self, known: &Validation, metrics: &UpstreamMetrics, url: Url) {
        let Ok(_one) = known.asking.try_lock() else { return };
        if known
            .state
            .lock()
            .allowed
            .is_none_or(|at| at.elapsed() >= GOOD_FOR)
            && let Err(Unconsented::No(consent)) = self.note(known, metrics, url).await
        {
            tracing::warn!(
                handler = self.label,
                why = %consent,
                "a handler no longer allows requests of this gateway"
            );
        }
    }

    async fn note(&self, known: &Validation, metrics: &UpstreamMetrics, url: Url) -> Result<(), Unconsented> {
        let outcome = self.ask(metrics, url).await;
        let mut state = known.state.lock();
        match &outcome {
            // It said yes before: an outage takes nothing back.
            Err(Unconsented::Unsure(_)) if state.allowed.is_some() => {}
            Ok(()) => {
                *state = ConsentState {
                    allowed: Some(Instant::now()),
                    refused: None,
                }
            }
            Err(refused) => {
                let longest = match refused {
                    Unconsented::No(_) => AGAIN.1,
                    Unconsented::Unsure(_) => AGAIN_AFTER_SILENCE,
                };
                let wait = state
                    .refused
                    .as_ref()
                    .map_or(AGAIN.0, |(_, _, wait)| (*wait * 2).min(longest));
                *state = ConsentState {
                    allowed: None,
                    refused: Some((refused.clone().into(), Instant::now() + wait, wait)),
                }
            }
        }
        outcome
    }

    /// Sends the request of abuse protection. The error says what is wrong with the answer, and what to do.
    pub(super) async fn ask(&self, metrics: &UpstreamMetrics, url: Url) -> Result<(), Unconsented> {
        let Some(own) = &self.public_host else {
            return Err(Unconsented::No(NoConsent::NoPublicHost));
        };
        let asking = async {
            let first = self.options(metrics, Method::OPTIONS, url.clone(), own).await?;
            if first.0 != StatusCode::NOT_FOUND {
                return Ok(first);
            }
            self.options(metrics, Method::GET, url, own).await
        };
        let (status, headers) = match timeout(PATIENCE, asking).await {
            Ok(answered) => answered?,
            Err(_) => {
                let silent = format_args!("it did not answer OPTIONS within {PATIENCE:?}");
                return Err(Unconsented::Unsure(Fault::public(silent)));
            }
        };
        if !status.is_success() {
            return Err(Unconsented::No(NoConsent::Status(status)));
        }
        let allowed: Vec<_> = headers
            .get_all(ALLOWED_ORIGIN)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .collect();
        if allowed.iter().any(|allowed| own.is_allowed_by(allowed)) {
            return Ok(());
        }
        Err(Unconsented::No(match allowed.as_slice() {
            [] => NoConsent::NoOrigin,
            allowed => NoConsent::OtherOrigins {
                allowed: allowed.join(", "),
                own: own.to_string(),
            },
        }))
    }

    async fn options(
        &self,
        metrics: &UpstreamMetrics,
        method: Method,
        url: Url,
        own: &PublicHost,
    ) -> Result<(StatusCode, HeaderMap), Unconsented> {
        let mut headers = HeaderMap::new();
        headers.insert(VERSION, HeaderValue::from_static("1.0"));
        if let Ok(host) = HeaderValue::from_str(&own.host) {
            headers.insert(REQUEST_ORIGIN, host);
        }
        let request = WebhookRequest {
            method,
            url,
            headers,
            body: Bytes::new(),
        };
        match self.call(metrics, request).await {
            Ok(answer) => Ok((answer.status, answer.headers)),
            Err(error) => Err(Unconsented::Unsure((&error).into())),
        }
    }
}

impl PublicHost {
    /// Reads `host` or `host:port`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(&format!("http://{text}/")).ok()?;
        let bare = url.username().is_empty() && url.password().is_none();
        let bare = bare && url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let port = match text.rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => Some(port.parse().ok()?),
            _ => None,
        };
        Some(Self {
            host: url.host_str().filter(|_| bare)?.to_owned(),
            port,
        })
    }

    /// Returns whether an allowed origin means this host. A port counts where both have one.
    fn is_allowed_by(&self, allowed: &str) -> bool {
        if allowed == "*" {
            return true;
        }
        Self::parse(allowed).is_some_and(|allowed| {
            allowed.host.eq_ignore_ascii_case(&self.host)
                && (allowed.port.is_none() || self.port.is_none() || allowed.port == self.port)
        })
    }
}

impl std::fmt::Display for PublicHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_as_the_middlewares_write_them() {
        let own = PublicHost::parse("Chat.Example.org:8080").unwrap();
        assert_eq!(own.host, "chat.example.org");
        for allowed in ["*", "chat.example.org", "CHAT.example.org:8080"] {
            assert!(own.is_allowed_by(allowed), "{allowed}");
        }
        for other in [
            "",
            "example.org",
            "chat.example.org:81",
            "http://chat.example.org",
            "chat.example.org/x",
        ] {
            assert!(!own.is_allowed_by(other), "{other}");
        }
        let bare = PublicHost::parse("127.0.0.1").unwrap();
        assert!(bare.is_allowed_by("127.0.0.1:8080"));
        let six = PublicHost::parse("[::1]:80").unwrap();
        assert_eq!((six.host.as_str(), six.port), ("[::1]", Some(80)));
        for bad in ["", "a b", "http://a", "a/b", "a:b", "u@a", "a?x"] {
            assert_eq!(PublicHost::parse(bad), None, "{bad}");
        }
    }
}
