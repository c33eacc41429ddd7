//! Asks a filter about one connection.

use std::borrow::Cow;

use super::{Comparison, Expression, Function, Subject};

/// The value of a part for one connection.
#[derive(Debug, PartialEq)]
enum Value<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Text(Cow<'a, str>),
}

impl<'a> Value<'a> {
    fn maybe(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, |text| Self::Text(text.into()))
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }
}

pub(super) fn is_true(expression: &Expression, subject: &impl Subject) -> bool {
    match expression {
        Expression::Bool(value) => *value,
        Expression::Not(operand) => !is_true(operand, subject),
        Expression::All(all) => all.iter().all(|one| is_true(one, subject)),
        Expression::Any(any) => any.iter().any(|one| is_true(one, subject)),
        Expression::Compare(comparison, sides) => {
            compare(*comparison, &value(&sides.0, subject), &value(&sides.1, subject))
        }
        Expression::OneOf(left, list) => {
            let left = value(left, subject);
            list.iter().any(|one| value(one, subject) == left)
        }
        Expression::InGroups(left) => value(left, subject)
            .text()
            .is_some_and(|group| subject.is_in(group)),
        Expression::Call(function, arguments) => call(*function, arguments, subject) == Value::Bool(true),
        _ => false, // of another kind, which was refused
    }
}

fn value<'a>(expression: &'a Expression, subject: &'a impl Subject) -> Value<'a> {
    match expression {
        Expression::Null => Value::Null,
        Expression::Integer(number) => Value::Integer(*number),
        Expression::Text(text) => Value::maybe(Some(text)),
        Expression::Connection => Value::maybe(Some(subject.connection())),
        Expression::User => Value::maybe(subject.user()),
        Expression::Protocol => Value::maybe(subject.protocol()),
        Expression::CountGroups => Value::Integer(count(subject.groups())),
        Expression::Call(function, arguments) => call(*function, arguments, subject),
        _ => Value::Bool(is_true(expression, subject)),
    }
}

fn compare(comparison: Comparison, left: &Value<'_>, right: &Value<'_>) -> bool {
    let numbers = || left.integer().zip(right.integer());
    let ordered = |holds: fn(i64, i64) -> bool| numbers().is_some_and(|(left, right)| holds(left, right));
    match comparison {
        Comparison::Equal => left == right,
        Comparison::Unequal => left != right,
        Comparison::Greater => ordered(|left, right| left > right),
        Comparison::GreaterOrEqual => ordered(|left, right| left >= right),
        Comparison::Less => ordered(|left, right| left < right),
        Comparison::LessOrEqual => ordered(|left, right| left <= right),
    }
}

fn call<'a>(function: Function, arguments: &'a [Expression], subject: &'a impl Subject) -> Value<'a> {
    let argument = |index: usize| {
        arguments
            .get(index)
            .map_or(Value::Null, |argument| value(argument, subject))
    };
    let (first, second) = (argument(0), argument(1));
    let Some(text) = first.text() else {
        return of_null(function);
    };
    let owned = |text: String| Value::Text(text.into());
    match (function, second.text()) {
        (Function::ToLower, _) => owned(text.to_lowercase()),
        (Function::ToUpper, _) => owned(text.to_uppercase()),
        (Function::Trim, _) => owned(text.trim().to_owned()),
        (Function::Length, _) => Value::Integer(units(text)),
        (Function::Concat, Some(other)) => owned([text, other].concat()),
        (Function::Contains, Some(other)) => Value::Bool(text.contains(other)),
        (Function::StartsWith, Some(other)) => Value::Bool(text.starts_with(other)),
        (Function::EndsWith, Some(other)) => Value::Bool(text.ends_with(other)),
        (Function::IndexOf, Some(other)) => Value::Integer(
            text.find(other)
                .map_or(-1, |place| units(text.get(..place).unwrap_or_default())),
        ),
        (Function::Substring, _) => {
            let length = arguments.get(2).map(|length| value(length, subject));
            substring(text, &second, length.as_ref())
        }
        (_, None) => of_null(function),
    }
}

/// The value of a function whose argument is null.
fn of_null(function: Function) -> Value<'static> {
    match function {
        Function::Contains | Function::StartsWith | Function::EndsWith => Value::Bool(false),
        Function::IndexOf => Value::Integer(-1),
        _ => Value::Null,
    }
}

/// A part of a text; as much of it as there is. Null where it would begin before the text.
fn substring(text: &str, begin: &Value<'_>, length: Option<&Value<'_>>) -> Value<'static> {
    let number = |value: &Value<'_>| value.integer().and_then(|number| usize::try_from(number).ok());
    let Some(begin) = number(begin) else {
        return Value::Null;
    };
    let most = match length {
        Some(length) => match number(length) {
            Some(length) => length,
            None => return Value::Null,
        },
        None => usize::MAX,
    };
    let taken: Vec<u16> = text.encode_utf16().skip(begin).take(most).collect();
    Value::Text(String::from_utf16_lossy(&taken).into())
}

fn units(text: &str) -> i64 {
    count(text.encode_utf16().count())
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
