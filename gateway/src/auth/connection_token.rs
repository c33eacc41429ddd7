//! The secret that a client gets from negotiate and shows on every later request.
//!
//! Negotiate stores nothing: the token itself says which connection it may create and until when, under a MAC keyed by
//! the cluster's secret, so every node accepts it. That it creates its connection only once is the directory's matter, and
//! for a directory that has forgotten, the token says in which epoch of the hub it was issued. Times are the cluster's:
//! nodes' own clocks may differ.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{constant_time, hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hubcast_backplane::{ConnectionId, Epoch, HubName, UserId};

use super::resume_point::{PART_BYTES, hash};

const ID_BYTES: usize = 16;
const TIME_BYTES: usize = 8;
const BODY_BYTES: usize = 1 + ID_BYTES + TIME_BYTES + PART_BYTES + PART_BYTES;
const MAC_BYTES: usize = 16;

/// The connection id is separate from the token (negotiate version 1).
const KIND_SEPARATE: u8 = 1;
/// The token is also the connection id (negotiate version 0).
const KIND_SAME: u8 = 0;
/// As [`KIND_SEPARATE`], and the connection may resume after a lost socket.
const KIND_STATEFUL: u8 = 2;
/// A Web PubSub client's reconnection token: it creates nothing, and is as good as its connection is alive.
const KIND_RECOVERY: u8 = 3;
/// Not a token: the user's part of one.
const KIND_USER: u8 = 4;

/// The kind of connection token, by the version that negotiate agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// Version 0: the token is the connection id.
    Same,
    /// Version 1.
    Separate,
    /// Version 1 with stateful reconnect.
    Stateful,
}

/// The content of a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectionToken {
    /// The connection that it stands for.
    pub(crate) id: ConnectionId,
    /// How much longer it may create that connection; `None` when it no longer may.
    pub(crate) creates_within: Option<Duration>,
    /// True if stateful reconnect was agreed on.
    pub(crate) stateful: bool,
    /// The beginning of a hash of the epoch in which it was issued.
    epoch: [u8; PART_BYTES],
    /// The beginning of a MAC of the user who negotiated.
    user: [u8; PART_BYTES],
}

impl ConnectionToken {
    /// Returns whether it was issued in this epoch of its hub: then no other one has seen its connection.
    pub(crate) fn is_of(&self, epoch: &Epoch) -> bool {
        self.epoch == hash(epoch)
    }
}

/// The reason why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the connection token is not one of this cluster")]
    Forged,
    #[error("no random bytes are to be had from the system")]
    NoRandomness,
}

/// Issues and checks connection tokens of all hubs.
pub(crate) struct TokenSigner {
    key: hmac::Key,
}

/// A fresh public connection id: 16 random bytes, 22 characters.
pub(crate) fn random_connection_id() -> Result<ConnectionId, TokenError> {
    id_from(&random_bytes()?)
}

fn random_bytes() -> Result<[u8; ID_BYTES], TokenError> {
    let mut bytes = [0; ID_BYTES];
    rand::fill(&mut bytes).map_err(|_| TokenError::NoRandomness)?;
    Ok(bytes)
}

fn id_from(bytes: &[u8]) -> Result<ConnectionId, TokenError> {
    ConnectionId::parse(URL_SAFE_NO_PAD.encode(bytes)).map_err(|_| TokenError::Forged)
}

impl TokenSigner {
    pub(crate) fn new(cluster_secret: &[u8]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, cluster_secret),
        }
    }

    /// A fresh connection id and its token, which may create the connection for this user until a time of the cluster.
    /// `epoch`: the hub's present one.
    pub(crate) fn issue(
        &self,
        hub: &HubName,
        until: SystemTime,
        epoch: &Epoch,
        user: Option<&UserId>,
        kind: TokenKind,
    ) -> Result<(ConnectionId, String), TokenError> {
        let random = random_bytes()?;
        let expires = millis(until);
        let mut body = Vec::with_capacity(BODY_BYTES + MAC_BYTES);
        body.push(match kind {
            TokenKind::Same => KIND_SAME,
            TokenKind::Separate => KIND_SEPARATE,
            TokenKind::Stateful => KIND_STATEFUL,
        });
        body.extend_from_slice(&random);
        body.extend_from_slice(&expires.to_be_bytes());
        body.extend_from_slice(&hash(epoch));
        body.extend_from_slice(&self.mark(hub, user));
        let mac = self.mac(hub, &body);
        body.extend_from_slice(&mac);
        let token = URL_SAFE_NO_PAD.encode(&body);
        let id = match kind {
            TokenKind::Same => ConnectionId::parse(&token).map_err(|_| TokenError::Forged)?,
            TokenKind::Separate | TokenKind::Stateful => id_from(&random)?,
        };
        Ok((id, token))
    }

    /// Reads a token of `hub`, at a time of the cluster.
    pub(crate) fn read(
        &self,
        hub: &HubName,
        token: &str,
        now: SystemTime,
    ) -> Result<ConnectionToken, TokenError> {
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| TokenError::Forged)?;
        let (body, mac) = bytes.split_at_checked(BODY_BYTES).ok_or(TokenError::Forged)?;
        constant_time::verify_slices_are_equal(mac, &self.mac(hub, body)).map_err(|_| TokenError::Forged)?;
        let (kind, rest) = body.split_first().ok_or(TokenError::Forged)?;
        let (random, rest) = rest.split_at_checked(ID_BYTES).ok_or(TokenError::Forged)?;
        let (expires, rest) = rest.split_at_checked(TIME_BYTES).ok_or(TokenError::Forged)?;
        let (epoch, user) = rest.split_at_checked(PART_BYTES).ok_or(TokenError::Forged)?;
        let expires = u64::from_be_bytes(expires.try_into().map_err(|_| TokenError::Forged)?);
        let id = match *kind {
            KIND_SEPARATE | KIND_STATEFUL => id_from(random)?,
            KIND_SAME => ConnectionId::parse(token).map_err(|_| TokenError::Forged)?,
            _ => return Err(TokenError::Forged),
        };
        let creates_within = expires.checked_sub(millis(now)).map(Duration::from_millis);
        Ok(ConnectionToken {
            id,
            creates_within,
            stateful: *kind == KIND_STATEFUL,
            epoch: epoch.try_into().map_err(|_| TokenError::Forged)?,
            user: user.try_into().map_err(|_| TokenError::Forged)?,
        })
    }

    /// Returns whether the token was negotiated by that user, or without one: only then may the token create its
    /// connection.
    pub(crate) fn is_for(&self, hub: &HubName, token: &ConnectionToken, user: Option<&UserId>) -> bool {
        token.user == self.mark(hub, user)
    }

    fn mark(&self, hub: &HubName, user: Option<&UserId>) -> [u8; PART_BYTES] {
        let mut body = vec![KIND_USER];
        if let Some(user) = user {
            body.push(b':');
            body.extend_from_slice(user.as_str().as_bytes());
        }
        let mut mark = [0; PART_BYTES];
        for (to, from) in mark.iter_mut().zip(self.mac(hub, &body)) {
            *to = from;
        }
        mark
    }

    /// The token by which the client of a connection that outlives its sockets comes back.
    pub(crate) fn recovery(&self, hub: &HubName, id: &ConnectionId) -> String {
        let mut body = vec![KIND_RECOVERY];
        body.extend_from_slice(id.as_str().as_bytes());
        let mac = self.mac(hub, &body);
        URL_SAFE_NO_PAD.encode(mac)
    }

    /// Returns whether a client has shown the [`recovery`](Self::recovery) token of a connection.
    pub(crate) fn may_recover(&self, hub: &HubName, id: &ConnectionId, token: &str) -> bool {
        let expected = self.recovery(hub, id);
        constant_time::verify_slices_are_equal(expected.as_bytes(), token.as_bytes()).is_ok()
    }

    fn mac(&self, hub: &HubName, body: &[u8]) -> [u8; MAC_BYTES] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(b"hubcast connection token\0");
        context.update(hub.as_str().as_bytes());
        context.update(b"\0");
        context.update(body);
        let tag = context.sign();
        let mut mac = [0; MAC_BYTES];
        for (to, from) in mac.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        mac
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(name: &str) -> HubName {
        HubName::parse(name).unwrap()
    }

    fn user(name: &str) -> Option<UserId> {
        UserId::parse(name).ok()
    }

    #[test]
    fn a_token_is_read_by_every_node_with_the_secret_and_by_nobody_else() {
        let signer = TokenSigner::new(b"secret");
        let (now, epoch) = (SystemTime::now(), Epoch::new("first"));
        let until = now + Duration::from_secs(15);
        let (id, token) = signer
            .issue(
                &hub("chat"),
                until,
                &epoch,
                user("ann").as_ref(),
                TokenKind::Separate,
            )
            .unwrap();
        assert_eq!(id.as_str().len(), 22);
        assert_ne!(id.as_str(), token);
        let read = TokenSigner::new(b"secret")
            .read(&hub("chat"), &token, now)
            .unwrap();
        assert_eq!(read.id, id);
        assert_eq!(read.creates_within, Some(Duration::from_secs(15)));
        assert!(read.is_of(&epoch) && !read.is_of(&Epoch::new("second")));
        let is_for = |name: Option<&str>| signer.is_for(&hub("chat"), &read, name.and_then(user).as_ref());
        assert!(is_for(Some("ann")));
        assert!(!is_for(Some("bob")) && !is_for(None));
        assert_eq!(
            TokenSigner::new(b"other").read(&hub("chat"), &token, now),
            Err(TokenError::Forged)
        );
        assert_eq!(
            signer.read(&hub("news"), &token, now),
            Err(TokenError::Forged),
            "a token is for one hub"
        );
        assert_eq!(
            signer.read(&hub("chat"), id.as_str(), now),
            Err(TokenError::Forged),
            "the id is not the token"
        );
        for text in ["", "A", "not base64!", &token[1..], &format!("{token}A")] {
            assert_eq!(
                signer.read(&hub("chat"), text, now),
                Err(TokenError::Forged),
                "{text}"
            );
        }
    }

    #[test]
    fn an_old_token_creates_nothing_and_version_0_has_one_name() {
        let signer = TokenSigner::new(b"secret");
        let now = SystemTime::now();
        let (id, token) = signer
            .issue(&hub("chat"), now, &Epoch::new("first"), None, TokenKind::Same)
            .unwrap();
        assert_eq!(id.as_str(), token);
        let later = now + Duration::from_millis(5);
        let read = signer.read(&hub("chat"), &token, later).unwrap();
        assert_eq!((read.id, read.creates_within), (id, None));
    }
}
