//! Which web pages may connect.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::options::CorsOptions;

/// The admitted origins.
#[derive(Clone, Debug)]
pub(crate) struct Origins {
    any: bool,
    listed: Vec<HeaderValue>,
}

impl Origins {
    pub(crate) fn new(options: &CorsOptions) -> Self {
        let any = options.allowed_origins.iter().any(|origin| origin == "*");
        let listed = options
            .allowed_origins
            .iter()
            .filter_map(|origin| HeaderValue::from_str(origin).ok())
            .collect();
        Self { any, listed }
    }

    /// Whether a request may come from where it says. Requests without `Origin` are not from a page; pages of the
    /// gateway itself are always admitted. Browsers do not ask before they open a WebSocket, so the server has to look.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else {
            return true;
        };
        self.listed(origin) || same_origin(origin, headers)
    }

    fn listed(&self, origin: &HeaderValue) -> bool {
        self.any
            || self
                .listed
                .iter()
                .any(|listed| listed.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
    }

    /// Answers preflights and adds the response headers that browsers need. Credentials need the exact origin, never `*`.
    pub(crate) fn layer(&self) -> CorsLayer {
        let origins = self.clone();
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(move |origin, _| origins.listed(origin)))
            .allow_credentials(true)
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                header::CACHE_CONTROL, // scripts that do what EventSource does
                HeaderName::from_static("last-event-id"),
                HeaderName::from_static("x-requested-with"),
                HeaderName::from_static("x-signalr-user-agent"),
            ])
            .max_age(std::time::Duration::from_secs(600))
    }
}

/// The scheme is left out: behind a proxy that ends TLS the gateway does not know it.
fn same_origin(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let (Ok(origin), Some(Ok(host))) = (
        origin.to_str(),
        headers.get(header::HOST).map(HeaderValue::to_str),
    ) else {
        return false;
    };
    origin
        .split_once("://")
        .is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(origin: Option<&str>, host: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    #[test]
    fn own_pages_listed_pages_and_programs_are_admitted() {
        let origins = Origins::new(&CorsOptions {
            allowed_origins: vec!["https://app.example".to_owned()],
        });
        assert!(origins.admit(&headers(None, "gw.example")));
        assert!(origins.admit(&headers(Some("https://gw.example"), "gw.example")));
        assert!(origins.admit(&headers(Some("https://app.example"), "gw.example")));
        assert!(!origins.admit(&headers(Some("https://evil.example"), "gw.example")));
        assert!(!origins.admit(&headers(Some("null"), "gw.example")));
        assert!(!origins.admit(&headers(Some("http://gw.example:81"), "gw.example")));
        let any = Origins::new(&CorsOptions {
            allowed_origins: vec!["*".to_owned()],
        });
        assert!(any.admit(&headers(Some("https://evil.example"), "gw.example")));
    }
}
