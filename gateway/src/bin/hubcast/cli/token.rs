//! `hubcast token`: signs the token that a client shows when it connects.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::json;

use super::{ConfigArgs, Failure, output::print};

/// Flags of `hubcast token`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TokenArgs {
    /// The user whom the token stands for
    #[arg(long, value_name = "ID", required_unless_present = "rest")]
    user: Option<String>,
    /// The only hub that the token is for [default: any]
    #[arg(long, value_name = "HUB")]
    hub: Option<String>,
    /// A role that the user has; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// Make a token for REST requests to this URL, instead of one for a client
    #[arg(long, value_name = "URL", conflicts_with_all = ["user", "hub", "roles"], value_parser = parse_url)]
    rest: Option<String>,
    /// How long the token is valid, such as 90s, 15m, 1h or 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_lifetime)]
    lifetime: Duration,
    /// Print one JSON object with the token and its end, for scripts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) const EXAMPLES: &str = "\
The access key is that of the configuration, from a file or from HUBCAST_ACCESS_KEY: the same as the nodes'.

Examples:
  hubcast token --user ana
  hubcast token --user ana --hub chat --role admin --role editor --lifetime 15m --config hubcast.toml
  curl -X POST \"http://127.0.0.1:8080/hubs/chat/negotiate?negotiateVersion=1\" \\
       -H \"Authorization: Bearer $(hubcast token --user ana)\"
  hubcast token --rest \"http://127.0.0.1:8080/api/hubs/chat/:send\"
  hubcast token --user ana --json";

pub(super) fn run(args: TokenArgs) -> Result<(), Failure> {
    let auth = args.config.load()?.config.options.auth;
    let Some(key) = auth.access_key else {
        return Err(Failure::Usage(NO_KEY.to_owned()));
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let hub = args.hub.map(|hub| format!("/hubs/{hub}"));
    let audience = args.rest.or(hub);
    let claims = Claims::new(args.user.as_deref(), audience, &args.roles, now, args.lifetime);
    let mut claims = serde_json::to_value(claims).map_err(|error| Failure::Runtime(error.to_string()))?;
    if let Some((claim, user)) = auth.user_claim.zip(args.user) {
        claims[claim] = user.into();
    }
    let token = sign(&claims, key.expose_secret().as_bytes())?;
    let object = json!({ "token": token, "expires": claims["exp"] });
    print(args.json, &object, &token)
}

const NO_KEY: &str = "access_key is not set; set HUBCAST_ACCESS_KEY, or access_key in the file that --config \
     names, to the key of the nodes that the token is for";

/// The claims of the token.
#[derive(Serialize)]
struct Claims<'a> {
    /// The claim in which ASP.NET Core and Azure SignalR look for the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    nameid: Option<&'a str>,
    /// The claim in which all others look for the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    role: &'a [String],
    iat: u64,
    nbf: u64,
    exp: u64,
}

impl<'a> Claims<'a> {
    fn new(
        user: Option<&'a str>,
        audience: Option<String>,
        roles: &'a [String],
        now: Duration,
        lifetime: Duration,
    ) -> Self {
        Self {
            nameid: user,
            sub: user,
            aud: audience,
            role: roles,
            iat: now.as_secs(),
            nbf: now.as_secs(),
            exp: now.saturating_add(lifetime).as_secs(),
        }
    }
}

pub(super) fn sign(claims: &impl Serialize, key: &[u8]) -> Result<String, Failure> {
    jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        claims,
        &EncodingKey::from_secret(key),
    )
    .map_err(|error| Failure::Runtime(format!("the token can't be signed: {error}")))
}

fn parse_url(text: &str) -> Result<String, String> {
    let wrong = || "write the whole URL, such as http://127.0.0.1:8080/api/hubs/chat/:send".to_owned();
    let url = text.parse::<axum::http::Uri>().map_err(|_| wrong())?;
    match (url.scheme_str(), url.host()) {
        (Some("http" | "https"), Some(_)) => Ok(text.to_owned()),
        _ => Err(wrong()),
    }
}

pub(super) fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        other => return Err(format!("{other:?} is not a unit; use s, m, h or d")),
    };
    let seconds = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|s| *s > 0);
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "write a whole number and a unit, such as 1h".to_owned())
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_token_carries_its_claims() {
        let key = [7; 32];
        let roles = ["admin".to_owned()];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let claims = Claims::new(
            Some("ana"),
            Some("/hubs/chat".to_owned()),
            &roles,
            now,
            Duration::from_secs(60),
        );
        let token = sign(&claims, &key).unwrap();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&["/hubs/chat"]);
        let decoded =
            jsonwebtoken::decode::<Value>(&token, &DecodingKey::from_secret(&key), &validation).unwrap();
        let now = now.as_secs();
        let expected = json!({
            "nameid": "ana", "sub": "ana", "aud": "/hubs/chat", "role": ["admin"],
            "iat": now, "nbf": now, "exp": now + 60,
        });
        assert_eq!(decoded.claims, expected);
    }

    #[test]
    fn a_token_without_hub_or_role_has_no_such_claim() {
        let claims = Claims::new(Some("ana"), None, &[], Duration::ZERO, Duration::from_secs(60));
        let claims = serde_json::to_value(&claims).unwrap();
        assert!(claims.get("aud").is_none() && claims.get("role").is_none());
    }

    #[test]
    fn lifetimes_have_units() {
        let seconds = |text| parse_lifetime(text).map(|lifetime| lifetime.as_secs());
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("15m"), Ok(900));
        assert_eq!(seconds("1h"), Ok(3600));
        assert_eq!(seconds("7d"), Ok(604_800));
        for wrong in ["", "h", "0h", "-1h", "1.5h", "1w", "99999999999999999d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
