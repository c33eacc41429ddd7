//! Refusals, in the form that Azure SignalR's clients read: a JSON body, and its code again in a header.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hubcast_backplane::{BackplaneError, NameError};
use serde::Serialize;

use crate::auth::{ServerAuthError, TooManyGrants};
use crate::error::{Error, transient_text};
use crate::hub::RegroupingError;
use crate::odata::FilterError;
use crate::options::RestApi;

/// The header by which the .NET SDK distinguishes "no" from "wrong address".
const CODE_HEADER: HeaderName = HeaderName::from_static("x-ms-error-code");

/// The reason why a request was refused. Boxed, because refusals are rare.
#[derive(Debug)]
pub(super) struct Refusal(Box<RefusalParts>);

#[derive(Debug)]
struct RefusalParts {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    header: Option<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'a str,
    message: &'a str,
    target: &'a str,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(RefusalParts {
            status,
            code,
            message: message.into(),
            header: None,
        }))
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.header = Some((name, value));
        self
    }

    /// The request can't be understood.
    pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Error.BadRequest", message)
    }

    pub(super) fn version(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Error.ApiVersion.Unsupported", message)
    }

    pub(super) fn no_route() -> Self {
        let text = "There is no such route; GET /api/openapi.json lists all.";
        Self::new(StatusCode::NOT_FOUND, "Error.Route.NotExisted", text)
    }

    /// An operation that does not exist here. SDKs read 404 as "no", so it is another status.
    pub(super) fn not_implemented(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", text)
    }

    /// The route is one of the other service's REST API.
    pub(super) fn other_service(has: RestApi) -> Self {
        let (other, name) = match has {
            RestApi::WebPubSub => ("Azure Web PubSub", "signalr"),
            _ => ("Azure SignalR", "webpubsub"),
        };
        Self::not_implemented(format!(
            "This hub has the REST API of {other}, which has no such operation; hubs.rest_api = \"{name}\" gives it the other one."
        ))
    }

    pub(super) fn other_methods(methods: &[&str]) -> Self {
        let text = "This path has other methods; see the Allow header.";
        let code = "Error.Request.MethodNotAllowed";
        let refusal = Self::new(StatusCode::METHOD_NOT_ALLOWED, code, text);
        match HeaderValue::from_str(&methods.join(", ").to_ascii_uppercase()) {
            Ok(allowed) => refusal.with_header(header::ALLOW, allowed),
            Err(_) => refusal,
        }
    }

    pub(super) fn unauthorized(error: ServerAuthError) -> Self {
        let code = "Error.Request.Unauthorized";
        Self::new(StatusCode::UNAUTHORIZED, code, error.to_string())
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// Not 404: SDKs take that for a wrong address, and hide the text.
    pub(super) fn no_hub(name: &str) -> Self {
        let text = format!(
            "There is no hub {name:?} here: declare it in the gateway's configuration, as [hubs.{name}] or in hubs.names."
        );
        Self::new(StatusCode::BAD_REQUEST, "Error.Hub.NotExisted", text)
    }

    /// The hub is not there, and was not opened on use.
    pub(super) fn not_declared(name: &str, error: &crate::hub::NotDeclared) -> Self {
        let text = format!("There is no hub {name:?} here: {error}.");
        Self::new(StatusCode::BAD_REQUEST, "Error.Hub.NotExisted", text)
    }

    /// The code is one of those that SDKs take for "no".
    pub(super) fn absent(code: &'static str) -> Self {
        let text = match code {
            NO_USER => "The user has no connection.",
            NO_GROUP => "The group has no connection.",
            NOT_IN_GROUP => "The user is not in the group.",
            NO_PERMISSION => "The connection does not have the permission.",
            _ => "There is no such connection.",
        };
        Self::new(StatusCode::NOT_FOUND, code, text)
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let text = format!("The body is over {limit} bytes (limits.http_body_bytes).");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "Error.Request.TooLarge", text)
    }

    pub(super) fn late() -> Self {
        let text = "The body came too slowly (timeouts.receive_seconds, limits.least_bytes_per_second).";
        Self::new(StatusCode::REQUEST_TIMEOUT, "Error.Request.TimedOut", text)
    }

    pub(super) fn no_room() -> Self {
        let text = "The node holds too much for its clients (limits.held_bytes). Try again later.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Error.Node.Full", text)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    pub(super) fn media_type(allowed: &str) -> Self {
        let text = format!("The Content-Type must be {allowed}.");
        let code = "Error.Request.UnsupportedMediaType";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, code, text)
    }

    /// Section 12.5.3 of RFC 9110: the answer says which codings are taken.
    pub(super) fn compressed(coding: &str) -> Self {
        let text = format!("The body may not be compressed (Content-Encoding: {coding}); send it as it is.");
        let code = "Error.Request.UnsupportedContentEncoding";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, code, text)
            .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))
    }

    pub(super) fn key_reused() -> Self {
        let text = "This Idempotency-Key was used for another message; use a new key for a new message.";
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Error.IdempotencyKey.Reused",
            text,
        )
    }

    pub(super) fn too_many_grants(error: TooManyGrants) -> Self {
        let code = "Error.Permission.TooMany";
        Self::new(StatusCode::CONFLICT, code, error.to_string())
    }

    /// The backplane is away, or has no room, or too few replicas; nothing was carried out.
    pub(super) fn unavailable(error: &BackplaneError) -> Self {
        let code = match error {
            BackplaneError::Full => "Error.Backplane.Full",
            BackplaneError::TooFewReplicas { .. } => "Error.Backplane.TooFewReplicas",
            _ => "Error.Backplane.Unavailable",
        };
        let text = format!("The request could not be carried out: {}", transient_text(error));
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, text)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// The same refusal, with the part of the request that it is about.
    pub(super) fn about(mut self, part: &str) -> Self {
        self.0.message = format!("{part}: {}", self.0.message).into();
        self
    }

    pub(super) fn status(&self) -> StatusCode {
        self.0.status
    }

    pub(super) fn code(&self) -> &'static str {
        self.0.code
    }
}

/// There is no such connection.
pub(super) const NO_CONNECTION: &str = "Warning.Connection.NotExisted";
/// No such connection, where it was to be changed.
pub(super) const NO_CONNECTION_TO_CHANGE: &str = "Error.Connection.NotExisted";
/// The user has no connection.
pub(super) const NO_USER: &str = "Warning.User.NotExisted";
/// The group has no connection.
pub(super) const NO_GROUP: &str = "Warning.Group.NotExisted";
/// The connection does not have the permission.
pub(super) const NO_PERMISSION: &str = "Warning.Permission.NotExisted";
/// The user is not in the group.
pub(super) const NOT_IN_GROUP: &str = "Info.User.NotInGroup";

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        Self::invalid(format!("Invalid name: {error}."))
    }
}

impl From<RegroupingError> for Refusal {
    fn from(error: RegroupingError) -> Self {
        match error {
            RegroupingError::Name(error) => error.into(),
            RegroupingError::Filter(error) => error.into(),
        }
    }
}

impl From<FilterError> for Refusal {
    fn from(error: FilterError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Name(error) => error.into(),
            Error::TooManyGroups { .. } => Self::new(
                StatusCode::CONFLICT,
                "Error.Connection.TooManyGroups",
                error.to_string(),
            ),
            Error::ReasonTooLong { .. } | Error::Transcode { .. } | Error::ReservedTarget { .. } => {
                Self::invalid(error.to_string())
            }
            Error::EventPlace(_) => Self::invalid(format!("after: {error}.")),
            Error::NoEvents => {
                let text = "The hub keeps no events of its connections; set hubs.events.";
                Self::new(StatusCode::NOT_FOUND, "Error.Events.NotExisted", text)
            }
            Error::NoSuchConnection(_) | Error::Disconnected(_) => Self::absent(NO_CONNECTION),
            Error::Client(text) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Error.Invocation.Failed", text)
            }
            Error::NoAnswer { .. } => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "Error.Invocation.Timeout",
                error.to_string(),
            ),
            Error::Backplane(error) if error.is_transient() => Self::unavailable(&error),
            error => {
                tracing::error!(%error, "a REST request failed");
                let text = "The request failed; the gateway's log says why.";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Error.Internal", text)
            }
        }
    }
}

/// The part of a request that a code speaks of.
fn target_of(code: &str) -> &str {
    match code.split('.').nth(1) {
        Some(target @ ("Connection" | "User" | "Group" | "Permission")) => target,
        _ => "Request",
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            code: self.0.code,
            message: &self.0.message,
            target: target_of(self.0.code),
        };
        let code = HeaderValue::from_static(self.0.code);
        let mut response = (self.0.status, [(CODE_HEADER, code)], Json(body)).into_response();
        if let Some((name, value)) = self.0.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
