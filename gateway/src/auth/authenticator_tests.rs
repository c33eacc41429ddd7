use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use super::*;

const KEY: &str = "an access key of at least 32 bytes";

fn token(user: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({ "sub": user, "exp": now + 60 });
    encode(
        &Header::default(),
        &claims,
        &EncodingKey::from_secret(KEY.as_bytes()),
    )
    .unwrap()
}

fn authenticator(change: impl FnOnce(&mut AuthOptions)) -> Authenticator {
    let mut options = AuthOptions {
        access_key: Some(KEY.into()),
        ..AuthOptions::default()
    };
    change(&mut options);
    let keys = TokenKeys::new(&options).unwrap();
    Authenticator::new(&options, keys)
}

fn headers(lines: &[(&'static str, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

/// The user and where the token was.
async fn shown(
    authenticator: &Authenticator,
    headers: &HeaderMap,
    query_token: Option<&str>,
) -> Result<(Option<String>, TokenSource), AuthError> {
    let hub = HubName::parse("chat").unwrap();
    let credentials = Credentials {
        hub: &hub,
        headers,
        query_token,
        connection: None,
    };
    let authenticated = authenticator.authenticate(&credentials).await?;
    let user = authenticated.identity.user().map(ToString::to_string);
    Ok((user, authenticated.source))
}

#[tokio::test]
async fn the_header_counts_before_the_query_before_the_cookie() {
    let gate = authenticator(|options| options.cookie = Some("session".to_owned()));
    let header = ("authorization", format!("Bearer {}", token("ann")));
    let cookie = ("cookie", format!("theme=dark; session=\"{}\"; x=y", token("cat")));
    let (query, nothing) = (token("bob"), headers(&[]));
    let all = headers(&[header.clone(), cookie.clone()]);
    let expected = |user: &str, source| Ok((Some(user.to_owned()), source));
    assert_eq!(
        shown(&gate, &all, Some(&query)).await,
        expected("ann", TokenSource::Header)
    );
    let cookie = headers(&[cookie]);
    assert_eq!(
        shown(&gate, &cookie, Some(&query)).await,
        expected("bob", TokenSource::Query)
    );
    assert_eq!(
        shown(&gate, &cookie, None).await,
        expected("cat", TokenSource::Cookie)
    );
    assert_eq!(shown(&gate, &nothing, None).await, Err(AuthError::Missing));
    // The first credential found decides: no other one is tried when it is bad.
    let bad = headers(&[
        ("authorization", "Bearer x".to_owned()),
        ("cookie", format!("session={}", token("cat"))),
    ]);
    assert_eq!(shown(&gate, &bad, Some(&query)).await, Err(AuthError::Invalid));
    let basic = headers(&[("authorization", "Basic YTpi".to_owned())]);
    assert_eq!(shown(&gate, &basic, None).await, Err(AuthError::Scheme));
}

#[tokio::test]
async fn cookies_count_only_by_the_configured_name() {
    let cookie = headers(&[("cookie", format!("session={}", token("cat")))]);
    for name in [None, Some("Session"), Some("sessio"), Some("")] {
        let gate = authenticator(|options| options.cookie = name.map(str::to_owned));
        assert_eq!(shown(&gate, &cookie, None).await, Err(AuthError::Missing));
    }
    assert_eq!(without_cookie("a=1; session=x;b=2", "session"), "a=1; b=2");
    assert_eq!(without_cookie("session=x", "session"), "");
}

#[tokio::test]
async fn strangers_are_let_in_with_the_roles_of_strangers() {
    let gate = authenticator(|options| {
        options.allow_anonymous = Some(true);
        options.anonymous_roles = vec!["hubcast.join".to_owned()];
    });
    let hub = HubName::parse("chat").unwrap();
    let credentials = Credentials {
        hub: &hub,
        headers: &HeaderMap::new(),
        query_token: None,
        connection: None,
    };
    let stranger = gate.authenticate(&credentials).await.unwrap();
    assert_eq!(stranger.source, TokenSource::Nothing);
    assert!(stranger.identity.is_anonymous() && stranger.identity.has_role("hubcast.join"));
    // A bad token is not no token.
    let bad = headers(&[("authorization", "Bearer x".to_owned())]);
    assert_eq!(shown(&gate, &bad, None).await, Err(AuthError::Invalid));
    assert_eq!(
        shown(&gate, &HeaderMap::new(), Some("x")).await,
        Err(AuthError::Invalid)
    );
}

/// Browsers send a proxy's basic authentication along, and token factories that have none yet give an empty text.
#[tokio::test]
async fn a_foreign_or_empty_authorization_is_none() {
    let gate = authenticator(|options| options.allow_anonymous = Some(true));
    let closed = authenticator(|_| {});
    for value in [
        "Basic dXNlcjpwYXNz",
        "Negotiate TlRMTVNTUAAB",
        "Bearer ",
        "Bearer",
        "",
    ] {
        let shows = headers(&[("authorization", value.to_owned())]);
        assert_eq!(
            shown(&gate, &shows, None).await,
            Ok((None, TokenSource::Nothing)),
            "{value}"
        );
        assert_eq!(
            shown(&gate, &shows, Some("")).await,
            Ok((None, TokenSource::Nothing))
        );
        assert_eq!(
            shown(&gate, &shows, Some(&token("ann"))).await,
            Ok((Some("ann".to_owned()), TokenSource::Query))
        );
        assert_eq!(
            shown(&closed, &shows, None).await,
            Err(AuthError::Scheme),
            "{value}"
        );
    }
}

#[tokio::test]
async fn with_tickets_no_other_token_stands_in_the_query() {
    let gate = authenticator(|options| options.tickets = true);
    let hub = HubName::parse("chat").unwrap();
    let booth = TicketCipher::new(b"secret").unwrap();
    let claims = json!({ "sub": "ann" }).as_object().cloned().unwrap();
    let ann = Identity::from_claims(claims).unwrap();
    let ticket = booth.issue(&hub, "token", &ann).unwrap();
    let none = HeaderMap::new();
    assert_eq!(
        shown(&gate, &none, Some(&token("ann"))).await,
        Err(AuthError::NoTicket)
    );
    assert_eq!(
        shown(&gate, &none, Some(&ticket)).await,
        Err(AuthError::Invalid),
        "without its connection"
    );
    let header = headers(&[("authorization", format!("Bearer {ticket}"))]);
    for (headers, query_token) in [(&none, Some(ticket.as_str())), (&header, None)] {
        for (connection_token, user) in [("token", Some("ann")), ("other", None)] {
            let credentials = Credentials {
                hub: &hub,
                headers,
                query_token,
                connection: Some((&booth, connection_token)),
            };
            let read = gate.authenticate(&credentials).await.ok();
            let read = read.and_then(|read| read.identity.user().map(ToString::to_string));
            assert_eq!(read.as_deref(), user);
        }
    }
    let off = authenticator(|_| {});
    assert_eq!(
        shown(&off, &none, Some(&ticket)).await,
        Err(AuthError::Invalid),
        "unless tickets are on"
    );
}
