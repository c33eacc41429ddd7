//! Audiences of tokens: they decide which tokens are for clients of a hub.
//!
//! One key signs tokens for clients (`https://host/client/?hub=chat`), for app servers (`https://host/server/?hub=chat`)
//! and for REST (the URL that is called). Only the audience tells them apart.

use axum::http::Uri;
use serde_json::Value;

/// The audiences that clients' tokens may have.
#[derive(Debug, Clone, Default)]
pub(super) struct ClientAudience {
    /// Audiences that are accepted whatever the hub.
    listed: Vec<String>,
    /// Hosts that audiences may name; none: any.
    hosts: Vec<String>,
}

impl ClientAudience {
    pub(super) fn new(listed: &[String], hosts: &[String]) -> Self {
        Self {
            listed: listed.to_vec(),
            hosts: hosts.to_vec(),
        }
    }

    /// Returns whether tokens must have an audience.
    pub(super) fn is_required(&self) -> bool {
        !self.listed.is_empty()
    }

    /// Returns whether an `aud` claim, a text or an array of texts, names the clients of a hub. Without a hub: of any.
    pub(super) fn holds(&self, claim: &Value, hub: Option<&str>) -> bool {
        match claim {
            Value::String(audience) => self.is_one(audience, hub),
            Value::Array(audiences) => audiences
                .iter()
                .filter_map(Value::as_str)
                .any(|audience| self.is_one(audience, hub)),
            _ => false,
        }
    }

    fn is_one(&self, audience: &str, hub: Option<&str>) -> bool {
        if self.listed.iter().any(|listed| listed == audience) {
            return true;
        }
        let Ok(uri) = audience.parse::<Uri>() else {
            return false;
        };
        let host_fits = uri.host().is_none_or(|host| {
            self.hosts.is_empty() || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
        });
        host_fits && hub_of(&uri).is_some_and(|named| hub.is_none_or(|hub| named.eq_ignore_ascii_case(hub)))
    }
}

/// The hub whose clients a URL or a path is for: where they connect.
fn hub_of(uri: &Uri) -> Option<&str> {
    let path = uri.path().strip_suffix('/').unwrap_or(uri.path());
    if path == "/client" {
        let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
        let mut hubs = pairs.filter(|(key, _)| key.eq_ignore_ascii_case("hub"));
        return hubs.next().map(|(_, hub)| hub);
    }
    let hub = path
        .strip_prefix("/client/hubs/")
        .or_else(|| path.strip_prefix("/hubs/"))?;
    (!hub.contains('/')).then_some(hub)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn urls_where_clients_connect_are_audiences_of_clients() {
        let any = ClientAudience::default();
        for good in [
            "http://localhost/client/?hub=chat",
            "https://gw.example:8443/client/?hub=chat",
            "https://gw.example/client?hub=Chat",
            "https://gw.example/client/?asrs.op=x&hub=chat",
            "https://gw.example/client/hubs/chat",
            "https://gw.example/hubs/chat/",
            "/hubs/chat",
        ] {
            assert!(any.holds(&json!(good), Some("chat")), "{good}");
            assert!(any.holds(&json!(["x", good]), Some("chat")), "{good}");
            assert!(any.holds(&json!(good), None), "{good}");
            assert!(!any.holds(&json!(good), Some("news")), "{good}");
        }
    }

    #[test]
    fn others_are_not() {
        let any = ClientAudience::default();
        for bad in [
            json!("http://localhost/server/?hub=chat"),
            json!("http://localhost/api/hubs/chat/:send?api-version=2022-06-01"),
            json!("http://localhost/api/v1/hubs/chat"),
            json!("http://localhost/client/"),
            json!("http://localhost/client/?hub="),
            json!("http://localhost/hubs/chat/negotiate"),
            json!("http://localhost/client/negotiate?hub=chat"),
            json!("chat"),
            json!("my-app"),
            json!(""),
            json!([]),
            json!([7]),
            json!(7),
            json!(null),
            json!({ "aud": "/hubs/chat" }),
        ] {
            assert!(!any.holds(&bad, Some("chat")), "{bad}");
        }
    }

    #[test]
    fn lists_narrow_hosts_and_add_audiences() {
        let some = ClientAudience::new(&["my-app".to_owned()], &["gw.example".to_owned()]);
        assert!(some.is_required() && !ClientAudience::default().is_required());
        assert!(some.holds(&json!("my-app"), Some("chat")));
        assert!(!some.holds(&json!("My-App"), Some("chat")), "case counts");
        assert!(some.holds(&json!("https://GW.example:1/client/?hub=chat"), Some("chat")));
        assert!(some.holds(&json!("/hubs/chat"), Some("chat")));
        assert!(!some.holds(&json!("https://evil.example/client/?hub=chat"), Some("chat")));
    }
}
