//! The parts of a request that the endpoints read.

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Uri, header};

use crate::protocol::Transport;

/// Query pairs in order, decoded. Keys are compared without case, as the reference does.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads a query. Every text is one: see the URL standard, `application/x-www-form-urlencoded`.
    pub(crate) fn of(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        Self {
            pairs: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(key))
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a key, in order.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let pairs = self.pairs.iter();
        pairs
            .filter(move |(name, _)| name.eq_ignore_ascii_case(key))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }
}

/// The kind of a request to a hub's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
    EventStream,
    WebSocket,
    Poll,
    Send,
    Delete,
}

impl RequestKind {
    /// The kind of a request, tried in the order of the reference: an event stream first, then a socket, else a poll.
    /// `None` is 405.
    pub(crate) fn of(parts: &Parts) -> Option<Self> {
        match parts.method {
            Method::GET if accepts_event_stream(&parts.headers) => Some(Self::EventStream),
            Method::GET if wants_websocket(&parts.headers) => Some(Self::WebSocket),
            Method::GET => Some(Self::Poll),
            Method::CONNECT => Some(Self::WebSocket), // HTTP/2
            Method::POST => Some(Self::Send),
            Method::DELETE => Some(Self::Delete),
            _ => None,
        }
    }

    /// The transport that it is of, as far as that can be seen.
    pub(crate) fn transport(self) -> Option<Transport> {
        match self {
            Self::EventStream => Some(Transport::ServerSentEvents),
            Self::WebSocket => Some(Transport::WebSockets),
            Self::Poll => Some(Transport::LongPolling),
            Self::Send | Self::Delete => None,
        }
    }
}

fn accepts_event_stream(headers: &HeaderMap) -> bool {
    let lists = headers
        .get_all(header::ACCEPT)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|item| {
        let media_type = item.split(';').next().unwrap_or_default().trim();
        media_type.eq_ignore_ascii_case("text/event-stream")
    })
}

fn wants_websocket(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn kind(method: &str, headers: &[(&str, &str)]) -> Option<RequestKind> {
        let mut request = Request::builder().method(method).uri("/hubs/a");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        RequestKind::of(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn a_get_is_an_event_stream_before_a_socket_before_a_poll() {
        assert_eq!(kind("GET", &[]), Some(RequestKind::Poll));
        assert_eq!(kind("GET", &[("accept", "*/*")]), Some(RequestKind::Poll));
        assert_eq!(
            kind("GET", &[("upgrade", "WebSocket")]),
            Some(RequestKind::WebSocket)
        );
        let both = [
            ("upgrade", "websocket"),
            ("accept", "text/html, Text/Event-Stream;q=0.9"),
        ];
        assert_eq!(kind("GET", &both), Some(RequestKind::EventStream));
        assert_eq!(kind("PUT", &[]), None);
    }

    #[test]
    fn query_keys_have_no_case() {
        let query = Query::of(&"/x?ID=a%20b&negotiateversion=1&id=c".parse().unwrap());
        assert_eq!(query.get("id"), Some("a b"));
        assert_eq!(query.get("negotiateVersion"), Some("1"));
        assert_eq!(query.get("none"), None);
    }
}
