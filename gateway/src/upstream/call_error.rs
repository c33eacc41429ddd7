//! The faults of handlers: for the client that waits, and for operators.

use std::error::Error as _;
use std::fmt::{self, Write as _};
use std::time::Duration;

use axum::http::StatusCode;

use super::breaker::FAILURES;
use super::handler::HELD_BYTES;
use super::tls;

/// The reason why a handler gave no answer that can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The breaker is open.
    #[error("its last {FAILURES} calls failed, so that it is not called for a moment")]
    Open,
    /// As many calls wait as may.
    #[error("as many calls wait for it as may (queue)")]
    Full,
    /// There was no whole answer in time.
    #[error("it gave no whole answer within {0:?} (timeout_seconds)")]
    Late(Duration),
    /// No connection could be made, so that it can't have read the request.
    #[error("it can't be reached: {0}")]
    Unreachable(String),
    /// No TLS connection came about. Another try would go no better.
    #[error("no TLS connection to it can be made: {0}")]
    Tls(String),
    /// The connection broke.
    #[error("the request failed: {0}")]
    Broken(String),
    /// The answer is larger than it may be.
    #[error("its answer is larger than {most} bytes (answer_bytes)")]
    TooLarge { status: StatusCode, most: usize },
    /// Too many large answers are being read.
    #[error("its answers that are being read hold more than {HELD_BYTES} bytes")]
    NoRoom { status: StatusCode },
}

impl CallError {
    /// `known`: the gateway has a certificate to show.
    pub(super) fn of(error: reqwest::Error, known: bool) -> Self {
        let secure = error.url().is_some_and(|url| url.scheme() == "https");
        let error = error.without_url(); // it may hold a secret
        if let Some(problem) = tls::problem(&error, known) {
            return Self::Tls(problem);
        }
        let mut text = chain(&error);
        // With TLS 1.3 a server says after the handshake that it refuses the gateway's certificate, or wants one. Where it
        // ends the connection at once, its word is lost, at the latest when the request is written.
        if secure && error.is_request() && !error.is_connect() {
            text.push_str("; it may want another certificate of the gateway (identity_file)");
        }
        if error.is_connect() || was_never_sent(&error) {
            Self::Unreachable(text)
        } else {
            Self::Broken(text)
        }
    }

    /// The label in metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Full => "full",
            Self::Late(_) => "late",
            Self::Unreachable(_) => "unreachable",
            Self::Tls(_) => "tls",
            Self::Broken(_) => "broken",
            Self::TooLarge { .. } | Self::NoRoom { .. } => "too_large",
        }
    }

    /// The text for clients. Details of the network are for operators.
    pub(super) fn for_client(&self) -> String {
        match self {
            Self::Unreachable(_) => "it can't be reached".to_owned(),
            Self::Tls(_) => "no TLS connection to it can be made".to_owned(),
            Self::Broken(_) => "the connection to it broke".to_owned(),
            other => other.to_string(),
        }
    }

    /// The verdict about the handler; `None` where it was not asked, or is not to blame.
    pub(super) fn verdict(&self) -> Option<bool> {
        match self {
            Self::Open | Self::Full | Self::NoRoom { .. } => None,
            Self::TooLarge { status, .. } => Some(works(*status)),
            Self::Late(_) | Self::Unreachable(_) | Self::Tls(_) | Self::Broken(_) => Some(false),
        }
    }
}

/// The status of a handler that has not done what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it answered with status {}{}", .0.as_u16(), redirect_hint(*.0))]
pub(super) struct BadStatus(pub(super) StatusCode);

fn redirect_hint(status: StatusCode) -> &'static str {
    if status.is_redirection() {
        ", a redirect, which is not followed"
    } else {
        ""
    }
}

/// A fault in two texts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    /// For the client: without addresses and settings.
    pub(super) for_client: String,
    /// For operators.
    pub(super) why: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Fault {
    /// A fault whose text is for both: it has neither addresses nor settings.
    pub(super) fn public(fault: impl fmt::Display) -> Self {
        let why = fault.to_string();
        Self {
            for_client: why.clone(),
            why,
        }
    }
}

impl From<&CallError> for Fault {
    fn from(error: &CallError) -> Self {
        Self {
            for_client: error.for_client(),
            why: error.to_string(),
        }
    }
}

/// Returns whether a status is one of a handler that works. 500 is: middlewares give it for what they don't like, again and
/// again, while they serve everything else.
pub(super) fn works(status: StatusCode) -> bool {
    !matches!(status.as_u16(), 408 | 502 | 503 | 504)
}

/// Returns whether the connection ended before the request was sent.
fn was_never_sent(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_canceled)
        {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// An error with its causes: the first one alone seldom says anything.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let _ = write!(text, ": {inner}"); // writing to a String does not fail
        cause = inner.source();
    }
    text
}
