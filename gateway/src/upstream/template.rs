//! URLs of handlers, with places for the names of hubs, categories and events.
//!
//! Names come from clients. They are percent-encoded, stand in path and query alone, and one that would change which path is
//! meant (`..`) is refused: whatever a client calls, the request goes where the operator said.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;

/// Everything but the characters that RFC 3986 calls unreserved.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// Longest name that is put into a URL, in bytes.
const MOST_NAME_BYTES: usize = 512;

/// A piece of a template.
#[derive(Clone, PartialEq, Debug)]
enum UrlPiece {
    Text(String),
    Hub,
    Category,
    Event,
}

/// The values for one request.
#[derive(Clone, Copy)]
pub(super) struct UrlNames<'a> {
    pub(super) hub: &'a str,
    pub(super) category: &'a str,
    pub(super) event: &'a str,
}

/// A checked template.
#[derive(Clone, Debug)]
pub(super) struct UrlTemplate {
    pieces: Vec<UrlPiece>,
    host: String,
}

/// A name that can't stand in the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its name can't be a part of the handler's URL")]
pub(super) struct BadName;

/// The fault of a template, in words that follow its setting's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadTemplate(String);

impl From<&str> for BadTemplate {
    fn from(fault: &str) -> Self {
        Self(fault.to_owned())
    }
}

impl UrlTemplate {
    pub(super) fn parse(text: &str) -> Result<Self, BadTemplate> {
        let pieces = pieces(text)?;
        let authority = text.split_once("://").map(|(_, rest)| rest).unwrap_or_default();
        let authority = authority.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        if authority.contains('{') {
            return Err("has a {…} in its host: a client could choose where requests go".into());
        }
        let mut template = Self {
            pieces,
            host: String::new(),
        };
        let names = UrlNames {
            hub: "x",
            category: "x",
            event: "x",
        };
        let example = template.text(names);
        let url =
            Url::parse(&example).map_err(|error| BadTemplate(format!("is not an absolute URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("must begin with http:// or https://".into());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("holds a user or password; set headers.Authorization instead".into());
        }
        if url.fragment().is_some() {
            return Err("has a fragment (#), which is never sent".into());
        }
        if has_dots(&example) {
            return Err("has . or .. in its path".into());
        }
        template.host = url.host_str().unwrap_or_default().to_owned();
        Ok(template)
    }

    /// The host without port.
    pub(super) fn host(&self) -> String {
        self.host.clone()
    }

    /// The URL for these names.
    pub(super) fn fill(&self, names: UrlNames<'_>) -> Result<Url, BadName> {
        let text = self.text(names);
        let used = |piece: &UrlPiece| match piece {
            UrlPiece::Hub => Some(names.hub),
            UrlPiece::Category => Some(names.category),
            UrlPiece::Event => Some(names.event),
            UrlPiece::Text(_) => None,
        };
        let mut used = self.pieces.iter().filter_map(used);
        if used.any(|name| name.is_empty() || name.len() > MOST_NAME_BYTES) || has_dots(&text) {
            return Err(BadName);
        }
        Url::parse(&text).map_err(|_| BadName)
    }

    fn text(&self, names: UrlNames<'_>) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                UrlPiece::Text(own) => text.push_str(own),
                UrlPiece::Hub => text.extend(utf8_percent_encode(names.hub, ENCODED)),
                UrlPiece::Category => text.extend(utf8_percent_encode(names.category, ENCODED)),
                UrlPiece::Event => text.extend(utf8_percent_encode(names.event, ENCODED)),
            }
        }
        text
    }
}

/// Returns whether a segment of the path is one that URL parsers take for "here" or "above".
fn has_dots(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    path.split(['/', '\\']).skip(1).any(|segment| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        matches!(plain.as_str(), "." | "..")
    })
}

fn pieces(text: &str) -> Result<Vec<UrlPiece>, BadTemplate> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, behind)) = after.split_once('}') else {
            return Err("has a { without }".into());
        };
        pieces.push(UrlPiece::Text(before.to_owned()));
        pieces.push(match name.to_ascii_lowercase().as_str() {
            "hub" => UrlPiece::Hub,
            "category" => UrlPiece::Category,
            "event" => UrlPiece::Event,
            _ => {
                return Err(BadTemplate(format!(
                    "has {{{name}}}; there are {{hub}}, {{category}} and {{event}}"
                )));
            }
        });
        rest = behind;
    }
    pieces.push(UrlPiece::Text(rest.to_owned()));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(event: &str) -> UrlNames<'_> {
        UrlNames {
            hub: "chat",
            category: "messages",
            event,
        }
    }

    #[test]
    fn names_are_encoded_into_path_and_query() {
        let template =
            UrlTemplate::parse("http://a.example:8080/{Hub}/{CATEGORY}/{event}?e={event}").unwrap();
        let url = template.fill(names("sö/nd?#&%")).unwrap();
        let event = "s%C3%B6%2Fnd%3F%23%26%25";
        assert_eq!(
            url.as_str(),
            format!("http://a.example:8080/chat/messages/{event}?e={event}")
        );
        assert_eq!(template.host(), "a.example");
    }

    #[test]
    fn a_name_never_changes_host_or_path() {
        let template = UrlTemplate::parse("http://a.example/api/{event}").unwrap();
        for name in ["..", ".", "", &"x".repeat(513)] {
            assert_eq!(template.fill(names(name)), Err(BadName), "{name:?}");
        }
        for name in [
            "@b.example",
            "//b.example",
            "\\b",
            "%2e%2e",
            "..%2f",
            "a/../../b",
            "\u{0}\r\n",
            "?x=1",
        ] {
            let url = template.fill(names(name)).unwrap();
            assert_eq!(url.host_str(), Some("a.example"), "{name:?}");
            assert_eq!(url.path_segments().unwrap().count(), 2, "{name:?} {url}");
            assert!(
                url.path().starts_with("/api/") && url.query().is_none(),
                "{name:?} {url}"
            );
        }
        let dots = UrlTemplate::parse("http://a.example/api/{event}.").unwrap();
        assert_eq!(dots.fill(names(".")), Err(BadName));
    }

    #[test]
    fn templates_that_can_not_work_are_refused() {
        for (text, problem) in [
            ("", "absolute"),
            ("/hubs", "absolute"),
            ("ftp://a/", "http"),
            ("http://{hub}.example/", "host"),
            ("http://a.example:{event}/", "host"),
            ("http://a.example\\{hub}/../{event}", ".."),
            ("http://u:p@a.example/", "password"),
            ("http://a.example/#x", "fragment"),
            ("http://a.example/../x", ".."),
            ("http://a.example/{user}", "{user}"),
            ("http://a.example/{hub", "without }"),
        ] {
            let error = UrlTemplate::parse(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
