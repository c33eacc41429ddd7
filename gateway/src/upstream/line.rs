//! The state that handlers keep of one connection, and the order of its deliveries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::Url;
use reqwest::cookie::{CookieStore as _, Jar};
use tokio::sync::{RwLock, oneshot};
use tokio_util::sync::CancellationToken;

use crate::hub::{Carried, Connection};

/// The header by which a handler keeps a state of a connection.
pub(super) const STATE: &str = "ce-connectionstate";
/// Largest state, in bytes: two servers refuse larger headers, for the rest of the connection.
const MOST_STATE_BYTES: usize = 8 * 1024;
/// Cookies that are taken for one connection, and the bytes that each may have.
const MOST_COOKIES: (usize, usize) = (50, 4 * 1024);

/// One connection's deliveries. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Line(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Held for reading by messages, for writing by what comes before or after them: changes of groups, and `disconnected`.
    order: Arc<RwLock<()>>,
    kept: Mutex<LineData>,
    /// Set while the handler could not be told that the client has connected.
    trouble: AtomicBool,
    /// Ended when the handler was told that the client has connected.
    begun: CancellationToken,
}

#[derive(Default)]
struct LineData {
    cookies: Option<Box<(Jar, usize)>>,
    /// Ends when the last change of groups was told.
    last_change: Option<oneshot::Receiver<()>>,
    /// The subprotocol that `connect` chose, where it is none of Hubcast's.
    subprotocol: Option<String>,
}

/// A handler set a state that is too large.
#[derive(Debug, thiserror::Error)]
#[error(
    "its ce-connectionState has {0} bytes; at most {MOST_STATE_BYTES} fit into the headers of later events"
)]
pub(super) struct StateTooLarge(usize);

impl Line {
    /// The line of a connection.
    pub(super) fn of(connection: &Connection) -> Self {
        connection
            .data()
            .with(|line: &mut Option<Self>| line.get_or_insert_default().clone())
    }

    /// Makes this the line of a connection.
    pub(super) fn give_to(self, connection: &Connection) {
        connection.data().insert(Some(self));
    }

    /// Notes whether the handler could not be told yet that the client has connected.
    pub(super) fn set_trouble(&self, trouble: bool) {
        self.0.trouble.store(trouble, Ordering::Release);
    }

    pub(super) fn has_trouble(&self) -> bool {
        self.0.trouble.load(Ordering::Acquire)
    }

    /// The handler was told that the client has connected: everything else may follow.
    pub(super) fn begin(&self) {
        self.0.begun.cancel();
    }

    pub(super) fn has_begun(&self) -> bool {
        self.0.begun.is_cancelled()
    }

    /// Waits until then.
    pub(super) async fn begun(&self) {
        self.0.begun.cancelled().await;
    }

    /// A place among the changes of groups: the one before, which ends when it was told, and what ends this one.
    pub(super) fn next_change(&self) -> (Option<oneshot::Receiver<()>>, oneshot::Sender<()>) {
        let (reported, last) = oneshot::channel();
        (self.0.kept.lock().last_change.replace(last), reported)
    }

    pub(super) fn order(&self) -> Arc<RwLock<()>> {
        Arc::clone(&self.0.order)
    }

    /// Adds the state that a handler keeps of a connection.
    pub(super) fn add_state(connection: &Connection, headers: &mut HeaderMap) {
        let state = connection.data().get::<Carried>();
        if let Some(Ok(state)) = state.map(|state| HeaderValue::from_maybe_shared(state.0)) {
            headers.insert(STATE, state);
        }
    }

    /// Adds the cookies that the handler has set.
    pub(super) fn add_cookies(&self, url: &Url, headers: &mut HeaderMap) {
        let kept = self.0.kept.lock();
        if let Some(cookies) = kept.cookies.as_ref().and_then(|own| own.0.cookies(url)) {
            headers.insert(header::COOKIE, cookies);
        }
    }

    /// Keeps what an answer set: all of it, or nothing. Returns whether the state has changed.
    pub(super) fn learn(
        &self,
        connection: &Connection,
        url: &Url,
        answer: &HeaderMap,
    ) -> Result<bool, StateTooLarge> {
        let state = answer.get_all(STATE).iter().next_back(); // the last one counts
        if let Some(state) = state
            && state.len() > MOST_STATE_BYTES
        {
            return Err(StateTooLarge(state.len()));
        }
        let data = connection.data();
        let before = data.get::<Carried>().map(|state| state.0);
        let changed = match state {
            Some(state) if state.is_empty() => data.remove::<Carried>().is_some(),
            Some(state) if before.as_deref() != Some(state.as_bytes()) => {
                data.insert(Carried(Bytes::copy_from_slice(state.as_bytes())));
                true
            }
            _ => false,
        };
        self.learn_cookies(url, answer);
        Ok(changed)
    }

    /// Keeps the cookies that an answer set.
    pub(super) fn learn_cookies(&self, url: &Url, answer: &HeaderMap) {
        let mut kept = self.0.kept.lock();
        for cookie in answer.get_all(header::SET_COOKIE) {
            let own = kept.cookies.get_or_insert_default();
            if own.1 >= MOST_COOKIES.0 || cookie.len() > MOST_COOKIES.1 {
                continue;
            }
            own.1 = own.1.saturating_add(1);
            if let Ok(text) = cookie.to_str() {
                own.0.add_cookie_str(text, url);
            }
        }
    }

    pub(super) fn subprotocol(&self) -> Option<String> {
        self.0.kept.lock().subprotocol.clone()
    }

    pub(super) fn set_subprotocol(&self, name: &str) {
        self.0.kept.lock().subprotocol = Some(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn state_and_cookies_come_back_and_are_bounded() {
        let url: Url = "https://app.example.org/x".parse().unwrap();
        let line = Line::default();
        let id = hubcast_backplane::ConnectionId::parse("c").unwrap();
        let connection = Connection::new(id, crate::auth::Identity::anonymous(), Default::default());
        let sent = |url: &Url| {
            let mut headers = HeaderMap::new();
            Line::add_state(&connection, &mut headers);
            line.add_cookies(url, &mut headers);
            headers
        };
        let learn = |pairs: &[(&'static str, &str)]| line.learn(&connection, &url, &answer(pairs));
        assert!(sent(&url).is_empty());
        let cookies = [("set-cookie", "a=1; Path=/"), ("set-cookie", "b=2; Path=/y")];
        learn(&[(STATE, "one"), (STATE, "two"), cookies[0], cookies[1]]).unwrap();
        let expected = answer(&[(STATE, "two"), ("cookie", "a=1")]);
        assert_eq!(sent(&url), expected);
        assert_eq!(
            sent(&"https://other.example.org/".parse().unwrap()).get("cookie"),
            None
        );
        let large = "x".repeat(MOST_STATE_BYTES + 1);
        assert!(learn(&[(STATE, &large), ("set-cookie", "a=3")]).is_err());
        assert_eq!(sent(&url), expected);
        learn(&[]).unwrap();
        assert_eq!(sent(&url), expected, "no header changes nothing");
        learn(&[(STATE, "")]).unwrap();
        assert_eq!(sent(&url).get(STATE), None);
        for number in 0..200 {
            let cookie = format!("c{number}=1");
            line.learn(&connection, &url, &answer(&[("set-cookie", &cookie)]))
                .unwrap();
        }
        let most = MOST_COOKIES.0 - 1; // one is for another path
        assert_eq!(sent(&url)["cookie"].to_str().unwrap().split(';').count(), most);
    }
}
