//! The web pages that may connect.

use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::options::CorsOptions;
use crate::options::{Origin, requested_authority};

/// The admitted origins.
#[derive(Clone, Debug)]
pub(crate) struct Origins {
    any: bool,
    listed: Vec<Origin>,
}

impl Origins {
    pub(crate) fn new(options: &CorsOptions) -> Self {
        let any = options.allowed_origins.iter().any(|origin| origin == "*");
        let listed = options
            .allowed_origins
            .iter()
            .filter_map(|origin| Origin::parse(origin))
            .collect();
        Self { any, listed }
    }

    /// Returns whether the request's `Origin` is permitted. Requests without `Origin` are not from a page; pages of the
    /// gateway itself are always admitted. Browsers send no preflight before a WebSocket, so the server has to check.
    pub(crate) fn admit(&self, request: &Parts) -> bool {
        let Some(origin) = request.headers.get(header::ORIGIN) else {
            return true;
        };
        self.listed(origin) || is_own(origin, request)
    }

    fn listed(&self, origin: &HeaderValue) -> bool {
        self.any || read(origin).is_some_and(|page| self.listed.iter().any(|listed| listed.lists(&page)))
    }

    /// Answers preflights and adds the response headers that browsers need. Credentials need the exact origin, never `*`. A page
    /// that may send credentials may send any other header, such as those that its libraries add for traces.
    pub(crate) fn layer(&self) -> CorsLayer {
        let origins = self.clone();
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(move |origin, _| origins.listed(origin)))
            .allow_credentials(true)
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers(AllowHeaders::mirror_request())
            .max_age(std::time::Duration::from_secs(600))
    }
}

fn read(origin: &HeaderValue) -> Option<Origin> {
    Origin::parse(origin.to_str().ok()?)
}

fn is_own(origin: &HeaderValue, request: &Parts) -> bool {
    let (page, requested) = (read(origin), requested_authority(request));
    page.zip(requested)
        .is_some_and(|(page, requested)| page.is_of(&requested))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn headers(origin: Option<&str>, host: &str) -> Parts {
        let mut request = Request::get("/").header(header::HOST, host);
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        request.body(()).unwrap().into_parts().0
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
