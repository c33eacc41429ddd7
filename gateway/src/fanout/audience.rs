//! Which of a topic's connections receive a message.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hubcast_backplane::GroupName;
use hubcast_backplane::wire::Envelope;

use crate::odata::{Filter, Subject};
use crate::session::Session;

/// Exclusion lists up to this length are searched one by one.
const SHORT_LIST: usize = 8;

/// The receivers of a message, among the connections of its topic.
pub(crate) struct Audience<'a> {
    except: Except<'a>,
    filter: Option<Filter>,
}

impl<'a> Audience<'a> {
    /// The receivers of a message; `None` where there are none any more.
    pub(crate) fn of(envelope: &'a Envelope, now: impl FnOnce() -> SystemTime) -> Option<Self> {
        if envelope.expires > 0 && now() > UNIX_EPOCH + Duration::from_millis(envelope.expires) {
            return None;
        }
        let filter = match envelope.filter.as_str() {
            "" => None,
            // The node that took the message has read it: only one of another version can have taken this.
            text => Some(
                Filter::parse(text)
                    .inspect_err(
                        |error| tracing::error!(%error, "a filter can't be read; nobody gets its message"),
                    )
                    .ok()?,
            ),
        };
        Some(Self {
            except: Except::new(&envelope.except),
            filter,
        })
    }

    /// The connections that an envelope ends.
    pub(super) fn of_close(envelope: &'a Envelope) -> Self {
        Self {
            except: Except::new(&envelope.except),
            filter: None,
        }
    }

    /// Returns whether a session receives it that is at its offset of the log.
    pub(crate) fn holds(&self, session: &Session) -> bool {
        !self.except.holds(session)
            && self
                .filter
                .as_ref()
                .is_none_or(|filter| filter.admits(&Present(session)))
    }

    /// As [`holds`](Self::holds), of a session that was in these groups at the offset.
    pub(crate) fn held(&self, session: &Session, groups: impl FnOnce() -> Vec<GroupName>) -> bool {
        !self.except.holds(session)
            && self.filter.as_ref().is_none_or(|filter| {
                filter.admits(&Past {
                    session,
                    groups: groups(),
                })
            })
    }
}

/// A session with the groups whose messages it receives now.
pub(crate) struct Present<'a>(pub(crate) &'a Session);

impl Subject for Present<'_> {
    fn connection(&self) -> &str {
        self.0.id().as_str()
    }

    fn user(&self) -> Option<&str> {
        self.0.connection().user().map(AsRef::as_ref)
    }

    fn protocol(&self) -> Option<&str> {
        self.0.connection().protocol()?.subprotocol()
    }

    fn is_in(&self, group: &str) -> bool {
        self.0.receives_group(group)
    }

    fn groups(&self) -> usize {
        self.0.received_groups()
    }
}

/// A session with the groups that it had.
struct Past<'a> {
    session: &'a Session,
    groups: Vec<GroupName>,
}

impl Subject for Past<'_> {
    fn connection(&self) -> &str {
        self.session.id().as_str()
    }

    fn user(&self) -> Option<&str> {
        self.session.connection().user().map(AsRef::as_ref)
    }

    fn protocol(&self) -> Option<&str> {
        self.session.connection().protocol()?.subprotocol()
    }

    fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|held| held.as_str() == group)
    }

    fn groups(&self) -> usize {
        self.groups.len()
    }
}

/// Connections that do not receive a message.
enum Except<'a> {
    Few(&'a [String]),
    Many(HashSet<&'a str>),
}

impl<'a> Except<'a> {
    fn new(list: &'a [String]) -> Self {
        if list.len() <= SHORT_LIST {
            Self::Few(list)
        } else {
            Self::Many(list.iter().map(String::as_str).collect())
        }
    }

    fn holds(&self, session: &Session) -> bool {
        match self {
            Self::Few(list) => list.iter().any(|id| id == session.id().as_str()),
            Self::Many(set) => set.contains(session.id().as_str()),
        }
    }
}
