//! Values of settings: what a text stands for, and whether a value is one of its kind.

use toml::Value;

use super::keys::Kind;
use super::load::{ConfigError, Origin};

/// A year: more is a mistake in the unit.
const MAX_SECONDS: f64 = 31_536_000.0;

/// The reason why a value is not one of its kind, in words that follow its key.
#[derive(Debug, PartialEq, thiserror::Error)]
enum ValueError {
    #[error("{0:?} is not true or false")]
    NotAFlag(String),
    #[error("{0:?} is not a whole number")]
    NotWhole(String),
    #[error("{0:?} is not a number")]
    NotANumber(String),
    #[error("must be {expected}, not of type {found}")]
    Type {
        expected: &'static str,
        found: &'static str,
    },
    #[error("is empty; leave it out to not set it")]
    Empty,
    #[error("is {0}, must be at least 0")]
    Negative(i64),
    #[error("is {number}, must be from 0 to {most}")]
    OutOfRange { number: f64, most: f64 },
    #[error("must be one of {}", .0.join(", "))]
    NotOneOf(&'static [&'static str]),
    #[error("has {item}, must be of {}", .words.join(", "))]
    Item {
        item: Value,
        words: &'static [&'static str],
    },
}

/// Converts a value to a kind; `name` is its key in errors.
pub(super) fn typed(kind: Kind, name: &str, value: Value, origin: &Origin) -> Result<Value, ConfigError> {
    let value = trimmed(kind, value);
    let typed = match origin {
        Origin::Variable(_) | Origin::Flag(_) => from_text(kind, value),
        _ => Ok(value),
    };
    typed
        .and_then(|value| check(kind, value))
        .map_err(|error| ConfigError::Value {
            key: name.to_owned(),
            origin: origin.clone(),
            problem: error.to_string(),
        })
}

/// A text without space around it: secrets that were made with `--from-file` or `echo` end in a line feed, and that is
/// not meant to be a part of a key, a URL or a name.
fn trimmed(kind: Kind, value: Value) -> Value {
    match (kind, value) {
        (Kind::Text | Kind::Secret | Kind::OneOf(_), Value::String(text)) => {
            Value::String(text.trim().to_owned())
        }
        (_, value) => value,
    }
}

/// Converts a variable's or flag's text to the value that a file would hold.
fn from_text(kind: Kind, value: Value) -> Result<Value, ValueError> {
    let Value::String(text) = value else {
        return Ok(value);
    };
    let text = match kind {
        Kind::Text | Kind::Secret | Kind::OneOf(_) => return Ok(Value::String(text)),
        _ => text.trim(),
    };
    match kind {
        Kind::Flag => text
            .parse()
            .map(Value::Boolean)
            .map_err(|_| ValueError::NotAFlag(text.to_owned())),
        Kind::Count => text
            .parse()
            .map(Value::Integer)
            .map_err(|_| ValueError::NotWhole(text.to_owned())),
        Kind::Seconds | Kind::Ratio => text
            .parse()
            .map(Value::Float)
            .map_err(|_| ValueError::NotANumber(text.to_owned())),
        _ => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::Array(
                items.map(|item| Value::String(item.to_owned())).collect(),
            ))
        }
    }
}

/// Checks one value alone.
fn check(kind: Kind, value: Value) -> Result<Value, ValueError> {
    let found = value.type_str();
    let wrong = |expected| Err(ValueError::Type { expected, found });
    match (kind, &value) {
        (Kind::Text | Kind::Secret, Value::String(text)) if text.is_empty() => Err(ValueError::Empty),
        (Kind::Text | Kind::Secret, Value::String(_)) | (Kind::Flag, Value::Boolean(_)) => Ok(value),
        (Kind::Text | Kind::Secret, _) => wrong("text in quotes"),
        (Kind::Flag, _) => wrong("true or false"),
        (Kind::Count, Value::Integer(number)) if *number >= 0 => Ok(value),
        (Kind::Count, Value::Integer(number)) => Err(ValueError::Negative(*number)),
        (Kind::Count, _) => wrong("a whole number"),
        (Kind::Seconds | Kind::Ratio, Value::Integer(number)) => check(kind, Value::Float(*number as f64)),
        (Kind::Seconds, Value::Float(number)) if !(0.0..=MAX_SECONDS).contains(number) => {
            Err(ValueError::OutOfRange {
                number: *number,
                most: MAX_SECONDS,
            })
        }
        (Kind::Ratio, Value::Float(number)) if !(0.0..=1.0).contains(number) => Err(ValueError::OutOfRange {
            number: *number,
            most: 1.0,
        }),
        (Kind::Seconds | Kind::Ratio, Value::Float(_)) => Ok(value),
        (Kind::Seconds | Kind::Ratio, _) => wrong("a number"),
        (Kind::OneOf(words), Value::String(word)) if words.contains(&word.as_str()) => Ok(value),
        (Kind::OneOf(words), _) => Err(ValueError::NotOneOf(words)),
        (Kind::AnyOf(words), Value::Array(items)) => {
            let is_word = |item: &Value| item.as_str().is_some_and(|item| words.contains(&item));
            match items.iter().find(|item| !is_word(item)) {
                None => Ok(value),
                Some(item) => Err(ValueError::Item {
                    item: item.clone(),
                    words,
                }),
            }
        }
        (Kind::List, Value::Array(items)) if items.iter().all(Value::is_str) => Ok(value),
        (Kind::List | Kind::AnyOf(_), _) => wrong("an array of texts"),
    }
}
