use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, encode};
use serde_json::json;

use super::*;

const KEY: &str = "an access key of at least 32 bytes";
const OTHER: &str = "another access key of at least 32 bytes";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn options() -> AuthOptions {
    AuthOptions {
        access_key: Some(KEY.into()),
        access_key_secondary: Some(OTHER.into()),
        ..AuthOptions::default()
    }
}

fn verifier() -> JwtVerifier {
    verifier_of(&options())
}

fn verifier_of(options: &AuthOptions) -> JwtVerifier {
    JwtVerifier::new(options, TokenKeys::new(options).unwrap())
}

fn signed(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

fn token(algorithm: Algorithm, key: &str, claims: &Value) -> String {
    signed(algorithm, &EncodingKey::from_secret(key.as_bytes()), claims)
}

/// A pair of keys: one signs, the other is given in PEM and as JWK.
struct Pair {
    signs: EncodingKey,
    algorithms: Vec<Algorithm>,
    public_pem: String,
    jwk: Value,
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        lines.join("\n")
    )
}

fn pair(signs: EncodingKey, algorithms: &[Algorithm], public_der: &[u8], id: &str) -> Pair {
    let jwk = Jwk::from_encoding_key(&signs, algorithms[0]).unwrap();
    let mut jwk = serde_json::to_value(&jwk).unwrap();
    jwk.as_object_mut().unwrap().remove("alg");
    jwk["kid"] = id.into();
    Pair {
        signs,
        algorithms: algorithms.to_vec(),
        public_pem: pem(public_der),
        jwk,
    }
}

fn pairs() -> Vec<Pair> {
    use aws_lc_rs::encoding::PublicKeyX509Der;
    use aws_lc_rs::signature::KeyPair as _;
    let rsa = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let rsa_private = AsDer::<Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
    let rsa_private = EncodingKey::from_rsa_pem(private_pem(rsa_private.as_ref()).as_bytes()).unwrap();
    let rsa_public = AsDer::<PublicKeyX509Der<'_>>::as_der(rsa.public_key()).unwrap();
    let mut pairs = vec![pair(
        rsa_private,
        &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        rsa_public.as_ref(),
        "rsa",
    )];
    for (kind, algorithm, id) in [
        (&ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::ES256, "p256"),
        (&ECDSA_P384_SHA384_FIXED_SIGNING, Algorithm::ES384, "p384"),
    ] {
        let key = EcdsaKeyPair::generate(kind).unwrap();
        let private = key.to_pkcs8v1().unwrap();
        let public = AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key()).unwrap();
        let private = EncodingKey::from_ec_der(private.as_ref());
        pairs.push(pair(private, &[algorithm], public.as_ref(), id));
    }
    let key = Ed25519KeyPair::generate().unwrap();
    let private = key.to_pkcs8v1().unwrap();
    let public = AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key()).unwrap();
    let private = EncodingKey::from_ed_der(private.as_ref());
    pairs.push(pair(private, &[Algorithm::EdDSA], public.as_ref(), "ed"));
    pairs
}

fn private_pem(der: &[u8]) -> String {
    pem(der).replace("PUBLIC", "PRIVATE")
}

struct Files(std::path::PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hubcast-keys-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn every_algorithm_is_accepted_with_keys_from_pem_and_from_a_set() {
    let files = Files::new("algorithms");
    let pairs = pairs();
    let set = json!({ "keys": pairs.iter().map(|pair| &pair.jwk).collect::<Vec<_>>() });
    let by_set = verifier_of(&AuthOptions {
        jwks_file: Some(files.write("set.json", &set.to_string())),
        ..AuthOptions::default()
    });
    let by_pem = verifier_of(&AuthOptions {
        key_files: pairs
            .iter()
            .enumerate()
            .map(|(i, pair)| files.write(&format!("{i}.pem"), &pair.public_pem))
            .collect(),
        ..AuthOptions::default()
    });
    let claims = json!({ "sub": "ann", "exp": now() + 60 });
    let mut count = 0;
    for pair in &pairs {
        for algorithm in &pair.algorithms {
            let plain = signed(*algorithm, &pair.signs, &claims);
            let mut header = Header::new(*algorithm);
            header.kid = pair.jwk["kid"].as_str().map(str::to_owned);
            let named = encode(&header, &claims, &pair.signs).unwrap();
            for verifier in [&by_set, &by_pem] {
                for token in [&plain, &named] {
                    let identity = verifier.verify(None, token).await;
                    let identity = identity.unwrap_or_else(|error| panic!("{algorithm:?}: {error}"));
                    assert_eq!(identity.user().unwrap().as_str(), "ann");
                }
            }
            assert_eq!(
                verifier().verify(None, &plain).await.err(),
                Some(AuthError::Invalid),
                "not without the key"
            );
            count += 1;
        }
    }
    assert_eq!(count, 9);
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        assert!(
            verifier()
                .verify(None, &token(algorithm, KEY, &claims))
                .await
                .is_ok()
        );
    }
}

/// The public key is no secret: a token signed with it as if it were one is refused.
#[tokio::test]
async fn a_public_key_is_no_shared_key() {
    let files = Files::new("confusion");
    for (i, pair) in pairs().iter().enumerate() {
        let path = files.write(&format!("{i}.pem"), &pair.public_pem);
        let verifier = verifier_of(&AuthOptions {
            key_files: vec![path],
            ..options()
        });
        let der = STANDARD
            .decode(
                pair.public_pem
                    .lines()
                    .filter(|line| !line.starts_with('-'))
                    .collect::<String>(),
            )
            .unwrap();
        let claims = json!({ "sub": "mallory", "exp": now() + 60 });
        for secret in [
            pair.public_pem.as_bytes(),
            pair.public_pem.trim().as_bytes(),
            &der,
        ] {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let forged = signed(algorithm, &EncodingKey::from_secret(secret), &claims);
                assert_eq!(
                    verifier.verify(None, &forged).await.err(),
                    Some(AuthError::Invalid)
                );
            }
        }
    }
}

#[tokio::test]
async fn both_keys_are_accepted_and_the_user_is_nameid_before_sub() {
    let user = async |key, claims: Value| {
        let identity = verifier()
            .verify(None, &token(Algorithm::HS256, key, &claims))
            .await
            .unwrap();
        identity.user().map(ToString::to_string)
    };
    let ann = Some("ann".to_owned());
    for key in [KEY, OTHER] {
        assert_eq!(
            user(key, json!({ "exp": now() + 60, "nameid": "ann", "sub": "bob" })).await,
            ann
        );
    }
    assert_eq!(user(KEY, json!({ "exp": now() + 60, "sub": "ann" })).await, ann);
    assert_eq!(user(KEY, json!({ "exp": now() + 60 })).await, None);
}

#[tokio::test]
async fn what_is_not_exactly_right_is_refused() {
    let refused = async |token: String| verifier().verify(None, &token).await.err();
    let good = json!({ "exp": now() + 60 });
    let stranger = token(Algorithm::HS256, "a third key, also of 32 bytes or so", &good);
    assert_eq!(refused(stranger).await, Some(AuthError::Invalid));
    for (claims, error) in [
        (json!({ "exp": now() - 600 }), AuthError::Expired),
        (json!({ "sub": "no expiry" }), AuthError::Invalid),
        (json!({ "exp": "tomorrow" }), AuthError::Invalid),
        (
            json!({ "exp": now() + 900, "nbf": now() + 600 }),
            AuthError::NotYet,
        ),
        (json!({ "exp": now() + 60, "nbf": "now" }), AuthError::Invalid),
        (json!({ "exp": now() + 60, "sub": true }), AuthError::UserId),
    ] {
        let token = token(Algorithm::HS256, KEY, &claims);
        assert_eq!(refused(token).await, Some(error), "{claims}");
    }
    // Clocks differ by less than the leeway.
    for claims in [
        json!({ "exp": now() - 20 }),
        json!({ "exp": now() + 60, "nbf": now() + 20 }),
    ] {
        assert_eq!(refused(token(Algorithm::HS256, KEY, &claims)).await, None);
    }
    for header in [
        r#"{"alg":"none","typ":"JWT"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":""}"#,
        "{}",
    ] {
        let parts = [header.to_owned(), good.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part));
        for signature in ["", "AAAA"] {
            let unsigned = format!("{}.{}.{signature}", parts[0], parts[1]);
            assert_eq!(refused(unsigned).await, Some(AuthError::Invalid), "{header}");
        }
    }
    for text in ["", ".", "..", "...", "a.b.c", "nonsense"] {
        assert_eq!(refused(text.to_owned()).await, Some(AuthError::Invalid));
    }
    let long = json!({ "exp": now() + 60, "x": "x".repeat(MAX_TOKEN_BYTES) });
    assert_eq!(
        refused(token(Algorithm::HS256, KEY, &long)).await,
        Some(AuthError::TooLong)
    );
}

#[tokio::test]
async fn a_token_for_others_opens_nothing() {
    let check = async |audience: Value, hub: Option<&str>| {
        let claims = json!({ "exp": now() + 60, "aud": audience });
        verifier()
            .verify(hub, &token(Algorithm::HS512, KEY, &claims))
            .await
            .err()
    };
    let client = json!("https://gw.example/client/?hub=chat");
    assert_eq!(check(client.clone(), Some("chat")).await, None);
    assert_eq!(check(client, Some("news")).await, Some(AuthError::Audience));
    for other in [
        json!("https://gw.example/server/?hub=chat"),
        json!("https://gw.example/api/hubs/chat/:send?api-version=2022-06-01"),
        json!("my-app"),
        json!(null),
        json!([]),
    ] {
        assert_eq!(
            check(other.clone(), Some("chat")).await,
            Some(AuthError::Audience),
            "{other}"
        );
    }
}

#[tokio::test]
async fn issuer_and_audience_are_required_of_public_keys_and_must_fit_for_all() {
    let files = Files::new("issuer");
    let pairs = pairs();
    let ed = pairs.last().unwrap();
    let verifier = verifier_of(&AuthOptions {
        key_files: vec![files.write("ed.pem", &ed.public_pem)],
        issuers: vec!["https://idp.example".to_owned()],
        audiences: vec!["my-app".to_owned()],
        ..options()
    });
    let (idp, app) = (json!("https://idp.example"), json!("my-app"));
    for (issuer, audience, own, public) in [
        (Some(&idp), Some(&app), None, None),
        (None, Some(&app), None, Some(AuthError::Issuer)),
        (Some(&idp), None, None, Some(AuthError::Audience)),
        (
            Some(&json!("https://evil.example")),
            Some(&app),
            Some(AuthError::Issuer),
            Some(AuthError::Issuer),
        ),
        (
            Some(&idp),
            Some(&json!("other")),
            Some(AuthError::Audience),
            Some(AuthError::Audience),
        ),
        (
            Some(&json!(["https://idp.example"])),
            Some(&app),
            Some(AuthError::Issuer),
            Some(AuthError::Issuer),
        ),
    ] {
        let mut claims = json!({ "exp": now() + 60 });
        if let Some(issuer) = issuer {
            claims["iss"] = issuer.clone();
        }
        if let Some(audience) = audience {
            claims["aud"] = audience.clone();
        }
        let by_own = token(Algorithm::HS256, KEY, &claims);
        let by_public = signed(Algorithm::EdDSA, &ed.signs, &claims);
        assert_eq!(
            verifier.verify(Some("chat"), &by_own).await.err(),
            own,
            "{claims}"
        );
        assert_eq!(
            verifier.verify(Some("chat"), &by_public).await.err(),
            public,
            "{claims}"
        );
    }
}

#[test]
fn a_key_that_can_not_be_used_is_named() {
    let files = Files::new("bad");
    let none = files.0.join("none");
    let key = |options: &AuthOptions| TokenKeys::new(options).err().map(|error| error.key);
    let options = AuthOptions::default;
    assert_eq!(
        key(&AuthOptions {
            key_files: vec![none.clone()],
            ..options()
        }),
        Some("auth.key_files")
    );
    assert_eq!(
        key(&AuthOptions {
            jwks_file: Some(none),
            ..options()
        }),
        Some("auth.jwks_file")
    );
    assert_eq!(
        key(&AuthOptions {
            jwks_url: Some("https://idp.example/keys".to_owned()),
            jwks_ca_file: Some(files.write("ca.pem", "nothing")),
            ..options()
        }),
        Some("auth.jwks_ca_file")
    );
    assert_eq!(key(&options()), None);
}

#[tokio::test]
async fn a_token_that_wants_more_than_is_understood_is_refused() {
    let key = EncodingKey::from_secret(KEY.as_bytes());
    let claims = json!({ "sub": "ann", "exp": now() + 60 });
    let mut header = Header::new(Algorithm::HS256);
    let plain = encode(&header, &claims, &key).unwrap();
    assert!(verifier().verify(None, &plain).await.is_ok());
    header.crit = Some(vec!["exp".to_owned()]);
    let critical = encode(&header, &claims, &key).unwrap();
    assert_eq!(
        verifier().verify(None, &critical).await.unwrap_err(),
        AuthError::Invalid
    );
    for (header, readable) in [
        (json!({ "alg": "HS256" }), true),
        (json!({ "alg": "HS256", "b64": false }), false),
        (json!({ "alg": "HS256", "b64": true }), false),
        (json!({ "alg": "HS256", "crit": [] }), false),
        (json!({ "alg": "none" }), false),
    ] {
        let token = format!("{}.e30.AA", URL_SAFE_NO_PAD.encode(header.to_string()));
        assert_eq!(read_header(&token).is_ok(), readable, "{header}");
    }
}
