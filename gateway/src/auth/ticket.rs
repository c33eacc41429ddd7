//! Tickets: clients show them in the URL of a socket or event stream instead of their token.
//!
//! A ticket comes with a connection token and is good for that connection alone: the holder of both may create the
//! connection once, within the few seconds that the connection token allows for it, and speak for it until it ends. It
//! holds the identity that negotiate saw, encrypted under a key that all nodes derive from the cluster's secret, so
//! nothing is stored. That the connection is created once, on whatever node, is the directory's claim.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hubcast_backplane::HubName;

use super::Identity;

/// The prefix of tickets: JSON Web Tokens never begin so.
const PREFIX: &str = "ticket_";
const NONCE_BYTES: usize = 12;

/// Returns whether a token is a ticket.
pub(super) fn is_ticket(token: &str) -> bool {
    token.starts_with(PREFIX)
}

/// Issues and reads tickets of all hubs.
pub(crate) struct TicketCipher {
    key: RandomizedNonceKey,
}

impl TicketCipher {
    /// `None` when the system has no such cipher.
    pub(crate) fn new(cluster_secret: &[u8]) -> Option<Self> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, cluster_secret);
        let key = hmac::sign(&key, b"hubcast ticket key");
        let key = RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).ok()?;
        Some(Self { key })
    }

    /// Makes a ticket for the holder of this connection token. `None` for clients that showed nothing.
    pub(crate) fn issue(&self, hub: &HubName, connection_token: &str, identity: &Identity) -> Option<String> {
        let mut sealed = identity.to_json()?.into_bytes();
        let nonce = self
            .key
            .seal_in_place_append_tag(bound_to(hub, connection_token), &mut sealed)
            .ok()?;
        let mut bytes = nonce.as_ref().to_vec();
        bytes.append(&mut sealed);
        Some(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Returns the identity in a ticket for that connection token; `None` if the ticket is not valid for it.
    pub(crate) fn read(&self, hub: &HubName, connection_token: &str, ticket: &str) -> Option<Identity> {
        let bytes = URL_SAFE_NO_PAD.decode(ticket.strip_prefix(PREFIX)?).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let json = self
            .key
            .open_in_place(nonce, bound_to(hub, connection_token), &mut sealed)
            .ok()?;
        Identity::from_json(json)
    }
}

fn bound_to(hub: &HubName, connection_token: &str) -> Aad<Vec<u8>> {
    Aad::from([hub.as_str().as_bytes(), b"\0", connection_token.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hub(name: &str) -> HubName {
        HubName::parse(name).unwrap()
    }

    #[test]
    fn a_ticket_is_for_one_connection_of_one_hub_of_one_cluster() {
        let claims = json!({ "sub": "ann", "role": "admin", "exp": 4_102_444_800_u64 });
        let ann = Identity::from_claims(claims.as_object().cloned().unwrap()).unwrap();
        let booth = TicketCipher::new(b"secret").unwrap();
        let ticket = booth.issue(&hub("chat"), "token", &ann).unwrap();
        assert!(is_ticket(&ticket) && !ticket.contains("ann"));
        let elsewhere = TicketCipher::new(b"secret").unwrap();
        let read = elsewhere.read(&hub("chat"), "token", &ticket).unwrap();
        assert_eq!(read.user().unwrap().as_str(), "ann");
        assert!(read.has_role("admin"));
        assert!(booth.read(&hub("chat"), "other", &ticket).is_none());
        assert!(booth.read(&hub("news"), "token", &ticket).is_none());
        let other = TicketCipher::new(b"other").unwrap();
        assert!(other.read(&hub("chat"), "token", &ticket).is_none());
        assert_ne!(
            booth.issue(&hub("chat"), "token", &ann).unwrap(),
            ticket,
            "no two are alike"
        );
    }

    #[test]
    fn a_changed_ticket_is_none() {
        let ann = Identity::from_claims(serde_json::Map::new()).unwrap();
        let booth = TicketCipher::new(b"secret").unwrap();
        let ticket = booth.issue(&hub("chat"), "token", &ann).unwrap();
        for i in PREFIX.len()..ticket.len() {
            let other = if ticket.as_bytes()[i] == b'A' { "B" } else { "A" };
            let mut changed = ticket.clone();
            changed.replace_range(i..=i, other);
            assert!(booth.read(&hub("chat"), "token", &changed).is_none(), "{i}");
        }
        for text in ["", PREFIX, "ticket_A", "ticket_!", &ticket[..ticket.len() - 4]] {
            assert!(booth.read(&hub("chat"), "token", text).is_none(), "{text}");
        }
        assert!(booth.issue(&hub("chat"), "t", &Identity::anonymous()).is_none());
    }
}
