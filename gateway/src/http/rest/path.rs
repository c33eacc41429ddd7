//! The path of a request: split first, then decoded, so that a name may hold any character.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Literal segments that name an action. A name at the end of a path can be one of them only if its colon is encoded.
const ACTIONS: [&str; 12] = [
    ":send",
    ":closeConnections",
    ":generateToken",
    ":invoke",
    ":batch",
    ":statistics",
    ":rebalance",
    ":addToGroups",
    ":removeFromGroups",
    ":execute",
    ":refreshAuth",
    ":complete",
];

/// Below which base a request came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Base {
    /// `/api`, where requests name a version.
    Dated,
    /// `/api/v1`.
    V1,
}

impl Base {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Dated => "/api",
            Self::V1 => "/api/v1",
        }
    }
}

/// A path below one of the bases.
#[derive(Debug)]
pub(super) struct Path<'a> {
    pub(super) base: Base,
    segments: Vec<Cow<'a, str>>,
    /// The last segment as it was sent.
    last: &'a str,
}

impl<'a> Path<'a> {
    /// Reads a path; `None` when it is not below `/api`, or no text.
    pub(super) fn read(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix("/api")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (base, rest) = match rest.strip_prefix("/v1") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => (Base::V1, rest),
            _ => (Base::Dated, rest),
        };
        let segments = rest.strip_prefix('/')?.split('/');
        let decoded = segments.map(|segment| percent_decode_str(segment).decode_utf8().ok());
        Some(Self {
            base,
            last: rest.rsplit('/').next().unwrap_or_default(),
            segments: decoded.collect::<Option<_>>()?,
        })
    }

    /// Returns whether a template stands for this path.
    pub(super) fn matches(&self, template: &str) -> bool {
        let parts = template.split('/').skip(1);
        let last = self.segments.len().saturating_sub(1);
        parts.clone().count() == self.segments.len()
            && parts
                .zip(&self.segments)
                .enumerate()
                .all(|(index, (part, segment))| {
                    if part.starts_with('{') {
                        index != last || !ACTIONS.contains(&self.last)
                    } else {
                        part == segment
                    }
                })
    }

    /// The part of the path that stands for a name of its template, such as `{group}`.
    pub(super) fn name(&self, template: &str, name: &str) -> &str {
        let parts = template.split('/').skip(1);
        parts
            .zip(&self.segments)
            .find(|(part, _)| *part == name)
            .map_or("", |(_, segment)| segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_decoded_after_splitting() {
        let path = Path::read("/api/hubs/chat/groups/a%2Fb%20%C3%BC/:send").unwrap();
        let template = "/hubs/{hub}/groups/{group}/:send";
        assert!(path.matches(template));
        assert_eq!(path.name(template, "{group}"), "a/b ü");
        assert_eq!(path.name(template, "{hub}"), "chat");
        assert_eq!(path.name(template, "{user}"), "");
        let user = "/hubs/{hub}/users/{user}";
        let path = Path::read("/api/hubs/chat/users/%3Asend").unwrap();
        assert_eq!(path.name(user, "{user}"), ":send");
        assert!(path.matches(user));
        assert!(!Path::read("/api/hubs/chat/users/:send").unwrap().matches(user));
        assert!(Path::read("/api/hubs/%FF").is_none());
        assert!(Path::read("/apis/hubs").is_none());
        assert_eq!(Path::read("/api/v1/hubs/a").unwrap().base, Base::V1);
        assert_eq!(Path::read("/api/v12/hubs/a").unwrap().base, Base::Dated);
    }
}
