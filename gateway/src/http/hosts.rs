//! The hosts that requests may be for.
//!
//! A page whose name was made to lead to a gateway's address (DNS rebinding) is of the gateway's own origin for its browser.
//! Only the name gives it away: see [`ServerOptions::allowed_hosts`](crate::options::ServerOptions).

use std::net::Ipv6Addr;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{StatusCode, Version, header};
use axum::response::Response;

use super::reply;
use crate::http::App;
use crate::options::ServerOptions;
use crate::options::requested_authority;
use crate::telemetry::labels::RejectLabel;

/// The hosts of `server.allowed_hosts`.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    /// The hosts in lower case. `None` for any.
    listed: Option<Vec<String>>,
}

impl Hosts {
    pub(crate) fn new(options: &ServerOptions) -> Self {
        let hosts = &options.allowed_hosts;
        let any = hosts.is_empty() || hosts.iter().any(|host| host == "*");
        let listed = || hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Self {
            listed: (!any).then(listed),
        }
    }

    fn admit(&self, host: &str) -> bool {
        let Some(listed) = &self.listed else { return true };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_address = bare.parse::<Ipv6Addr>().is_ok() || host.parse::<std::net::Ipv4Addr>().is_ok();
        is_address
            || !host.contains('.')
            || host.ends_with(".localhost")
            || listed.iter().any(|listed| match listed.strip_prefix('*') {
                Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
                None => host == *listed,
            })
    }
}

/// Refuses requests that don't say for which host they are, that say it twice, or that are for another one.
pub(super) fn check(app: &App, request: Request) -> Result<Request, Box<Response>> {
    let (parts, body) = request.into_parts();
    let (status, text) = match host_of(&parts) {
        Err(Unclear) => {
            let text = "A request must have one Host header, and it must be a host";
            (StatusCode::BAD_REQUEST, text)
        }
        Ok(Some(host)) if !app.hosts().admit(host.host()) => {
            app.metrics().rejected.get(RejectLabel::Host).inc();
            let text = "This host is not served here (server.allowed_hosts)";
            (StatusCode::MISDIRECTED_REQUEST, text)
        }
        Ok(_) => return Ok(Request::from_parts(parts, body)),
    };
    Err(Box::new(reply::text(status, text)))
}

/// A request names no host, or several.
struct Unclear;

/// The host that a request is for. HTTP/1.0 need not say it; `:authority` counts, whatever Host says (RFC 9112 §3.2.2).
fn host_of(request: &Parts) -> Result<Option<Authority>, Unclear> {
    let lines = request.headers.get_all(header::HOST).iter().count();
    match (requested_authority(request), lines) {
        (_, 2..) => Err(Unclear),
        (Some(host), _) => Ok(Some(host)),
        (None, 1) => Err(Unclear),
        (None, _) if request.version == Version::HTTP_11 => Err(Unclear),
        (None, _) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listed: &[&str]) -> Hosts {
        Hosts::new(&ServerOptions {
            allowed_hosts: listed.iter().map(|&host| host.to_owned()).collect(),
            ..ServerOptions::default()
        })
    }

    #[test]
    fn names_that_others_can_have_must_be_listed() {
        let local = hosts(&["localhost"]);
        for own in [
            "localhost",
            "127.0.0.1",
            "[::1]",
            "10.1.2.3",
            "hubcast",
            "a.localhost",
            "LOCALHOST.",
        ] {
            assert!(local.admit(own), "{own}");
        }
        for foreign in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "1.2.3",
            "evil.example.",
        ] {
            assert!(!local.admit(foreign), "{foreign}");
        }
        let listed = hosts(&["app.example.org", "*.example.com"]);
        for (host, admitted) in [
            ("App.Example.org", true),
            ("b.example.com", true),
            ("example.com", false),
            ("evilexample.com", false),
            ("example.org", false),
        ] {
            assert_eq!(listed.admit(host), admitted, "{host}");
        }
        assert!(hosts(&[]).admit("evil.example") && hosts(&["*", "a.example"]).admit("evil.example"));
    }

    #[test]
    fn a_request_says_once_for_which_host_it_is() {
        let of = |version, uri: &str, hosts: &[&str]| {
            let mut request = axum::http::Request::builder().version(version).uri(uri);
            for host in hosts {
                request = request.header(header::HOST, *host);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let host = host_of(&parts);
            host.map(|host| host.map(|host| host.host().to_owned())).ok()
        };
        assert_eq!(
            of(Version::HTTP_11, "/", &["a.example:80"]),
            Some(Some("a.example".to_owned()))
        );
        assert_eq!(of(Version::HTTP_11, "/", &[]), None);
        assert_eq!(of(Version::HTTP_11, "/", &["a", "b"]), None);
        assert_eq!(of(Version::HTTP_11, "/", &["a b"]), None);
        assert_eq!(of(Version::HTTP_11, "/", &[""]), None);
        assert_eq!(of(Version::HTTP_10, "/", &[]), Some(None));
        assert_eq!(
            of(Version::HTTP_2, "http://c.example/", &[]),
            Some(Some("c.example".to_owned()))
        );
    }
}
