//! The names that messages are addressed by. Parsed once at the edge, valid afterwards.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use crate::stored::{escape, unescape};

/// Longest hub name, in characters.
pub const MAX_HUB_NAME_CHARS: usize = 128;
/// Longest group name, in characters.
pub const MAX_GROUP_NAME_CHARS: usize = 1024;
/// Longest user id, in characters.
pub const MAX_USER_ID_CHARS: usize = 1024;
/// Longest connection id, in characters.
pub const MAX_CONNECTION_ID_CHARS: usize = 128;

/// The reason why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("{kind} must not be empty")]
    Empty {
        /// The kind of name, for instance `group name`.
        kind: &'static str,
    },
    /// The name has more characters than allowed.
    #[error("{kind} of {length} characters is over the limit of {limit}")]
    TooLong {
        /// The kind of name, for instance `group name`.
        kind: &'static str,
        /// The length of the name in characters.
        length: usize,
        /// The limit in characters.
        limit: usize,
    },
    /// The name holds a character that its kind does not allow.
    #[error("{kind} holds the character {character:?}; allowed are {allowed}")]
    Character {
        /// The kind of name, for instance `group name`.
        kind: &'static str,
        /// The first character that is not allowed.
        character: char,
        /// The characters that are allowed, in words.
        allowed: &'static str,
    },
}

/// Checks a name's length, and its characters by `allowed`.
fn check(
    name: &str,
    kind: &'static str,
    limit: usize,
    allowed: (fn(char) -> bool, &'static str),
) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { kind });
    }
    if name.len() > limit {
        let length = name.chars().count();
        if length > limit {
            return Err(NameError::TooLong { kind, length, limit });
        }
    }
    let (allowed, in_words) = allowed;
    match name.chars().find(|character| !allowed(*character)) {
        Some(character) => Err(NameError::Character {
            kind,
            character,
            allowed: in_words,
        }),
        None => Ok(()),
    }
}

/// A name of the characters that `$allowed` lists.
macro_rules! plain_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $limit:expr, $allowed:expr, $allowed_text:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses a name.
            ///
            /// # Errors
            /// [`NameError`] when it is empty, too long or holds a character that is not allowed.
            pub fn parse(name: impl AsRef<str>) -> Result<Self, NameError> {
                let name = name.as_ref();
                check(name, $kind, $limit, ($allowed, $allowed_text))?;
                Ok(Self(Arc::from(name)))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

/// A name of any characters, with its stored form, see `stored.rs`.
macro_rules! free_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $limit:expr) => {
        $(#[$doc])*
        ///
        /// Keys, channels, log entries and requests between nodes have [`stored`](Self::stored), not the text.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            text: Arc<str>,
            /// The stored form, where that differs.
            stored: Option<Arc<str>>,
        }

        impl $name {
            /// Parses a name.
            ///
            /// # Errors
            /// [`NameError`] when it is empty or too long.
            pub fn parse(name: impl AsRef<str>) -> Result<Self, NameError> {
                let name = name.as_ref();
                check(name, $kind, $limit, (|_| true, ""))?;
                let stored = match escape(name) {
                    Cow::Borrowed(_) => None,
                    Cow::Owned(stored) => Some(stored.into()),
                };
                Ok(Self {
                    text: name.into(),
                    stored,
                })
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.text
            }

            /// The form of the name in keys, channels and log entries: control characters are escaped.
            #[must_use]
            pub fn stored(&self) -> &str {
                self.stored.as_ref().unwrap_or(&self.text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.text)
            }
        }

        /// The name as a Rust literal: without control characters, so it is safe to log.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.text
            }
        }
    };
}

plain_name!(
    /// A hub: letters, digits, `_`, `-` and `.`, at most [`MAX_HUB_NAME_CHARS`].
    HubName, "hub name", MAX_HUB_NAME_CHARS,
    |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'), "ASCII letters, digits, '_', '-' and '.'"
);
free_name!(
    /// A group of a hub, compared exactly: any text of at most [`MAX_GROUP_NAME_CHARS`].
    GroupName, "group name", MAX_GROUP_NAME_CHARS
);
free_name!(
    /// A user, compared exactly: any text of at most [`MAX_USER_ID_CHARS`].
    UserId, "user id", MAX_USER_ID_CHARS
);
plain_name!(
    /// A connection's public id: URL-safe base64 characters, at most [`MAX_CONNECTION_ID_CHARS`].
    ConnectionId, "connection id", MAX_CONNECTION_ID_CHARS,
    |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'), "ASCII letters, digits, '_' and '-'"
);
plain_name!(
    /// A gateway process.
    NodeId, "node id", 80,
    |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'), "ASCII letters, digits, '_' and '-'"
);

/// The first character of the stored form of reserved groups' names. No name that was parsed has such a form.
const RESERVED: char = '\u{1}';
/// Follows it in the names of groups that receive changes of states.
const STATES: char = '\u{3}';

impl GroupName {
    /// The reserved group of the connections that watch `group` and receive its [`presence`](crate::presence) messages.
    /// For a reserved group this is the group itself: reserved groups are not watched.
    #[must_use]
    pub fn presence_of(group: &Self) -> Self {
        if group.is_reserved() {
            return group.clone();
        }
        Self::reserved(format!("{RESERVED}{}", group.stored()))
    }

    /// The reserved group of the connections that receive the changes of the members' states in `group`: see
    /// [`GroupStates`](crate::GroupStates). For a reserved group this is the group itself: it has no states.
    #[must_use]
    pub fn states_of(group: &Self) -> Self {
        if group.is_reserved() {
            return group.clone();
        }
        Self::reserved(format!("{RESERVED}{STATES}{}", group.stored()))
    }

    /// The group whose members' states this reserved group receives; `None` for any other group.
    #[must_use]
    pub fn with_states(&self) -> Option<Self> {
        let name = self.stored().strip_prefix(RESERVED)?.strip_prefix(STATES)?;
        Self::from_stored(name).ok()
    }

    fn reserved(name: String) -> Self {
        let name: Arc<str> = name.into();
        Self {
            text: Arc::clone(&name),
            stored: Some(name),
        }
    }

    /// Whether this is a group of the server's own, which [`GroupName::parse`] never returns.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.stored().starts_with(RESERVED)
    }

    /// Reads the stored form of a name, which may be a reserved one. Not for names that come from outside.
    ///
    /// # Errors
    /// [`NameError`] where it is the form of no name.
    pub fn from_stored(stored: &str) -> Result<Self, NameError> {
        let name = |stored| Self::parse(original(stored, "group name")?);
        let Some(reserved) = stored.strip_prefix(RESERVED) else {
            return name(stored);
        };
        match reserved.strip_prefix(STATES) {
            Some(group) => Ok(Self::states_of(&name(group)?)),
            None => Ok(Self::presence_of(&name(reserved)?)),
        }
    }
}

impl UserId {
    /// Reads the stored form of a user's id. Not for ids that come from outside.
    ///
    /// # Errors
    /// [`NameError`] where it is the form of no id.
    pub fn from_stored(stored: &str) -> Result<Self, NameError> {
        Self::parse(original(stored, "user id")?)
    }
}

/// The name of a stored form.
fn original<'a>(stored: &'a str, kind: &'static str) -> Result<Cow<'a, str>, NameError> {
    unescape(stored).ok_or_else(|| NameError::Character {
        kind,
        character: stored
            .chars()
            .find(|character| character.is_control())
            .unwrap_or_default(),
        allowed: "in its stored form all but control characters",
    })
}

/// The address of a hub's messages; each connection receives several topics.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Topic {
    /// Every connection of the hub.
    All,
    /// The connections that joined a group.
    Group(GroupName),
    /// The connections of a user.
    User(UserId),
    /// One connection.
    Connection(ConnectionId),
}

impl Topic {
    /// The topic in the form that Redis keys, channels and log entries carry: `a`, `g:NAME`, `u:ID`, `c:ID`.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::All => "a".to_owned(),
            Self::Group(group) => ["g:", group.stored()].concat(),
            Self::User(user) => ["u:", user.stored()].concat(),
            Self::Connection(connection) => ["c:", connection.as_str()].concat(),
        }
    }

    /// Reads what [`Topic::key`] wrote; `None` for anything else.
    #[must_use]
    pub fn from_key(key: &str) -> Option<Self> {
        if key == "a" {
            return Some(Self::All);
        }
        let (kind, name) = key.split_once(':')?;
        match kind {
            "g" => GroupName::from_stored(name).ok().map(Self::Group),
            "u" => UserId::from_stored(name).ok().map(Self::User),
            "c" => ConnectionId::parse(name).ok().map(Self::Connection),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_survives_its_key() {
        let topics = [
            Topic::All,
            Topic::Group(GroupName::parse("a:b c/ü").unwrap()),
            Topic::Group(GroupName::presence_of(&GroupName::parse("a:b c/ü").unwrap())),
            Topic::Group(GroupName::states_of(&GroupName::parse("a:b\nc/ü").unwrap())),
            Topic::User(UserId::parse("me@example.org").unwrap()),
            Topic::Group(GroupName::parse("\u{1}a\nb\0").unwrap()),
            Topic::User(UserId::parse("\n\u{2}").unwrap()),
            Topic::Connection(ConnectionId::parse("aB-_9").unwrap()),
        ];
        for topic in topics {
            assert_eq!(Topic::from_key(&topic.key()), Some(topic));
        }
        for key in [
            "",
            "b",
            "g:",
            "g:\u{1}",
            "g:\u{1}\u{1}a",
            "g:\u{1}\u{3}",
            "g:\u{3}a",
            "x:y",
            "c:a b",
        ] {
            assert_eq!(Topic::from_key(key), None, "{key}");
        }
    }

    #[test]
    fn a_reserved_group_is_no_name_of_a_clients() {
        let longest = GroupName::parse("ü".repeat(MAX_GROUP_NAME_CHARS)).unwrap();
        let reserved = GroupName::presence_of(&longest);
        assert!(reserved.is_reserved() && !longest.is_reserved() && reserved != longest);
        assert_eq!(GroupName::from_stored(reserved.stored()), Ok(reserved.clone()));
        let similar = GroupName::parse("\u{1}a").unwrap();
        assert!(!similar.is_reserved() && similar != GroupName::presence_of(&GroupName::parse("a").unwrap()));
        assert_eq!(similar.as_str(), "\u{1}a");
        assert_eq!(GroupName::presence_of(&reserved), reserved);
        let states = GroupName::states_of(&longest);
        assert!(states.is_reserved() && states != reserved);
        assert_eq!(states.with_states(), Some(longest.clone()));
        assert_eq!(GroupName::states_of(&states), states);
        let others = [reserved, longest, GroupName::parse("\u{1}\u{3}a").unwrap()];
        assert!(others.iter().all(|group| group.with_states().is_none()));
    }

    #[test]
    fn names_are_refused_with_the_reason() {
        assert_eq!(HubName::parse(""), Err(NameError::Empty { kind: "hub name" }));
        assert!(matches!(
            HubName::parse("a b"),
            Err(NameError::Character { character: ' ', .. })
        ));
        assert!(matches!(
            GroupName::parse("x".repeat(2000)),
            Err(NameError::TooLong { length: 2000, .. })
        ));
        for longest in ["ü".repeat(1024), "漢".repeat(1024), "🙂".repeat(1024)] {
            assert!(GroupName::parse(&longest).is_ok() && UserId::parse(&longest).is_ok());
            let longer = format!("{longest}x");
            assert!(matches!(
                UserId::parse(longer),
                Err(NameError::TooLong { length: 1025, .. })
            ));
        }
        assert!(matches!(
            ConnectionId::parse("a\u{1e}b"),
            Err(NameError::Character { .. })
        ));
        for stored in ["a\nb", "\u{2}", "\u{1}\u{1}a"] {
            assert!(GroupName::from_stored(stored).is_err() && UserId::from_stored(stored).is_err());
        }
    }

    #[test]
    fn names_have_any_characters_and_are_logged_without_control_characters() {
        let name = "\u{0}\u{1}a\r\nERROR \u{1b}[31m\u{85}";
        let (group, user) = (GroupName::parse(name).unwrap(), UserId::parse(name).unwrap());
        assert_eq!((group.as_str(), user.as_str()), (name, name));
        let printed = format!("{group:?} {user:?} {:?}", Topic::Group(group.clone()));
        assert!(!printed.chars().any(char::is_control), "{printed}");
        let plain = GroupName::parse("a%0ab").unwrap();
        assert_eq!((plain.stored(), plain.as_str()), ("a%0ab", "a%0ab"));
    }
}
