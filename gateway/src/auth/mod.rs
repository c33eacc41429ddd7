//! Who a request is from: tokens in, [`Identity`] out. The only place that reads credentials.

mod connection_token;
mod jwt;
mod origin;

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use hubcast_backplane::UserId;
use serde_json::{Map, Value};

pub(crate) use connection_token::{ConnectionToken, TokenKind, TokenSigner, random_connection_id};
pub(crate) use jwt::JwtVerifier;
pub(crate) use origin::Origins;

/// The claims that name roles: the usual names, and the one that .NET writes.
const ROLE_CLAIMS: [&str; 3] = [
    "role",
    "roles",
    "http://schemas.microsoft.com/ws/2008/06/identity/claims/role",
];

/// Who is behind a connection: what the token says that the client has shown, once it was found valid.
///
/// ```
/// use hubcast::{Context, Hub, HubError};
///
/// async fn erase(context: Context, board: String) -> Result<(), HubError> {
///     let identity = context.connection().identity();
///     let owner = identity.claim("board").is_some_and(|owned| *owned == board);
///     if !owner && !identity.has_role("moderator") {
///         return Err(HubError::new("this is not your board"));
///     }
///     Ok(context.clients().group(&board).send("Erased", ()).await?)
/// }
///
/// let hub = Hub::new("boards")
///     .method("Erase", erase)
///     .admit(|identity| !identity.is_anonymous());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Identity {
    user: Option<UserId>,
    claims: Option<Arc<Map<String, Value>>>,
}

impl Identity {
    /// A client without a token.
    pub(crate) fn anonymous() -> Self {
        Self::default()
    }

    /// Who shows these claims. The user id is the name identifier: `nameid`, or else `sub`, as .NET maps them.
    pub(crate) fn from_claims(claims: Map<String, Value>) -> Result<Self, AuthError> {
        let user = match claims.get("nameid").or_else(|| claims.get("sub")) {
            None | Some(Value::Null) => None,
            Some(Value::String(id)) => Some(UserId::parse(id).map_err(|_| AuthError::UserId)?),
            Some(_) => return Err(AuthError::UserId),
        };
        Ok(Self {
            user,
            claims: Some(Arc::new(claims)),
        })
    }

    /// An identity of which only the user is known: of a connection that lived on another node.
    pub(crate) fn of_user(user: Option<UserId>) -> Self {
        Self { user, claims: None }
    }

    /// The user id, from the token's `nameid` or else `sub`.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// Whether the client has shown no token.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.claims.is_none() && self.user.is_none()
    }

    /// The claims as JSON, for another node.
    pub(crate) fn claims_json(&self) -> Option<String> {
        serde_json::to_string(self.claims.as_deref()?).ok()
    }

    /// One claim of the token, by its exact name.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<&Value> {
        self.claims.as_ref()?.get(name)
    }

    /// Whether the token gives this role. Case counts.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles().any(|given| given == role)
    }

    /// The roles that the token gives, in its claims `role`, `roles` and
    /// `http://schemas.microsoft.com/ws/2008/06/identity/claims/role`: each is one text or an array of texts; what is
    /// neither is passed over. A role that several claims give comes as often.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        ROLE_CLAIMS
            .into_iter()
            .filter_map(|name| self.claim(name))
            .flat_map(|claim| match claim {
                Value::Array(roles) => roles.as_slice(),
                role => std::slice::from_ref(role),
            })
            .filter_map(Value::as_str)
    }
}

/// Why a request was refused before anything was done for it. The texts are safe to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("a bearer token is required")]
    Missing,
    #[error("the Authorization header must be `Bearer <token>`")]
    Scheme,
    #[error("the token is not valid")]
    Invalid,
    #[error("the token has expired")]
    Expired,
    #[error("the token's user id can't be used: it is empty, too long or holds control characters")]
    UserId,
}

/// Decides who a request is from.
pub(crate) struct Authenticator {
    jwt: JwtVerifier,
    allow_anonymous: bool,
}

impl Authenticator {
    pub(crate) fn new(jwt: JwtVerifier, allow_anonymous: bool) -> Self {
        Self { jwt, allow_anonymous }
    }

    /// Reads the credentials of a request. The `access_token` of the query counts only where browsers can't send
    /// headers (WebSocket and SSE, the caller decides) and only without an `Authorization` header.
    pub(crate) fn authenticate(
        &self,
        headers: &HeaderMap,
        query_token: Option<&str>,
    ) -> Result<Identity, AuthError> {
        let token = match headers.get(header::AUTHORIZATION) {
            Some(value) => Some(bearer(value.as_bytes())?),
            None => query_token,
        };
        match token {
            Some(token) => self.jwt.verify(token),
            None if self.allow_anonymous => Ok(Identity::anonymous()),
            None => Err(AuthError::Missing),
        }
    }
}

fn bearer(value: &[u8]) -> Result<&str, AuthError> {
    let text = std::str::from_utf8(value).map_err(|_| AuthError::Scheme)?;
    let (scheme, token) = text.split_once(' ').ok_or(AuthError::Scheme)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(token.trim())
    } else {
        Err(AuthError::Scheme)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity(claims: Value) -> Identity {
        let Value::Object(claims) = claims else {
            panic!("claims are an object")
        };
        Identity::from_claims(claims).unwrap()
    }

    #[test]
    fn roles_are_texts_or_arrays_of_texts_in_any_of_the_usual_claims() {
        let several = identity(json!({
            "role": "admin",
            "roles": ["editor", 7, null, "reader"],
            "http://schemas.microsoft.com/ws/2008/06/identity/claims/role": ["auditor"],
        }));
        let roles: Vec<_> = several.roles().collect();
        assert_eq!(roles, ["admin", "editor", "reader", "auditor"]);
        assert!(several.has_role("auditor") && several.has_role("editor"));
        assert!(!several.has_role("Admin") && !several.has_role("adm") && !several.has_role(""));
        for none in [
            json!({}),
            json!({ "role": 7 }),
            json!({ "role": { "admin": true } }),
        ] {
            assert_eq!(identity(none).roles().count(), 0);
        }
        assert!(!Identity::anonymous().has_role("admin"));
    }
}
