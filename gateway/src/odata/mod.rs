//! Filters of receivers, in the part of OData that Azure Web PubSub has for them.
//!
//! Source: the formal grammar in Azure's documentation (`articles/azure-web-pubsub/reference-odata-filter.md`), and for what
//! it leaves open the service's emulator. `parse.rs` reads and checks a filter, `evaluate.rs` asks it about one connection.
//!
//! | | |
//! | --- | --- |
//! | names, in any case | `connectionId`, `userId`, `protocol` (texts; the last two may be null), `groups` (a collection) |
//! | literals | `'text'`, in which a quote is doubled, whole numbers, `true`, `false`, `null` |
//! | comparison | `eq`, `ne` of anything, by value; `gt`, `ge`, `lt`, `le` of numbers; with a null these four are false |
//! | logic | `not`, before comparison, before `and`, before `or`; parentheses |
//! | `in` | `userId in ('a','b')`, `'g' in groups` |
//! | functions | `tolower`, `toupper`, `trim`, `concat`, `contains`, `startswith`, `endswith`, `indexof`, `substring`, `length` |
//!
//! A function of a null gives null, false or −1. Lengths and places count UTF-16 units, as in .NET.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod evaluate;
mod parse;

pub(crate) use parse::FilterError;

/// Longest filter, in bytes.
pub(crate) const MAX_BYTES: usize = 16 * 1024;
/// How deep parentheses, functions and `not` may be nested.
const MAX_DEPTH: usize = 100;
/// Most names, literals, operators and functions of one filter.
const MAX_PARTS: usize = 1_000;

/// A filter that was read and checked.
#[derive(Debug)]
pub(crate) struct Filter(Expression);

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// A text that is no filter, or one that is too long or too deep; the error says where.
    pub(crate) fn parse(text: &str) -> Result<Self, FilterError> {
        parse::parse(text).map(Self)
    }

    /// Returns whether a connection passes.
    pub(crate) fn admits(&self, subject: &impl Subject) -> bool {
        evaluate::is_true(&self.0, subject)
    }
}

/// A connection, as filters see it.
pub(crate) trait Subject {
    fn connection(&self) -> &str;
    fn user(&self) -> Option<&str>;
    /// The name of its subprotocol; `None` for clients without one.
    fn protocol(&self) -> Option<&str>;
    fn is_in(&self, group: &str) -> bool;
    /// How many groups it is in.
    fn groups(&self) -> usize;
}

/// A part of a filter.
#[derive(Debug)]
enum Expression {
    Null,
    Bool(bool),
    Integer(i64),
    Text(String),
    Connection,
    User,
    Protocol,
    Not(Box<Expression>),
    /// True if all are.
    All(Vec<Expression>),
    /// True if one is.
    Any(Vec<Expression>),
    Compare(Comparison, Box<(Expression, Expression)>),
    OneOf(Box<Expression>, Vec<Expression>),
    InGroups(Box<Expression>),
    CountGroups,
    Call(Function, Vec<Expression>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    ToLower,
    ToUpper,
    Trim,
    Concat,
    Contains,
    StartsWith,
    EndsWith,
    IndexOf,
    Substring,
    Length,
}

/// The type of a part. Texts may be null at any time, numbers where a function was given a null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartType {
    Null,
    Bool,
    Integer,
    Text,
}

impl PartType {
    fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Integer => "int",
            Self::Text => "string",
        }
    }
}

impl Expression {
    fn kind(&self) -> PartType {
        match self {
            Self::Null => PartType::Null,
            Self::Integer(_) | Self::CountGroups => PartType::Integer,
            Self::Text(_) | Self::Connection | Self::User | Self::Protocol => PartType::Text,
            Self::Call(function, _) => function.gives(),
            Self::Bool(_)
            | Self::Not(_)
            | Self::All(_)
            | Self::Any(_)
            | Self::Compare(..)
            | Self::OneOf(..)
            | Self::InGroups(_) => PartType::Bool,
        }
    }
}

impl Function {
    fn of(name: &str) -> Option<Self> {
        const NAMES: [(&str, Function); 10] = [
            ("tolower", Function::ToLower),
            ("toupper", Function::ToUpper),
            ("trim", Function::Trim),
            ("concat", Function::Concat),
            ("contains", Function::Contains),
            ("startswith", Function::StartsWith),
            ("endswith", Function::EndsWith),
            ("indexof", Function::IndexOf),
            ("substring", Function::Substring),
            ("length", Function::Length),
        ];
        let named = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, function)| *function)
    }

    fn gives(self) -> PartType {
        match self {
            Self::ToLower | Self::ToUpper | Self::Trim | Self::Concat | Self::Substring => PartType::Text,
            Self::Contains | Self::StartsWith | Self::EndsWith => PartType::Bool,
            Self::IndexOf | Self::Length => PartType::Integer,
        }
    }

    /// The kinds of its arguments, and how many of them must be there.
    fn takes(self) -> (&'static [PartType], usize) {
        match self {
            Self::ToLower | Self::ToUpper | Self::Trim | Self::Length => (&[PartType::Text], 1),
            Self::Concat | Self::Contains | Self::StartsWith | Self::EndsWith | Self::IndexOf => {
                (&[PartType::Text, PartType::Text], 2)
            }
            Self::Substring => (&[PartType::Text, PartType::Integer, PartType::Integer], 2),
        }
    }
}

#[cfg(test)]
mod tests;
