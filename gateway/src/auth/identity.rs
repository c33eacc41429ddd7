//! The identity of a connection's client.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hubcast_backplane::UserId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::grants::{Grants, Permission, TooManyGrants};
use super::{AuthError, Permissions};

/// The claims that name the user, the first counts: Azure SignalR's, and the ones that .NET maps to the name
/// identifier.
const USER_CLAIMS: [&str; 4] = [
    "asrs.s.uid",
    "nameid",
    "sub",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier",
];
/// The claims that name roles: the usual names, and the one that .NET writes.
const ROLE_CLAIMS: [&str; 3] = [
    "role",
    "roles",
    "http://schemas.microsoft.com/ws/2008/06/identity/claims/role",
];
/// Claims that are about a token, not about its client.
const TOKEN_CLAIMS: [&str; 6] = ["aud", "exp", "iat", "nbf", "iss", "jti"];
/// Longest time for a handshake that a token may ask for, in seconds, as in Azure SignalR.
const LONGEST_HANDSHAKE: u64 = 30;
/// Azure SignalR's own claims, which applications are not shown.
const SERVICE_PREFIX: &str = "asrs.s.";
/// Stands before claims of applications whose names the service needs for itself.
const CUSTOM_PREFIX: &str = "asrs.u.";

/// The identity of a connection's client: the claims of its token, once that was found valid.
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
    shown: Option<Arc<Shown>>,
}

/// The changes that an application makes to a client as it connects: its user, its roles and its first groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) user: Option<String>,
    /// In place of the token's.
    pub(crate) roles: Option<Vec<String>>,
    /// In place of the token's.
    pub(crate) groups: Option<Vec<String>>,
}

/// The claims of a token, or the ones given to clients without a token.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Shown {
    claims: Map<String, Value>,
    /// Another claim that names roles.
    role_claim: Option<String>,
    /// The token's end, in seconds since 1970.
    expires: Option<u64>,
    /// The time when the connection is to be closed, whatever the gateway's options are, in seconds since 1970.
    close_at: Option<u64>,
    /// Seconds for the handshake.
    handshake: Option<u64>,
    /// Bits of the transports that the client may use, if it may not use all.
    transports: Option<u64>,
    /// There was no token.
    anonymous: bool,
    /// Permissions that a back end gave and took since.
    #[serde(skip_serializing_if = "is_default")]
    grants: Grants,
}

fn is_default(grants: &Grants) -> bool {
    *grants == Grants::default()
}

/// An identity on its way to another node.
#[derive(Serialize, Deserialize)]
struct CarriedIdentity {
    user: Option<String>,
    #[serde(flatten)]
    shown: Shown,
}

impl Identity {
    /// A client without a token.
    pub(crate) fn anonymous() -> Self {
        Self::default()
    }

    /// A client without a token that has roles all the same.
    pub(crate) fn anonymous_with(roles: &[String]) -> Self {
        if roles.is_empty() {
            return Self::anonymous();
        }
        let roles = roles.iter().cloned().map(Value::String).collect();
        Self {
            user: None,
            shown: Some(Arc::new(Shown {
                claims: Map::from_iter([("role".to_owned(), Value::Array(roles))]),
                anonymous: true,
                ..Shown::default()
            })),
        }
    }

    /// The identity with these claims. The user id is the name identifier: `asrs.s.uid`, `nameid`, or else `sub`.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn from_claims(claims: Map<String, Value>) -> Result<Self, AuthError> {
        Self::from_claims_with(claims, None)
    }

    /// As [`from_claims`](Self::from_claims), with the user id in a claim of that name alone.
    pub(crate) fn from_claims_with(
        claims: Map<String, Value>,
        user_claim: Option<&str>,
    ) -> Result<Self, AuthError> {
        let user = match user_claim {
            Some(name) => claims.get(name),
            None => USER_CLAIMS.iter().find_map(|name| claims.get(*name)),
        };
        let user = match user {
            None | Some(Value::Null) => None,
            Some(Value::String(id)) => Some(UserId::parse(id).map_err(|_| AuthError::UserId)?),
            // Some issuers write numbers; the reference makes text of them.
            Some(Value::Number(id)) => Some(UserId::parse(id.to_string()).map_err(|_| AuthError::UserId)?),
            Some(_) => return Err(AuthError::UserId),
        };
        let closes = claims.get("asrs.s.coae").is_some_and(is_true);
        let shown = Shown {
            expires: claims.get("exp").and_then(number),
            close_at: claims.get("asrs.s.aeo").and_then(number).filter(|_| closes),
            handshake: claims.get("asrs.s.cht").and_then(number),
            transports: claims.get("asrs.s.htt").and_then(number),
            role_claim: claims
                .get("asrs.s.rt")
                .and_then(Value::as_str)
                .filter(|name| !ROLE_CLAIMS.contains(name))
                .map(str::to_owned),
            claims: shown_claims(claims),
            anonymous: false,
            grants: Grants::default(),
        };
        Ok(Self {
            user,
            shown: Some(Arc::new(shown)),
        })
    }

    /// An identity of which only the user is known: of a connection that lived on another node.
    pub(crate) fn of_user(user: Option<UserId>) -> Self {
        Self { user, shown: None }
    }

    /// The user id, from the token's `asrs.s.uid`, `nameid` or else `sub`, or from the claim that `auth.user_claim` names.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// Returns whether the client has shown no token.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.user.is_none() && self.shown.as_ref().is_none_or(|shown| shown.anonymous)
    }

    /// The end of the token that the client has shown.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.shown.as_ref()?.expires.and_then(after_1970)
    }

    /// The time when the token itself says that the connection is to be closed.
    pub(crate) fn close_at(&self) -> Option<SystemTime> {
        self.shown.as_ref()?.close_at.and_then(after_1970)
    }

    /// Returns whether the token lets the client use a transport, by its place in `Transport::ALL`.
    pub(crate) fn may_use(&self, transport: usize) -> bool {
        let bits = self.shown.as_ref().and_then(|shown| shown.transports);
        bits.is_none_or(|bits| bits & (1 << transport) != 0)
    }

    /// The identity as JSON, for another node.
    pub(crate) fn to_json(&self) -> Option<String> {
        let carried = CarriedIdentity {
            user: self.user.as_ref().map(ToString::to_string),
            shown: self.shown.as_deref()?.clone(),
        };
        serde_json::to_string(&carried).ok()
    }

    /// As [`to_json`](Self::to_json), also of a client of which only the user is known.
    pub(crate) fn to_known_json(&self) -> String {
        let carried = CarriedIdentity {
            user: self.user.as_ref().map(ToString::to_string),
            shown: self.to_shown(),
        };
        serde_json::to_string(&carried).unwrap_or_default()
    }

    /// The claims, each value of a claim with several for itself, as texts.
    pub(crate) fn claim_texts(&self) -> Vec<(String, String)> {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let claims = self.shown.iter().flat_map(|shown| &shown.claims);
        claims
            .filter(|(name, _)| !TOKEN_CLAIMS.contains(&name.as_str()))
            .flat_map(|(name, value)| match value {
                Value::Array(values) => values.iter().map(|value| (name.clone(), text(value))).collect(),
                value => vec![(name.clone(), text(value))],
            })
            .collect()
    }

    /// The identity with other claims, or another end, or both. `None` where they name another user.
    pub(crate) fn with_claims(
        &self,
        claims: Option<Vec<(String, String)>>,
        end: Option<u64>,
    ) -> Result<Option<Self>, AuthError> {
        let mut shown = self.to_shown();
        if let Some(claims) = claims {
            let mut map = Map::new();
            for (name, value) in claims {
                match map.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
                    Value::Array(values) => values.push(value.into()),
                    other => *other = value.into(),
                }
            }
            for value in map.values_mut() {
                if let Value::Array(values) = value
                    && values.len() == 1
                {
                    *value = values.remove(0);
                }
            }
            let named = Self::from_claims_with(map, None)?;
            if named.user.is_some() && named.user != self.user {
                return Ok(None);
            }
            shown.claims = named.to_shown().claims;
        }
        if end.is_some() {
            (shown.expires, shown.close_at) = (end, end);
        }
        Ok(Some(Self {
            user: self.user.clone(),
            shown: Some(Arc::new(shown)),
        }))
    }

    /// The time for the client's handshake, where the token says one.
    pub(crate) fn handshake(&self) -> Option<Duration> {
        let seconds = self.shown.as_ref()?.handshake?;
        Some(Duration::from_secs(seconds.clamp(1, LONGEST_HANDSHAKE)))
    }

    /// Reads the output of [`to_json`](Self::to_json).
    pub(crate) fn from_json(json: &[u8]) -> Option<Self> {
        let carried: CarriedIdentity = serde_json::from_slice(json).ok()?;
        let user = carried.user.map(UserId::parse).transpose().ok()?;
        Some(Self {
            user,
            shown: Some(Arc::new(carried.shown)),
        })
    }

    /// The claims of the token, as [`claim`](Self::claim) shows them.
    pub fn claims(&self) -> impl Iterator<Item = (&str, &Value)> {
        let claims = self.shown.as_ref().map(|shown| &shown.claims);
        claims
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.as_str(), value))
    }

    /// The identity after changes that the application wants. What is absent stays as it is.
    ///
    /// # Errors
    /// [`AuthError::UserId`] for a user id that can't be one.
    pub(crate) fn changed(&self, changes: Changes) -> Result<Self, AuthError> {
        let Changes { user, roles, groups } = changes;
        let mut changed = self.clone();
        if let Some(user) = user {
            changed.user = Some(UserId::parse(user).map_err(|_| AuthError::UserId)?);
        }
        if roles.is_none() && groups.is_none() {
            return Ok(changed);
        }
        let mut shown = changed.shown.as_deref().cloned().unwrap_or(Shown {
            anonymous: true,
            ..Shown::default()
        });
        let texts = |texts: Vec<String>| Value::Array(texts.into_iter().map(Value::String).collect());
        if let Some(roles) = roles {
            let other = shown.role_claim.take();
            for name in ROLE_CLAIMS.into_iter().chain(other.as_deref()) {
                shown.claims.remove(name);
            }
            shown.claims.insert("role".to_owned(), texts(roles));
        }
        if let Some(groups) = groups {
            shown.claims.insert("webpubsub.group".to_owned(), texts(groups));
        }
        changed.shown = Some(Arc::new(shown));
        Ok(changed)
    }

    /// One claim of the token, by its exact name. Claims of Azure SignalR itself (`asrs.s.…`) are not shown; its claim
    /// `asrs.u.NAME` is `NAME`.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<&Value> {
        self.shown.as_ref()?.claims.get(name)
    }

    /// Returns whether the token gives this role. Case counts.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles().any(|given| given == role)
    }

    /// The roles that the token gives, in its claims `role`, `roles`,
    /// `http://schemas.microsoft.com/ws/2008/06/identity/claims/role`, and the one that `asrs.s.rt` names: each is one text
    /// or an array of texts; other values are passed over. A role that several claims give comes as often. Clients
    /// without a token have those of `auth.anonymous_roles`.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        let other = self.shown.as_ref().and_then(|shown| shown.role_claim.as_deref());
        ROLE_CLAIMS
            .into_iter()
            .chain(other)
            .filter_map(|name| self.claim(name))
            .flat_map(|claim| match claim {
                Value::Array(roles) => roles.as_slice(),
                role => std::slice::from_ref(role),
            })
            .filter_map(Value::as_str)
    }

    /// The groups that Web PubSub's claim `webpubsub.group` names: one text or an array of texts.
    pub(crate) fn webpubsub_groups(&self) -> impl Iterator<Item = &str> {
        let claim = self.claim("webpubsub.group");
        claim
            .into_iter()
            .flat_map(|claim| match claim {
                Value::Array(groups) => groups.as_slice(),
                group => std::slice::from_ref(group),
            })
            .filter_map(Value::as_str)
    }

    /// The permissions that the roles give where no hub code decides, and those that a back end gave or took since.
    #[must_use]
    pub fn permissions(&self) -> Permissions<'_> {
        let grants = self.shown.as_ref().map(|shown| &shown.grants);
        Permissions::of(self.roles()).with(grants)
    }

    /// Returns whether the client has a permission, for a group or for all.
    pub(crate) fn has_permission(&self, permission: Permission, group: Option<&str>) -> bool {
        self.permissions().has(permission, group)
    }

    /// The identity with a permission that was given or taken.
    pub(crate) fn with_permission(
        &self,
        permission: Permission,
        group: Option<&str>,
        give: bool,
    ) -> Result<Self, TooManyGrants> {
        let by_roles = Permissions::of(self.roles()).has(permission, group);
        let mut shown = self.to_shown();
        shown.grants.change(permission, group, give, by_roles)?;
        Ok(Self {
            user: self.user.clone(),
            shown: Some(Arc::new(shown)),
        })
    }

    /// The identity with the permissions that a back end gave and took for another one.
    pub(crate) fn with_grants_of(mut self, other: &Self) -> Self {
        let grants = other.shown.as_ref().map(|shown| &shown.grants);
        if let Some(grants) = grants.filter(|grants| !is_default(grants)) {
            let mut shown = self.to_shown();
            shown.grants = grants.clone();
            self.shown = Some(Arc::new(shown));
        }
        self
    }

    fn to_shown(&self) -> Shown {
        match self.shown.as_deref() {
            Some(shown) => shown.clone(),
            None => Shown {
                anonymous: self.is_anonymous(),
                ..Shown::default()
            },
        }
    }
}

/// The claims as applications see them.
fn shown_claims(claims: Map<String, Value>) -> Map<String, Value> {
    let mut custom = Map::new();
    let mut shown = Map::new();
    for (name, value) in claims {
        if let Some(name) = name.strip_prefix(CUSTOM_PREFIX) {
            custom.insert(name.to_owned(), value);
        } else if !name.starts_with(SERVICE_PREFIX) {
            shown.insert(name, value);
        }
    }
    shown.append(&mut custom);
    shown
}

fn after_1970(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// A number, or a text that is one: Azure SignalR writes texts.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_u64().or_else(|| {
            let number = number.as_f64().filter(|number| *number >= 0.0)?;
            Some(number as u64)
        }),
        _ => None,
    }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::String(text) => text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
