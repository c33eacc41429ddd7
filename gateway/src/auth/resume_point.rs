//! Places in a hub's log that clients keep: the content of an event's id.
//!
//! A point is offset and epoch under a short MAC keyed by the cluster's secret, so every node reads it and no other
//! process makes one. It opens nothing: the permissions of its holder are checked anew with each request.

use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hubcast_backplane::{Epoch, HubName, Offset, Position};

use super::TokenError;

pub(super) const PART_BYTES: usize = 8;
const BODY_BYTES: usize = 2 * PART_BYTES;

/// A place that a client has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResumePoint {
    offset: Offset,
    /// The beginning of a hash of the epoch: it is only compared with the present one.
    epoch: [u8; PART_BYTES],
}

impl ResumePoint {
    /// The place, if it is of this epoch.
    pub(crate) fn of(&self, epoch: &Epoch) -> Option<Position> {
        (self.epoch == hash(epoch)).then(|| Position {
            epoch: epoch.clone(),
            offset: self.offset,
        })
    }
}

/// Writes and reads the points of all hubs.
pub(crate) struct PointSigner {
    key: hmac::Key,
}

impl PointSigner {
    pub(crate) fn new(cluster_secret: &[u8]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, cluster_secret),
        }
    }

    /// A place as text of 32 letters, digits, `-` and `_`.
    pub(crate) fn write(&self, hub: &HubName, epoch: &Epoch, offset: Offset) -> String {
        let mut bytes = Vec::with_capacity(BODY_BYTES + PART_BYTES);
        bytes.extend_from_slice(&offset.to_be_bytes());
        bytes.extend_from_slice(&hash(epoch));
        let mac = self.mac(hub, &bytes);
        bytes.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a place in `hub`.
    pub(crate) fn read(&self, hub: &HubName, text: &str) -> Result<ResumePoint, TokenError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Forged)?;
        let (body, mac) = bytes.split_at_checked(BODY_BYTES).ok_or(TokenError::Forged)?;
        constant_time::verify_slices_are_equal(mac, &self.mac(hub, body)).map_err(|_| TokenError::Forged)?;
        let (offset, epoch) = body.split_at_checked(PART_BYTES).ok_or(TokenError::Forged)?;
        Ok(ResumePoint {
            offset: Offset::from_be_bytes(offset.try_into().map_err(|_| TokenError::Forged)?),
            epoch: epoch.try_into().map_err(|_| TokenError::Forged)?,
        })
    }

    fn mac(&self, hub: &HubName, body: &[u8]) -> [u8; PART_BYTES] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(b"hubcast resume point\0");
        context.update(hub.as_str().as_bytes());
        context.update(b"\0");
        context.update(body);
        first(context.sign().as_ref())
    }
}

/// The beginning of a hash of the epoch.
pub(super) fn hash(epoch: &Epoch) -> [u8; PART_BYTES] {
    first(digest::digest(&digest::SHA256, epoch.as_str().as_bytes()).as_ref())
}

fn first(bytes: &[u8]) -> [u8; PART_BYTES] {
    let mut part = [0; PART_BYTES];
    for (to, from) in part.iter_mut().zip(bytes) {
        *to = *from;
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_read_by_every_node_with_the_secret_and_made_by_nobody_else() {
        let (chat, news) = (HubName::parse("chat").unwrap(), HubName::parse("news").unwrap());
        let (epoch, other) = (Epoch::new("run-1"), Epoch::new("run-2"));
        let signer = PointSigner::new(b"secret");
        let text = signer.write(&chat, &epoch, 7);
        assert_eq!(text.len(), 32);
        let point = PointSigner::new(b"secret").read(&chat, &text).unwrap();
        assert_eq!(point.of(&epoch), Some(Position { epoch, offset: 7 }));
        assert_eq!(point.of(&other), None);
        assert_eq!(
            PointSigner::new(b"other").read(&chat, &text),
            Err(TokenError::Forged)
        );
        assert_eq!(
            signer.read(&news, &text),
            Err(TokenError::Forged),
            "a point is of one hub"
        );
        let bent = format!("B{}", &text[1..]);
        for text in [
            "",
            "1",
            "not base64!",
            bent.as_str(),
            &text[..31],
            &format!("{text}A"),
        ] {
            assert_eq!(signer.read(&chat, text), Err(TokenError::Forged), "{text}");
        }
    }
}
