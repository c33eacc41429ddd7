//! The host that a request is for: `:authority` in HTTP/2, `Host` in HTTP/1.1. The only place that reads it.

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{Uri, header};

/// The host that a request was sent to, with its port if the request names one.
pub(crate) fn requested_authority(request: &Parts) -> Option<Authority> {
    if let Some(authority) = request.uri.authority() {
        return Some(authority.clone());
    }
    let host = request.headers.get(header::HOST)?;
    Authority::try_from(host.as_bytes()).ok()
}

/// An origin as a browser names it, or as it is listed: scheme, host, port.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    scheme: String,
    /// The host in small letters.
    host: String,
    port: Option<u16>,
}

impl Origin {
    /// Reads `scheme://host` or `scheme://host:port`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        let whole = !text.ends_with('/') && matches!(uri.path(), "" | "/") && uri.query().is_none();
        let named = authority.host().strip_prefix("*.").unwrap_or(authority.host());
        if !whole || named.contains('*') || authority.as_str().contains('@') {
            return None;
        }
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let default = match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        Some(Self {
            host: authority.host().to_ascii_lowercase(),
            port: authority.port_u16().or(default),
            scheme,
        })
    }

    /// Returns whether a page of `page` may connect where this is listed. `*.` before the host stands for one or more
    /// names.
    pub(crate) fn lists(&self, page: &Self) -> bool {
        let host = match self.host.strip_prefix('*') {
            Some(parent) if parent.starts_with('.') => {
                page.host.len() > parent.len() && page.host.ends_with(parent)
            }
            _ => self.host == page.host,
        };
        host && self.scheme == page.scheme && self.port == page.port
    }

    /// Returns whether this is the origin of the requested resource. The scheme is left out, and a default port with
    /// it: behind a proxy that ends TLS the gateway does not know them.
    pub(crate) fn is_of(&self, requested: &Authority) -> bool {
        let named = |port: Option<u16>| port.filter(|port| !matches!(port, 80 | 443));
        self.host.eq_ignore_ascii_case(requested.host()) && named(self.port) == named(requested.port_u16())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn authority(uri: &str, host: Option<&str>) -> Option<String> {
        let mut request = Request::get(uri);
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        requested_authority(&parts).map(|authority| authority.to_string())
    }

    #[test]
    fn the_host_is_read_wherever_the_version_of_http_has_it() {
        assert_eq!(
            authority("/x", Some("a.example:81")).as_deref(),
            Some("a.example:81")
        );
        assert_eq!(
            authority("https://b.example/x", None).as_deref(),
            Some("b.example")
        );
        assert_eq!(
            authority("https://b.example/x", Some("a.example")).as_deref(),
            Some("b.example")
        );
        assert_eq!(authority("/x", Some("[::1]:80")).as_deref(), Some("[::1]:80"));
        assert_eq!(authority("/x", None), None);
        assert_eq!(authority("/x", Some("a b")), None);
    }

    #[test]
    fn default_ports_are_the_same_as_none_and_names_below_match() {
        let lists = |listed: &str, page: &str| {
            Origin::parse(listed)
                .unwrap()
                .lists(&Origin::parse(page).unwrap())
        };
        assert!(lists("https://app.example:443", "https://app.example"));
        assert!(lists("http://App.Example", "http://app.example:80"));
        assert!(lists("https://*.example.org", "https://a.b.example.org"));
        assert!(lists("capacitor://localhost", "capacitor://localhost"));
        for (listed, page) in [
            ("https://*.example.org", "https://example.org"),
            ("https://*.example.org", "https://evilexample.org"),
            ("https://*.example.org", "http://a.example.org"),
            ("https://*.example.org", "https://a.example.org:8443"),
            ("https://app.example", "https://app.example:8443"),
            ("https://app.example:80", "https://app.example"),
        ] {
            assert!(!lists(listed, page), "{listed} {page}");
        }
        for text in [
            "null",
            "app.example",
            "https://a.example/",
            "https://a.example/x",
            "https://u@a.example",
            "https://a?x",
            "https://a.*.example",
        ] {
            assert!(Origin::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_page_of_the_gateway_is_its_own_behind_any_proxy() {
        let own = |page: &str, host: &str| Origin::parse(page).unwrap().is_of(&host.parse().unwrap());
        for host in ["App.Example", "app.example:443", "app.example:80"] {
            assert!(own("https://app.example", host), "{host}");
        }
        assert!(own("http://app.example:8080", "app.example:8080") && own("http://[::1]:81", "[::1]:81"));
        for host in ["app.example.evil", "app.example:8080", "example"] {
            assert!(!own("https://app.example", host), "{host}");
        }
    }
}
