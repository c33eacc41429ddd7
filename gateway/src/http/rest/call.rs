//! One authenticated request: its hub, its path and its query.

use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hubcast_backplane::{GroupName, HubName, UserId};
use percent_encoding::percent_decode_str;

use super::error::Refusal;
use super::path::{Base, Path};
use super::streams::MAX_STREAM_ID;
use super::table::{Api, FIRST, LAST, Route, VERSIONS, WEB_PUBSUB_PREVIEWS, WEB_PUBSUB_VERSIONS};
use crate::auth::Permission;
use crate::http::App;
use crate::http::bodies::{BodyError, read_body};
use crate::http::request::Query;
use crate::hub::{HubHandle, LONGEST_LIFE, NotDeclared};
use crate::odata::Filter;
use crate::options::RestApi;

/// A year, in seconds.
const LONGEST_TTL: u64 = 365 * 24 * 3_600;

/// A request to a hub.
pub(super) struct Call<'a> {
    app: &'a App,
    parts: &'a Parts,
    path: Path<'a>,
    route: &'static Route,
    query: Query,
    hub: HubHandle,
}

impl<'a> Call<'a> {
    pub(super) async fn new(
        app: &'a App,
        parts: &'a Parts,
        path: Path<'a>,
        route: &'static Route,
    ) -> Result<Self, Refusal> {
        let query = Query::of(&parts.uri);
        let hub = path.name(route.path, "{hub}");
        let hub = find_hub(app, hub, query.get("application")).await?;
        let service = hub.runtime().options().hubs.rest_api;
        if !route.is_of(service, path.base) {
            return Err(Refusal::other_service(service));
        }
        match service {
            RestApi::WebPubSub => check_web_pubsub_version(&query)?,
            _ => check_version(route, path.base, query.get("api-version"))?,
        }
        Ok(Self {
            app,
            parts,
            path,
            route,
            query,
            hub,
        })
    }

    pub(super) fn app(&self) -> &App {
        self.app
    }

    pub(super) fn request(&self) -> &Parts {
        self.parts
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    pub(super) fn route(&self) -> &'static Route {
        self.route
    }

    pub(super) fn hub(&self) -> &HubHandle {
        &self.hub
    }

    /// Returns whether the hub has the REST API of Azure Web PubSub.
    pub(super) fn is_web_pubsub(&self) -> bool {
        self.hub.runtime().options().hubs.rest_api == RestApi::WebPubSub
    }

    /// The answer to a request that was carried out, without a body.
    pub(super) fn done(&self) -> Response {
        self.success().into_response()
    }

    pub(super) fn success(&self) -> StatusCode {
        let (dated, v1) = self.route.success;
        let status = match self.path.base {
            Base::Dated => dated,
            Base::V1 => v1,
        };
        StatusCode::from_u16(status).unwrap_or(StatusCode::OK)
    }

    pub(super) fn group(&self) -> Result<GroupName, Refusal> {
        Ok(GroupName::parse(self.path.name(self.route.path, "{group}"))?)
    }

    pub(super) fn user(&self) -> Result<UserId, Refusal> {
        Ok(UserId::parse(self.path.name(self.route.path, "{user}"))?)
    }

    /// The connection's id as it was sent: one that no connection can have names none.
    pub(super) fn connection(&self) -> Result<&str, Refusal> {
        match self.path.name(self.route.path, "{connection}") {
            "" => Err(Refusal::invalid("Invalid connection id: it is empty.")),
            id => Ok(id),
        }
    }

    /// The id that a client gave a stream.
    pub(super) fn stream(&self) -> Result<&str, Refusal> {
        match self.path.name(self.route.path, "{stream}") {
            id if (1..=MAX_STREAM_ID).contains(&id.len()) => Ok(id),
            _ => Err(Refusal::invalid(format!(
                "Invalid stream id: it must have 1 to {MAX_STREAM_ID} bytes."
            ))),
        }
    }

    /// The connections that are left out.
    pub(super) fn excluded(&self) -> Vec<String> {
        self.all("excluded").map(str::to_owned).collect()
    }

    /// The reason that closed clients are given.
    pub(super) fn reason(&self) -> Option<&str> {
        self.query.get("reason").filter(|reason| !reason.is_empty())
    }

    /// How long a user stays in a group.
    pub(super) fn ttl(&self) -> Result<Option<Duration>, Refusal> {
        let seconds = self.number("ttl", 0, u64::MAX)?;
        Ok(seconds.map(|seconds| Duration::from_secs(seconds.min(LONGEST_TTL))))
    }

    /// Which connections receive a message, in OData; empty: all.
    pub(super) fn filter(&self) -> Result<String, Refusal> {
        let text = self.only("filter")?.unwrap_or_default();
        if !text.is_empty() {
            Filter::parse(text)?;
        }
        Ok(text.to_owned())
    }

    /// How long a message may take to its receivers, unless for ever.
    pub(super) fn life(&self) -> Result<Option<Duration>, Refusal> {
        const NAME: &str = "messageTtlSeconds";
        self.only(NAME)?;
        let seconds = self.number(NAME, 0, LONGEST_LIFE)?;
        Ok(seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs))
    }

    /// A value of the query that may be there once.
    fn only(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let mut values = self.all(name);
        let first = values.next();
        match values.next() {
            None => Ok(first),
            Some(_) => Err(Refusal::invalid(format!("{name} may be there once."))),
        }
    }

    /// The permission that the path names.
    pub(super) fn permission(&self) -> Result<Permission, Refusal> {
        let name = self.path.name(self.route.path, "{permission}");
        let mut known = Permission::ALL.into_iter();
        let found = known.find(|permission| permission.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            Refusal::invalid(format!(
                "There is no permission {name:?}; there are sendToGroup and joinLeaveGroup."
            ))
        })
    }

    /// A value of the query.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.query.get(name)
    }

    /// All values of that name in the query.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let pairs = self.query.pairs().iter();
        pairs
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// A whole number of the query.
    pub(super) fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.query.get(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(Refusal::invalid(format!(
                "{name} must be a whole number from {least} to {most}."
            ))),
        }
    }

    /// The whole body.
    pub(super) async fn read(&self, body: Body) -> Result<Bytes, Refusal> {
        let hub = self.hub.runtime();
        let limit = hub.options().limits.http_body_bytes;
        match read_body(self.headers(), body, limit, hub.terms()).await {
            Ok(body) => Ok(body),
            Err(BodyError::TooLarge) => Err(Refusal::too_large(limit)),
            Err(BodyError::Late) => Err(Refusal::late()),
            Err(BodyError::NoRoom) => Err(Refusal::no_room()),
            Err(BodyError::Broken) => Err(Refusal::invalid("The body has no end.")),
        }
    }
}

/// Checks the version of a request to a hub with the API of Azure Web PubSub: one that is known, or none.
fn check_web_pubsub_version(query: &Query) -> Result<(), Refusal> {
    let mut asked = query.all("api-version");
    let (version, second) = (asked.next(), asked.next());
    if second.is_some() {
        return Err(Refusal::version("api-version may be there once.".to_owned()));
    }
    let is_known = |version| {
        WEB_PUBSUB_VERSIONS.contains(&version) || WEB_PUBSUB_PREVIEWS.contains(&version) || is_later(version)
    };
    match version {
        Some(version) if !is_known(version) => {
            let known = WEB_PUBSUB_VERSIONS.join(", ");
            let text = format!("There is no api-version {version:?}; known are {known}.");
            Err(Refusal::version(text))
        }
        _ => Ok(()),
    }
}

/// The service whose REST API the hub of a request has; `None` where there is no such hub.
pub(super) fn service_of(app: &App, parts: &Parts) -> Option<RestApi> {
    let rest = parts.uri.path().strip_prefix("/api/hubs/")?;
    let name = percent_decode_str(rest.split('/').next()?).decode_utf8().ok()?;
    let hub = app.hub(&name)?;
    Some(hub.options().hubs.rest_api)
}

/// Returns whether this is the date of a version after the last that is known.
fn is_later(asked: &str) -> bool {
    let form = |(index, byte): (usize, u8)| match index {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    let date = asked.strip_suffix("-preview").unwrap_or(asked);
    date.len() == LAST.len() && date.bytes().enumerate().all(form) && date > LAST
}

/// Checks whether the request names a version that has this route.
fn check_version(route: &Route, base: Base, asked: Option<&str>) -> Result<(), Refusal> {
    if base == Base::V1 || route.api == Api::Own {
        return Ok(());
    }
    let since = match route.api {
        Api::Dated(since) => since,
        _ => FIRST,
    };
    let known = VERSIONS.join(", ");
    let asked = match asked {
        Some(asked) if VERSIONS.contains(&asked) => asked,
        Some(asked) if is_later(asked) => LAST, // an SDK that is newer than this gateway
        Some(asked) => {
            let text = format!("There is no api-version {asked:?}; known are {known}.");
            return Err(Refusal::version(text));
        }
        None => {
            let text = format!("The query must name an api-version; known are {known}.");
            return Err(Refusal::version(text));
        }
    };
    // Dates in this form are in the order of their texts.
    if asked < since {
        let text = format!("This route needs api-version {since} or later, not {asked}.");
        return Err(Refusal::version(text));
    }
    Ok(())
}

/// The hub of a request that was authenticated.
async fn find_hub(app: &App, hub: &str, application: Option<&str>) -> Result<HubHandle, Refusal> {
    let name = match application.filter(|application| !application.is_empty()) {
        Some(application) => format!("{application}_{hub}"),
        None => hub.to_owned(),
    };
    let usable = |name: &str| HubName::parse(name).is_ok() || is_azure_name(name);
    if !usable(&name) {
        return Err(Refusal::invalid(format!(
            "Invalid hub name: {name:?} must begin with a letter, and have letters, digits and _`,.[] only, at most 128."
        )));
    }
    match app.hub(&name) {
        Some(hub) => Ok(HubHandle::new(hub)),
        None => match app.hubs().declare(&name).await {
            None => Err(Refusal::no_hub(&name)),
            Some(Ok(hub)) => Ok(HubHandle::new(hub)),
            Some(Err(NotDeclared::Backplane(error))) => Err(Refusal::unavailable(&error)),
            Some(Err(error)) => Err(Refusal::not_declared(&name, &error)),
        },
    }
}

fn is_azure_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.len() <= 128
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_`,.[]".contains(c))
}
