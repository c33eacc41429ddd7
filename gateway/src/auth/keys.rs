//! The keys that tokens are checked with. A key fixes which algorithms it may be used with; a token only chooses among
//! them.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use serde_json::Value;

use crate::bom;

/// Most keys that are taken from one place.
const MAX_KEYS: usize = 64;
/// Shortest shared key, in bytes.
const MIN_SECRET_BYTES: usize = 32;

/// One key.
pub(super) struct TokenKey {
    id: Option<String>,
    decoding: DecodingKey,
    validation: Validation,
    /// True if the key is an access key, which the applications of this gateway sign with themselves.
    own: bool,
}

impl TokenKey {
    fn new(id: Option<String>, decoding: DecodingKey, algorithms: Vec<Algorithm>, leeway: u64) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.algorithms = algorithms;
        validation.leeway = leeway;
        validation.validate_nbf = true;
        validation.validate_aud = false; // see `audience`
        validation.set_required_spec_claims(&["exp"]);
        Self {
            id,
            decoding,
            validation,
            own: false,
        }
    }

    /// An access key: any HMAC, whatever key id a token names.
    pub(super) fn access(secret: &[u8], leeway: u64) -> Self {
        let decoding = DecodingKey::from_secret(secret);
        let algorithms = AlgorithmFamily::Hmac.algorithms().to_vec();
        Self {
            own: true,
            ..Self::new(None, decoding, algorithms, leeway)
        }
    }

    /// A public key in PEM: RSA, elliptic curve (P-256, P-384) or Ed25519.
    pub(super) fn from_pem(pem: &[u8], leeway: u64) -> Result<Self, KeyError> {
        if memchr::memmem::find(pem, b"PRIVATE KEY").is_some() {
            return Err(KeyError::Private);
        }
        if memchr::memmem::find(pem, b"BEGIN CERTIFICATE").is_some() {
            return Err(KeyError::Certificate);
        }
        if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            let algorithm = key
                .try_get_as_bytes()
                .ok()
                .and_then(curve)
                .ok_or(KeyError::Unsupported)?;
            return Ok(Self::new(None, key, vec![algorithm], leeway));
        }
        if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            return Ok(Self::new(None, key, vec![Algorithm::EdDSA], leeway));
        }
        let key = DecodingKey::from_rsa_pem(pem).map_err(|_| KeyError::Unsupported)?;
        let algorithms = AlgorithmFamily::Rsa.algorithms().to_vec();
        Ok(Self::new(None, key, algorithms, leeway))
    }

    /// A key of a set. `None` for one that is not for signatures, or of a kind that is not known.
    fn from_jwk(jwk: &Jwk, secrets: bool, leeway: u64) -> Option<Self> {
        let common = &jwk.common;
        if !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms().to_vec(),
            AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(parameters) => match parameters.curve {
                EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
                _ => return None,
            },
            AlgorithmParameters::OctetKey(_) if secrets => AlgorithmFamily::Hmac.algorithms().to_vec(),
            _ => return None,
        };
        if let Some(named) = common.key_algorithm {
            algorithms.retain(|algorithm| KeyAlgorithm::from(*algorithm) == named);
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let too_short = key.family() == AlgorithmFamily::Hmac
            && key
                .try_get_as_bytes()
                .is_ok_and(|secret| secret.len() < MIN_SECRET_BYTES);
        (!algorithms.is_empty() && !too_short)
            .then(|| Self::new(common.key_id.clone(), key, algorithms, leeway))
    }

    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    pub(super) fn validation(&self) -> &Validation {
        &self.validation
    }

    pub(super) fn is_own(&self) -> bool {
        self.own
    }

    /// Returns whether a token with that header may be signed with it.
    pub(super) fn fits(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        let named = match (self.id.as_deref(), id) {
            (Some(own), Some(named)) => own == named,
            _ => true,
        };
        named && self.validation.algorithms.contains(&algorithm)
    }

    /// Returns whether this is the key with that id.
    pub(super) fn is_named(&self, id: &str) -> bool {
        self.id.as_deref() == Some(id)
    }
}

/// The algorithm of a curve, by the length of an uncompressed point.
fn curve(point: &[u8]) -> Option<Algorithm> {
    match point.len() {
        65 => Some(Algorithm::ES256),
        97 => Some(Algorithm::ES384),
        _ => None,
    }
}

/// Reads a JSON Web Key Set. Keys that are of no use here are passed over; `secrets` says whether shared ones are of use.
pub(super) fn read_set(json: &[u8], secrets: bool, leeway: u64) -> Result<Vec<TokenKey>, KeyError> {
    let set: Value = serde_json::from_slice(bom::skip(json)).map_err(|_| KeyError::NotASet)?;
    let entries = set
        .get("keys")
        .and_then(Value::as_array)
        .ok_or(KeyError::NotASet)?;
    if entries.len() > MAX_KEYS {
        return Err(KeyError::TooMany);
    }
    let keys: Vec<_> = entries
        .iter()
        .filter_map(|entry| serde_json::from_value::<Jwk>(entry.clone()).ok())
        .filter_map(|jwk| TokenKey::from_jwk(&jwk, secrets, leeway))
        .collect();
    if keys.is_empty() {
        return Err(KeyError::NoneUsable);
    }
    Ok(keys)
}

/// The reason why there is no key. The texts hold nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyError {
    #[error("holds a private key; keep that where tokens are signed, and give the public one")]
    Private,
    #[error("holds a certificate; give its public key (`openssl x509 -pubkey -noout`)")]
    Certificate,
    #[error("is not a public key in PEM: RSA, an elliptic curve (P-256 or P-384) or Ed25519")]
    Unsupported,
    #[error("is not a JSON Web Key Set (an object with an array \"keys\")")]
    NotASet,
    #[error("has more than {MAX_KEYS} keys")]
    TooMany,
    #[error("has no key that signatures of tokens can be checked with")]
    NoneUsable,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// RFC 7517, appendix A.1, and RFC 8037, appendix A.2.
    fn set() -> Value {
        json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig",
              "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM" },
            { "kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "rsa",
              "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw" },
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" },
            { "kty": "EC", "crv": "P-256", "kid": "enc", "use": "enc",
              "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM" },
            { "kty": "RSA", "e": "AQAB", "n": "AQAB", "alg": "HS256", "kid": "confused" },
            { "kty": "oct", "kid": "shared", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow" },
            { "kty": "oct", "kid": "short", "k": "c2hvcnQ" },
            { "kty": "quantum", "kid": "new" },
            7,
        ] })
    }

    fn ids(secrets: bool) -> Vec<String> {
        let keys = read_set(set().to_string().as_bytes(), secrets, 0).unwrap();
        keys.into_iter().map(|key| key.id.unwrap()).collect()
    }

    #[test]
    fn a_set_gives_what_is_of_use() {
        assert_eq!(ids(false), ["ec", "rsa", "ed"]);
        assert_eq!(ids(true), ["ec", "rsa", "ed", "shared"]);
    }

    #[test]
    fn a_key_fixes_its_algorithms() {
        let keys = read_set(set().to_string().as_bytes(), true, 0).unwrap();
        let fits = |id: &str, algorithm| {
            keys.iter()
                .find(|key| key.is_named(id))
                .unwrap()
                .fits(algorithm, None)
        };
        assert!(fits("ec", Algorithm::ES256) && !fits("ec", Algorithm::ES384));
        assert!(fits("rsa", Algorithm::RS256) && !fits("rsa", Algorithm::RS512));
        assert!(!fits("rsa", Algorithm::HS256) && !fits("ed", Algorithm::HS256));
        assert!(fits("shared", Algorithm::HS512) && !fits("shared", Algorithm::RS256));
        assert!(!keys[0].fits(Algorithm::ES256, Some("other")) && keys[0].fits(Algorithm::ES256, Some("ec")));
        let access = TokenKey::access(&[7; 32], 0);
        assert!(access.fits(Algorithm::HS384, Some("any")) && !access.fits(Algorithm::RS256, None));
    }

    #[test]
    fn what_is_no_set_is_refused() {
        let error = |json: &[u8]| read_set(json, false, 0).err();
        for text in ["", "[]", "{}", "{\"keys\":7}", "<html>"] {
            assert_eq!(error(text.as_bytes()), Some(KeyError::NotASet), "{text}");
        }
        assert_eq!(error(b"{\"keys\":[]}"), Some(KeyError::NoneUsable));
        let many = json!({ "keys": vec![7; MAX_KEYS + 1] }).to_string();
        assert_eq!(error(many.as_bytes()), Some(KeyError::TooMany));
    }

    #[test]
    fn only_public_keys_are_taken_from_pem() {
        let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
        let key = TokenKey::from_pem(public.as_bytes(), 0).unwrap();
        assert!(key.fits(Algorithm::EdDSA, None) && !key.fits(Algorithm::HS256, None));
        let error = |pem: &str| TokenKey::from_pem(pem.as_bytes(), 0).err();
        assert_eq!(error("-----BEGIN RSA PRIVATE KEY-----"), Some(KeyError::Private));
        assert_eq!(error("-----BEGIN CERTIFICATE-----"), Some(KeyError::Certificate));
        assert_eq!(error("secret"), Some(KeyError::Unsupported));
    }
}
