//! Signatures of requests, by which handlers know that they come from a gateway that has their key.

use std::fmt::Write as _;

use aws_lc_rs::hmac;
use secrecy::{ExposeSecret, SecretString};

/// The signature header's value: `sha256=` and the HMAC of the connection id in lower-case hex, for each key, with a comma
/// and no space between. `None` without keys.
pub(super) fn signature(keys: &[SecretString], connection: &str) -> Option<String> {
    let mut value = String::new();
    for key in keys {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose_secret().as_bytes());
        if !value.is_empty() {
            value.push(',');
        }
        value.push_str("sha256=");
        for byte in hmac::sign(&key, connection.as_bytes()).as_ref() {
            let _ = write!(value, "{byte:02x}"); // writing to a String does not fail
        }
    }
    Some(value).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_azure_signalr() {
        let key = SecretString::from("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH");
        let one = "sha256=261f7f58ff9fb9bb8be7e4951a807fe6091e5c074885bf63b865eccd28728881";
        assert_eq!(
            signature(std::slice::from_ref(&key), "conn-1").as_deref(),
            Some(one)
        );
        let both = signature(&[key.clone(), key], "conn-1");
        assert_eq!(both, Some(format!("{one},{one}")));
        assert_eq!(signature(&[], "conn-1"), None);
    }
}
