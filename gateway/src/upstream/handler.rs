//! One handler as one hub of this node calls it: its connections, its places and queues, its breaker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::futures::Notified;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout_at};

use super::breaker::{Breaker, BreakerOpen, FAILURES};
use super::call_error::{CallError, chain, works};
use super::origin::Validations;
use super::settings::{Form, HandlerSettings};
use super::template::UrlTemplate;
use crate::telemetry::upstream::{InGauge, UpstreamLabels, UpstreamMetrics};

/// How long establishing a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Waits between the tries of a request that may be repeated.
pub(super) const RETRIES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(5),
];
/// Events of connections that may wait for each call that may.
const EVENTS_PER_CALL: usize = 10;
/// Bytes of answers that are being read, of one handler and hub.
pub(super) const HELD_BYTES: usize = 64 * 1024 * 1024;
/// Answers up to here are not charged.
const SMALL_ANSWER: usize = 64 * 1024;

/// A handler.
pub(super) struct Handler {
    pub(super) settings: HandlerSettings,
    pub(super) form: Form,
    /// The name in logs and metrics.
    pub(super) label: String,
    pub(super) template: UrlTemplate,
    /// The keys that sign its requests.
    pub(super) keys: Vec<SecretString>,
    /// The host that clients know the gateway by, without port, and with it where it has one.
    pub(super) public_host: Option<PublicHost>,
    pub(super) validations: Validations,
    headers: HeaderMap,
    /// The contents of its files, to notice changes.
    pems: Vec<Vec<u8>>,
    client: reqwest::Client,
    load: Load,
}

/// The calls of one handler for one hub.
struct Load {
    places: Semaphore,
    /// Calls that wait for a place.
    waiting: AtomicUsize,
    /// Events of connections that wait for their handler.
    events: AtomicUsize,
    /// Bytes of large answers that are being read.
    held: AtomicUsize,
    breaker: Breaker,
    /// Counts the open breaker, also to the end of a handler that a reload replaces.
    opened: Mutex<Option<InGauge>>,
}

impl Load {
    fn of(settings: &HandlerSettings) -> Self {
        Self {
            places: Semaphore::new(settings.concurrency),
            waiting: AtomicUsize::new(0),
            events: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            breaker: Breaker::default(),
            opened: Mutex::default(),
        }
    }
}

/// The host by which clients, and the applications' connection strings, know the gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PublicHost {
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

/// A request to a handler.
#[derive(Clone)]
pub(super) struct WebhookRequest {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A handler's answer.
#[derive(Debug)]
pub(super) struct WebhookAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// The reason why a handler can't be used at all.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {problem}")]
pub(super) struct BuildError {
    pub(super) key: &'static str,
    pub(super) problem: String,
}

impl Handler {
    pub(super) fn new(
        settings: &HandlerSettings,
        access_keys: &[SecretString],
        public_host: Option<&PublicHost>,
    ) -> Result<Self, BuildError> {
        let bad = |error: super::SettingError| BuildError {
            key: error.key,
            problem: error.problem,
        };
        settings.check().map_err(bad)?;
        let own = Some(settings.keys.as_slice()).filter(|keys| !keys.is_empty());
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            let name = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes());
            if let (Ok(name), Ok(mut value)) = (name, HeaderValue::from_str(value.expose_secret())) {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        let (client, pems) = client(settings)?;
        Ok(Self {
            form: settings.form.unwrap_or(Form::SignalR), // checked
            label: settings.label(),
            template: settings.template().map_err(bad)?,
            keys: own.unwrap_or(access_keys).to_vec(),
            public_host: public_host.cloned(),
            validations: Validations::default(),
            headers,
            client,
            pems,
            load: Load::of(settings),
            settings: settings.clone(),
        })
    }

    /// The same handler for another hub, with queues and places of its own.
    pub(super) fn another(&self) -> Self {
        Self {
            settings: self.settings.clone(),
            form: self.form,
            label: self.label.clone(),
            template: self.template.clone(),
            keys: self.keys.clone(),
            public_host: self.public_host.clone(),
            validations: Validations::default(),
            headers: self.headers.clone(),
            client: self.client.clone(),
            pems: self.pems.clone(),
            load: Load::of(&self.settings),
        }
    }

    /// Returns whether another one would do the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let keys = |keys: &[SecretString]| -> Vec<String> {
            keys.iter().map(|key| key.expose_secret().to_owned()).collect()
        };
        self.settings.same(&other.settings)
            && self.pems == other.pems
            && self.public_host == other.public_host
            && keys(&self.keys) == keys(&other.keys)
    }

    /// Takes a place among the waiting events of connections, if there is one left.
    pub(super) fn queue_event(&self) -> Option<Counted<'_>> {
        let most = self
            .settings
            .queue
            .saturating_mul(EVENTS_PER_CALL)
            .max(EVENTS_PER_CALL);
        Counted::within(&self.load.events, most)
    }

    /// Returns whether the handler is not called, because it failed call after call.
    pub(super) fn is_left_alone(&self) -> bool {
        self.load.breaker.refuses()
    }

    /// Waits until the handler is not left alone any more.
    pub(super) async fn is_called_again(&self) {
        self.load.breaker.lets_through().await;
    }

    /// Waits until the handler, which was left alone, has answered a call. Counts from this call.
    pub(super) fn works_again(&self) -> Notified<'_> {
        self.load.breaker.closes()
    }

    /// Sends a request and reads the answer, within the handler's time-out from now.
    pub(super) async fn call(
        &self,
        metrics: &UpstreamMetrics,
        request: WebhookRequest,
    ) -> Result<WebhookAnswer, CallError> {
        let end = Instant::now() + self.settings.timeout;
        self.call_until(metrics, request, end).await
    }

    /// As [`call`](Self::call). A request that no handler can have read is tried again until `end`.
    pub(super) async fn call_patiently(
        &self,
        metrics: &UpstreamMetrics,
        request: WebhookRequest,
        end: Instant,
    ) -> Result<WebhookAnswer, CallError> {
        let mut waits = RETRIES.into_iter();
        loop {
            let failed = match self.call_until(metrics, request.clone(), end).await {
                Err(CallError::Unreachable(reason)) => CallError::Unreachable(reason),
                answered => return answered,
            };
            match waits.next() {
                Some(wait) if Instant::now() + wait < end && !self.load.breaker.is_open() => {
                    sleep(wait).await;
                }
                _ => return Err(failed),
            }
        }
    }

    pub(super) async fn call_until(
        &self,
        metrics: &UpstreamMetrics,
        request: WebhookRequest,
        end: Instant,
    ) -> Result<WebhookAnswer, CallError> {
        let begun = Instant::now();
        let labels = UpstreamLabels::of(&self.label);
        let outcome = self.attempt(metrics, &labels, request, end).await;
        let label = match &outcome {
            Ok(answer) if answer.status.is_success() => "ok",
            Ok(_) => "refused",
            Err(error) => error.label(),
        };
        metrics.request(&labels, label, begun.elapsed());
        outcome
    }

    async fn attempt(
        &self,
        metrics: &UpstreamMetrics,
        labels: &UpstreamLabels,
        request: WebhookRequest,
        end: Instant,
    ) -> Result<WebhookAnswer, CallError> {
        let late = || CallError::Late(self.settings.timeout);
        let _place = self.place(metrics, labels, end).await?;
        let pass = self.load.breaker.pass().map_err(|BreakerOpen| CallError::Open)?;
        let outcome = match timeout_at(end, self.exchange(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(late()),
        };
        let verdict = match &outcome {
            Ok(answer) => Some(works(answer.status)),
            Err(error) => error.verdict(),
        };
        if let Some(works) = verdict
            && pass.end(works)
        {
            self.report_breaker(metrics, labels, works);
        }
        outcome
    }

    fn report_breaker(&self, metrics: &UpstreamMetrics, labels: &UpstreamLabels, works: bool) {
        if works {
            *self.load.opened.lock() = None;
            tracing::info!(handler = self.label, "a handler works again");
        } else {
            *self.load.opened.lock() = Some(metrics.opens(labels));
            tracing::warn!(
                handler = self.label,
                failures = FAILURES,
                "a handler fails call after call, and is left alone for a moment"
            );
        }
    }

    /// Waits for a place among the calls that run.
    async fn place(
        &self,
        metrics: &UpstreamMetrics,
        labels: &UpstreamLabels,
        end: Instant,
    ) -> Result<SemaphorePermit<'_>, CallError> {
        if self.load.breaker.refuses() {
            return Err(CallError::Open); // at once, and not after a wait
        }
        if let Ok(place) = self.load.places.try_acquire() {
            return Ok(place);
        }
        let most = self.settings.queue;
        let _waits = Counted::within(&self.load.waiting, most).ok_or(CallError::Full)?;
        let _told = metrics.waits(labels);
        match timeout_at(end, self.load.places.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(CallError::Late(self.settings.timeout)),
        }
    }

    async fn exchange(&self, request: WebhookRequest) -> Result<WebhookAnswer, CallError> {
        let mut headers = self.headers.clone();
        headers.extend(request.headers);
        let sending = self
            .client
            .request(request.method, request.url)
            .headers(headers)
            .body(request.body);
        let failed = |error| CallError::of(error, self.settings.identity_file.is_some());
        let mut response = sending.send().await.map_err(failed)?;
        let status = response.status();
        let most = self.settings.answer_bytes;
        let announced = response.content_length().unwrap_or_default();
        if announced > u64::try_from(most).unwrap_or(u64::MAX) {
            return Err(CallError::TooLarge { status, most });
        }
        let mut held = HeldBytes {
            all: &self.load.held,
            bytes: 0,
        };
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len().saturating_add(chunk.len()) > most {
                return Err(CallError::TooLarge { status, most });
            }
            body.extend_from_slice(&chunk);
            if !held.grow_to(body.len()) {
                return Err(CallError::NoRoom { status });
            }
        }
        Ok(WebhookAnswer {
            status,
            headers: std::mem::take(response.headers_mut()),
            body: body.freeze(),
        })
    }
}

/// Returns whether an event of a connection is to be sent again after that answer.
pub(super) fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT
}

/// The client, and what was read from files for it.
fn client(settings: &HandlerSettings) -> Result<(reqwest::Client, Vec<Vec<u8>>), BuildError> {
    let mut pems = Vec::new();
    let wrong = |key, problem: String| BuildError { key, problem };
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .user_agent(concat!("hubcast/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT.min(settings.timeout))
        .pool_max_idle_per_host(settings.concurrency)
        .tcp_nodelay(true);
    if let Some(path) = &settings.ca_file {
        let unreadable =
            |error: &dyn std::fmt::Display| wrong("ca_file", format!("{}: {error}", path.display()));
        let pem = std::fs::read(path).map_err(|error| unreadable(&error))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unreadable(&error))?;
        if certificates.is_empty() {
            return Err(unreadable(&"there is no certificate in it"));
        }
        builder = builder.tls_certs_only(certificates);
        pems.push(pem);
    }
    if let Some(path) = &settings.identity_file {
        let unreadable =
            |error: &dyn std::fmt::Display| wrong("identity_file", format!("{}: {error}", path.display()));
        let pem = std::fs::read(path).map_err(|error| unreadable(&error))?;
        let identity = reqwest::Identity::from_pem(&pem)
            .map_err(|_| unreadable(&"it must hold a certificate and its private key, both PEM"))?;
        builder = builder.identity(identity);
        pems.push(pem);
    }
    let at_fault = if settings.identity_file.is_some() {
        "identity_file"
    } else {
        "url"
    };
    let client = builder.build().map_err(|error| wrong(at_fault, chain(&error)))?;
    Ok((client, pems))
}

/// One of a bounded number.
pub(super) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn within(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let counted = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
            (count < most).then(|| count.saturating_add(1))
        });
        counted.ok().map(|_| Self(count))
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The bytes of one large answer, among those of all.
struct HeldBytes<'a> {
    all: &'a AtomicUsize,
    bytes: usize,
}

impl HeldBytes<'_> {
    /// Returns whether there is room for so many bytes of the answer.
    fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if bytes <= SMALL_ANSWER || more == 0 {
            return true;
        }
        let before = self.all.fetch_add(more, Ordering::AcqRel);
        self.bytes = bytes;
        before.saturating_add(more) <= HELD_BYTES
    }
}

impl Drop for HeldBytes<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}
