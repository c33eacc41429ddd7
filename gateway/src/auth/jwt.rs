//! JSON Web Tokens signed with the shared access keys.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::{Map, Value};

use super::{AuthError, Identity};
use crate::options::AuthOptions;

/// Longest accepted token, in bytes: what fits into request headers anyway.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Checks HS256 tokens against the access keys. Without a key no token is valid.
pub(crate) struct JwtVerifier {
    keys: Vec<DecodingKey>,
    validation: Validation,
}

impl JwtVerifier {
    pub(crate) fn new(options: &AuthOptions) -> Self {
        // The algorithm is fixed here and never taken from the token: `none` and other families are refused.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = options.leeway.0.as_secs();
        validation.validate_nbf = true;
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp"]);
        Self {
            keys: options.keys().map(DecodingKey::from_secret).collect(),
            validation,
        }
    }

    pub(crate) fn verify(&self, token: &str) -> Result<Identity, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::Invalid);
        }
        let mut refusal = AuthError::Invalid;
        for key in &self.keys {
            match decode::<Map<String, Value>>(token, key, &self.validation) {
                Ok(data) => return Identity::from_claims(data.claims),
                Err(error) if matches!(error.kind(), ErrorKind::ExpiredSignature) => {
                    refusal = AuthError::Expired;
                }
                Err(_) => {}
            }
        }
        Err(refusal)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const KEY: &str = "an access key of at least 32 bytes";
    const OTHER: &str = "another access key of at least 32 bytes";

    fn verifier() -> JwtVerifier {
        let options = AuthOptions {
            access_key: Some(KEY.into()),
            access_key_secondary: Some(OTHER.into()),
            ..AuthOptions::default()
        };
        JwtVerifier::new(&options)
    }

    fn token(algorithm: Algorithm, key: &str, claims: &Value) -> String {
        encode(
            &Header::new(algorithm),
            claims,
            &EncodingKey::from_secret(key.as_bytes()),
        )
        .unwrap()
    }

    fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    #[test]
    fn both_keys_are_accepted_and_the_user_is_nameid_before_sub() {
        let claims = json!({"exp": now() + 60, "nameid": "ann", "sub": "bob"});
        for key in [KEY, OTHER] {
            let identity = verifier().verify(&token(Algorithm::HS256, key, &claims)).unwrap();
            assert_eq!(identity.user().unwrap().as_str(), "ann");
        }
        let claims = json!({"exp": now() + 60, "sub": "bob"});
        assert_eq!(
            verifier()
                .verify(&token(Algorithm::HS256, KEY, &claims))
                .unwrap()
                .user()
                .unwrap()
                .as_str(),
            "bob"
        );
        let claims = json!({"exp": now() + 60});
        assert!(
            verifier()
                .verify(&token(Algorithm::HS256, KEY, &claims))
                .unwrap()
                .user()
                .is_none()
        );
    }

    #[test]
    fn what_is_not_exactly_right_is_refused() {
        let good = json!({"exp": now() + 60});
        let refused = |token: String| verifier().verify(&token).err();
        assert_eq!(
            refused(token(
                Algorithm::HS256,
                "a third key, also of 32 bytes or so",
                &good
            )),
            Some(AuthError::Invalid)
        );
        assert_eq!(
            refused(token(Algorithm::HS384, KEY, &good)),
            Some(AuthError::Invalid)
        );
        assert_eq!(
            refused(token(Algorithm::HS256, KEY, &json!({"exp": now() - 600}))),
            Some(AuthError::Expired)
        );
        assert_eq!(
            refused(token(Algorithm::HS256, KEY, &json!({"sub": "no expiry"}))),
            Some(AuthError::Invalid)
        );
        let later = json!({"exp": now() + 900, "nbf": now() + 600});
        assert_eq!(
            refused(token(Algorithm::HS256, KEY, &later)),
            Some(AuthError::Invalid)
        );
        let number = json!({"exp": now() + 60, "sub": 5});
        assert_eq!(
            refused(token(Algorithm::HS256, KEY, &number)),
            Some(AuthError::UserId)
        );
        // {"alg":"none"} with the same claims and no signature
        let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJleHAiOjQxMDI0NDQ4MDB9.";
        assert_eq!(refused(unsigned.to_owned()), Some(AuthError::Invalid));
        assert_eq!(refused(String::new()), Some(AuthError::Invalid));
    }
}
