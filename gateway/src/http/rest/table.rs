//! Every route, in one table: requests are matched with it, and the OpenAPI document is written from it.

use axum::http::Method;

use super::path::{Base, Path};
use crate::options::RestApi;

/// The action of a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Health,
    Document,
    SendToAll,
    SendToConnection,
    SendToGroup,
    SendToUser,
    SendBatch,
    CloseAll,
    CloseConnection,
    CloseGroup,
    CloseUser,
    ConnectionExists,
    GroupExists,
    UserExists,
    ConnectionJoins,
    ConnectionLeaves,
    ConnectionLeavesAll,
    UserJoins,
    UserLeaves,
    UserLeavesAll,
    UserIsIn,
    ListGroup,
    Invoke,
    GenerateToken,
    Statistics,
    Events,
    Rebalance,
    AddToGroups,
    RemoveFromGroups,
    GrantPermission,
    RevokePermission,
    CheckPermission,
    Execute,
    StreamItem,
    StreamEnd,
    ConnectionClaims,
    RefreshAuth,
}

/// A method of a route. What has HEAD has GET too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verb {
    Head,
    Get,
    Post,
    Put,
    Delete,
    /// POST, or QUERY, which OpenAPI does not know.
    Query,
}

impl Verb {
    /// The methods that are answered, in lower case.
    pub(super) fn methods(self) -> &'static [&'static str] {
        match self {
            Self::Head => &["get", "head"],
            Self::Get => &["get"],
            Self::Post | Self::Query => &["post"],
            Self::Put => &["put"],
            Self::Delete => &["delete"],
        }
    }

    fn takes(self, method: &Method) -> bool {
        let queried = self == Self::Query && method.as_str() == "QUERY";
        queried
            || self
                .methods()
                .iter()
                .any(|name| name.eq_ignore_ascii_case(method.as_str()))
    }
}

/// The API of a route. But for its own ones, the gateway answers each below `/api` and `/api/v1`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Api {
    /// Below `/api`, with `api-version` at least this.
    Dated(&'static str),
    /// Below `/api/v1`, without a version.
    V1,
    /// Below both.
    Both,
    /// No API: a spelling that other servers understand too.
    Tolerated,
    /// Below `/api`, without a version: not of Azure SignalR.
    Own,
    /// Below `/api`, of Azure Web PubSub alone.
    WebPubSub,
}

/// One route.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) verb: Verb,
    /// Below the base. `{name}` stands for any segment.
    pub(super) path: &'static str,
    pub(super) action: Action,
    pub(super) api: Api,
    /// The status of success, below `/api` and below `/api/v1`.
    pub(super) success: (u16, u16),
    /// Its purpose, for the OpenAPI document.
    pub(super) about: &'static str,
}

impl Route {
    /// Returns whether it is answered below this base.
    pub(super) fn is_answered(&self, base: Base) -> bool {
        base == Base::Dated || !matches!(self.api, Api::Own | Api::WebPubSub)
    }

    /// Returns whether it is a route of a hub with this REST API, below this base.
    pub(super) fn is_of(&self, service: RestApi, base: Base) -> bool {
        match service {
            RestApi::SignalR => self.api != Api::WebPubSub,
            RestApi::WebPubSub => base == Base::Dated && (self.api == Api::Own || self.is_of_web_pubsub()),
        }
    }

    /// Returns whether Azure Web PubSub has it.
    pub(super) fn is_of_web_pubsub(&self) -> bool {
        match self.api {
            Api::WebPubSub => true,
            Api::V1 | Api::Tolerated | Api::Own => false,
            Api::Dated(_) | Api::Both => !matches!(
                self.action,
                Action::UserIsIn
                    | Action::Invoke
                    | Action::Execute
                    | Action::StreamItem
                    | Action::StreamEnd
                    | Action::ConnectionClaims
                    | Action::RefreshAuth
            ),
        }
    }

    /// Returns whether it is a route of the API below this base, not one that is answered for the sake of other
    /// callers.
    pub(super) fn is_official(&self, base: Base) -> bool {
        match self.api {
            Api::Dated(_) | Api::Own | Api::WebPubSub => base == Base::Dated,
            Api::V1 => base == Base::V1,
            Api::Both => true,
            Api::Tolerated => false,
        }
    }
}

/// The first dated version, the one that the SDKs call.
pub(super) const FIRST: &str = "2022-06-01";
const TOKENS: &str = "2022-11-01";
/// The last version.
pub(super) const LAST: &str = "2024-12-01";
/// All that are understood, in order.
pub(super) const VERSIONS: [&str; 3] = [FIRST, TOKENS, LAST];

/// The versions of Azure Web PubSub, in order; a hub with its API has all features in each of them, since its SDKs use
/// what they know under older ones, too.
pub(super) const WEB_PUBSUB_VERSIONS: [&str; 5] =
    ["2021-10-01", "2022-11-01", "2023-07-01", "2024-01-01", LAST];
/// Its previews.
pub(super) const WEB_PUBSUB_PREVIEWS: [&str; 5] = [
    "2020-10-01",
    "2021-01-01",
    "2021-05-01-preview",
    "2021-08-01-preview",
    "2022-10-01-preview",
];

const DATED: Api = Api::Dated(FIRST);

const fn route(
    verb: Verb,
    path: &'static str,
    action: Action,
    api: Api,
    success: (u16, u16),
    about: &'static str,
) -> Route {
    Route {
        verb,
        path,
        action,
        api,
        success,
        about,
    }
}

/// The routes. Of those that match, the first counts.
#[rustfmt::skip] // a table
pub(super) const ROUTES: &[Route] = &[
    route(Verb::Head, "/health", Action::Health, Api::Both, (200, 200), "The gateway is alive"),
    route(Verb::Get, "/openapi.json", Action::Document, Api::Own, (200, 200), "This document"),

    route(Verb::Post, "/hubs/{hub}/:send", Action::SendToAll, DATED, (202, 202), "Send to all connections"),
    route(Verb::Post, "/hubs/{hub}", Action::SendToAll, Api::V1, (202, 202), "Send to all connections"),
    route(Verb::Post, "/hubs/{hub}/:closeConnections", Action::CloseAll, DATED, (204, 204), "Close all connections"),
    route(Verb::Post, "/hubs/{hub}/:generateToken", Action::GenerateToken, Api::Dated(TOKENS), (200, 200), "Make a token for a client"),
    route(Verb::Post, "/hubs/{hub}/:batch", Action::SendBatch, Api::Own, (202, 202), "Send several messages, in order"),
    route(Verb::Get, "/hubs/{hub}/:statistics", Action::Statistics, Api::Own, (200, 200), "Count connections and groups"),
    route(Verb::Get, "/hubs/{hub}/:events", Action::Events, Api::Own, (200, 200), "Read the events of connections that entered and ended"),
    route(Verb::Post, "/hubs/{hub}/:rebalance", Action::Rebalance, Api::Own, (200, 200), "Have nodes with more connections than the mean let some go, which come back to any node"),

    route(Verb::Post, "/hubs/{hub}/:execute", Action::Execute, Api::Dated(LAST), (202, 202), "Send, join, leave and close for the connections that a filter admits"),
    route(Verb::Query, "/hubs/{hub}/connections/claims", Action::ConnectionClaims, Api::Dated(LAST), (200, 200), "The claims of a connection, by its token"),
    route(Verb::Post, "/hubs/{hub}/connections/:refreshAuth", Action::RefreshAuth, Api::Dated(LAST), (200, 200), "Give a connection newer claims or another end, by its token"),
    route(Verb::Post, "/hubs/{hub}/connections/{connection}/streams/{stream}/:send", Action::StreamItem, Api::Dated(LAST), (202, 202), "Send an item of a stream that a client has open"),
    route(Verb::Post, "/hubs/{hub}/connections/{connection}/streams/{stream}/:complete", Action::StreamEnd, Api::Dated(LAST), (202, 202), "End a stream that a client has open"),

    route(Verb::Post, "/hubs/{hub}/connections/{connection}/:send", Action::SendToConnection, DATED, (202, 202), "Send to a connection"),
    route(Verb::Post, "/hubs/{hub}/connections/{connection}", Action::SendToConnection, Api::V1, (202, 202), "Send to a connection"),
    route(Verb::Post, "/hubs/{hub}/connections/{connection}/:invoke", Action::Invoke, Api::Dated(LAST), (200, 200), "Call a method of a connection's client and wait for its result"),
    route(Verb::Head, "/hubs/{hub}/connections/{connection}", Action::ConnectionExists, Api::Both, (200, 200), "Whether a connection exists"),
    route(Verb::Delete, "/hubs/{hub}/connections/{connection}", Action::CloseConnection, Api::Both, (204, 202), "Close a connection"),
    route(Verb::Delete, "/hubs/{hub}/connections/{connection}/groups", Action::ConnectionLeavesAll, DATED, (204, 204), "Take a connection out of all groups"),

    route(Verb::Post, "/hubs/{hub}/groups/{group}/:send", Action::SendToGroup, DATED, (202, 202), "Send to a group"),
    route(Verb::Post, "/hubs/{hub}/groups/{group}", Action::SendToGroup, Api::V1, (202, 202), "Send to a group"),
    route(Verb::Head, "/hubs/{hub}/groups/{group}", Action::GroupExists, Api::Both, (200, 200), "Whether a group has a connection"),
    route(Verb::Post, "/hubs/{hub}/groups/{group}/:closeConnections", Action::CloseGroup, DATED, (204, 204), "Close the connections of a group"),
    route(Verb::Get, "/hubs/{hub}/groups/{group}/connections", Action::ListGroup, Api::Dated(LAST), (200, 200), "List the connections of a group"),
    route(Verb::Put, "/hubs/{hub}/groups/{group}/connections/{connection}", Action::ConnectionJoins, Api::Both, (200, 200), "Put a connection into a group"),
    route(Verb::Delete, "/hubs/{hub}/groups/{group}/connections/{connection}", Action::ConnectionLeaves, Api::Both, (204, 200), "Take a connection out of a group"),
    route(Verb::Put, "/hubs/{hub}/connections/{connection}/groups/{group}", Action::ConnectionJoins, Api::Tolerated, (200, 200), "Put a connection into a group"),
    route(Verb::Delete, "/hubs/{hub}/connections/{connection}/groups/{group}", Action::ConnectionLeaves, Api::Tolerated, (204, 200), "Take a connection out of a group"),

    route(Verb::Post, "/hubs/{hub}/users/{user}/:send", Action::SendToUser, DATED, (202, 202), "Send to a user"),
    route(Verb::Post, "/hubs/{hub}/users/{user}", Action::SendToUser, Api::V1, (202, 202), "Send to a user"),
    route(Verb::Head, "/hubs/{hub}/users/{user}", Action::UserExists, Api::Both, (200, 200), "Whether a user has a connection"),
    route(Verb::Post, "/hubs/{hub}/users/{user}/:closeConnections", Action::CloseUser, DATED, (204, 204), "Close the connections of a user"),
    route(Verb::Head, "/hubs/{hub}/users/{user}/groups/{group}", Action::UserIsIn, DATED, (200, 200), "Whether a user is in a group"),
    route(Verb::Put, "/hubs/{hub}/users/{user}/groups/{group}", Action::UserJoins, DATED, (200, 202), "Put a user into a group"),
    route(Verb::Delete, "/hubs/{hub}/users/{user}/groups/{group}", Action::UserLeaves, DATED, (204, 202), "Take a user out of a group"),
    route(Verb::Head, "/hubs/{hub}/groups/{group}/users/{user}", Action::UserIsIn, Api::V1, (200, 200), "Whether a user is in a group"),
    route(Verb::Put, "/hubs/{hub}/groups/{group}/users/{user}", Action::UserJoins, Api::V1, (200, 202), "Put a user into a group"),
    route(Verb::Delete, "/hubs/{hub}/groups/{group}/users/{user}", Action::UserLeaves, Api::V1, (204, 202), "Take a user out of a group"),
    route(Verb::Delete, "/hubs/{hub}/users/{user}/groups", Action::UserLeavesAll, Api::Both, (204, 200), "Take a user out of all groups"),

    route(Verb::Post, "/hubs/{hub}/:addToGroups", Action::AddToGroups, Api::WebPubSub, (200, 200), "Put the connections that a filter admits into groups"),
    route(Verb::Post, "/hubs/{hub}/:removeFromGroups", Action::RemoveFromGroups, Api::WebPubSub, (200, 200), "Take the connections that a filter admits out of groups"),
    route(Verb::Put, "/hubs/{hub}/permissions/{permission}/connections/{connection}", Action::GrantPermission, Api::WebPubSub, (200, 200), "Give a connection a permission"),
    route(Verb::Delete, "/hubs/{hub}/permissions/{permission}/connections/{connection}", Action::RevokePermission, Api::WebPubSub, (204, 204), "Take a permission from a connection"),
    route(Verb::Head, "/hubs/{hub}/permissions/{permission}/connections/{connection}", Action::CheckPermission, Api::WebPubSub, (200, 200), "Whether a connection has a permission"),
];

/// The outcome of looking for a route.
#[derive(Debug)]
pub(super) enum RouteMatch {
    Route(&'static Route),
    /// The path is known; these are its methods.
    OtherMethods(Vec<&'static str>),
    Nothing,
}

/// The route of a request.
pub(super) fn find(path: &Path<'_>, method: &Method) -> RouteMatch {
    let mut others = Vec::new();
    let known = |route: &&Route| route.is_answered(path.base) && path.matches(route.path);
    let ends_in_word = |route: &Route| !route.path.ends_with('}');
    // A word of a route is no name: no connection is called `claims`.
    let words = ROUTES.iter().filter(known).any(ends_in_word);
    let mut routes = ROUTES.iter().filter(known);
    while let Some(route) = routes.find(|route| !words || ends_in_word(route)) {
        if route.verb.takes(method) {
            return RouteMatch::Route(route);
        }
        others.extend_from_slice(route.verb.methods());
    }
    if others.is_empty() {
        RouteMatch::Nothing
    } else {
        RouteMatch::OtherMethods(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(method: &str, path: &str) -> Option<Action> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        match find(&Path::read(path).unwrap(), &method) {
            RouteMatch::Route(route) => Some(route.action),
            _ => None,
        }
    }

    #[test]
    fn routes_are_found_however_they_are_written() {
        for (method, path, expected) in [
            ("POST", "/api/hubs/chat/:send", Action::SendToAll),
            ("POST", "/api/hubs/chat/%3Asend", Action::SendToAll),
            ("POST", "/api/v1/hubs/chat", Action::SendToAll),
            ("POST", "/api/v1/hubs/chat/", Action::SendToAll),
            ("POST", "/api/v1/hubs/chat/:send", Action::SendToAll),
            ("POST", "/api/hubs/chat/groups/a%2Fb/:send", Action::SendToGroup),
            ("POST", "/api/hubs/chat/groups/:send/:send", Action::SendToGroup),
            ("GET", "/api/hubs/chat/users/u/groups/g", Action::UserIsIn),
            ("GET", "/api/hubs/chat/users/u/groups/%3Asend", Action::UserIsIn),
            ("HEAD", "/api/hubs/chat/groups/g/users/u", Action::UserIsIn),
            (
                "DELETE",
                "/api/hubs/chat/connections/c/groups",
                Action::ConnectionLeavesAll,
            ),
            (
                "DELETE",
                "/api/hubs/chat/connections/c/groups/g",
                Action::ConnectionLeaves,
            ),
            ("GET", "/api/hubs/chat/groups/g/connections", Action::ListGroup),
            ("HEAD", "/api/health", Action::Health),
            (
                "QUERY",
                "/api/hubs/chat/connections/claims",
                Action::ConnectionClaims,
            ),
            (
                "POST",
                "/api/hubs/chat/connections/claims",
                Action::ConnectionClaims,
            ),
            (
                "POST",
                "/api/hubs/chat/connections/:refreshAuth",
                Action::RefreshAuth,
            ),
        ] {
            assert_eq!(action(method, path), Some(expected), "{method} {path}");
        }
        for (method, path) in [
            ("POST", "/api/hubs/chat/groups/:send"),
            ("GET", "/api/hubs/chat/users/:closeConnections"),
            ("POST", "/api/hubs"),
            ("POST", "/api/hubs/chat/groups"),
            ("PATCH", "/api/hubs/chat/:send"),
            ("QUERY", "/api/hubs/chat/:send"),
            ("DELETE", "/api/hubs/chat/connections/claims"),
            ("POST", "/api/v2/hubs/chat"),
        ] {
            assert_eq!(action(method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn a_route_is_in_the_table_once() {
        for (index, route) in ROUTES.iter().enumerate() {
            let same = |other: &Route| other.verb == route.verb && other.path == route.path;
            assert!(
                !ROUTES[index + 1..].iter().any(same),
                "{:?} {}",
                route.verb,
                route.path
            );
        }
    }
}
