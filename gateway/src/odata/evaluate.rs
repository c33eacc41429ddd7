//! Asks a filter about one connection.

use std::borrow::Cow;

use super::{Comparison, Expression, Function, Subject};

/// The value of a part for one connection.
#[derive(Debug, PartialEq)]
enum PartValue<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Text(Cow<'a, str>),
}

impl<'a> PartValue<'a> {
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
        Expression::Call(function, arguments) => call(*function, arguments, subject) == PartValue::Bool(true),
        _ => false, // of another kind, which was refused
    }
}

fn value<'a>(expression: &'a Expression, subject: &'a impl Subject) -> PartValue<'a> {
    match expression {
        Expression::Null => PartValue::Null,
        Expression::Integer(number) => PartValue::Integer(*number),
        Expression::Text(text) => PartValue::maybe(Some(text)),
        Expression::Connection => PartValue::maybe(Some(subject.connection())),
        Expression::User => PartValue::maybe(subject.user()),
        Expression::Protocol => PartValue::maybe(subject.protocol()),
        Expression::CountGroups => PartValue::Integer(count(subject.groups())),
        Expression::Call(function, arguments) => call(*function, arguments, subject),
        _ => PartValue::Bool(is_true(expression, subject)),
    }
}

fn compare(comparison: Comparison, left: &PartValue<'_>, right: &PartValue<'_>) -> bool {
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

fn call<'a>(function: Function, arguments: &'a [Expression], subject: &'a impl Subject) -> PartValue<'a> {
    let argument = |index: usize| {
        arguments
            .get(index)
            .map_or(PartValue::Null, |argument| value(argument, subject))
    };
    let (first, second) = (argument(0), argument(1));
    let Some(text) = first.text() else {
        return of_null(function);
    };
    let owned = |text: String| PartValue::Text(text.into());
    match (function, second.text()) {
        (Function::ToLower, _) => owned(text.to_lowercase()),
        (Function::ToUpper, _) => owned(text.to_uppercase()),
        (Function::Trim, _) => owned(text.trim().to_owned()),
        (Function::Length, _) => PartValue::Integer(units(text)),
        (Function::Concat, Some(other)) => owned([text, other].concat()),
        (Function::Contains, Some(other)) => PartValue::Bool(text.contains(other)),
        (Function::StartsWith, Some(other)) => PartValue::Bool(text.starts_with(other)),
        (Function::EndsWith, Some(other)) => PartValue::Bool(text.ends_with(other)),
        (Function::IndexOf, Some(other)) => PartValue::Integer(
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
fn of_null(function: Function) -> PartValue<'static> {
    match function {
        Function::Contains | Function::StartsWith | Function::EndsWith => PartValue::Bool(false),
        Function::IndexOf => PartValue::Integer(-1),
        _ => PartValue::Null,
    }
}

/// A part of a text; as much of it as there is. Null where it would begin before the text.
fn substring(text: &str, begin: &PartValue<'_>, length: Option<&PartValue<'_>>) -> PartValue<'static> {
    let number = |value: &PartValue<'_>| value.integer().and_then(|number| usize::try_from(number).ok());
    let Some(begin) = number(begin) else {
        return PartValue::Null;
    };
    let most = match length {
        Some(length) => match number(length) {
            Some(length) => length,
            None => return PartValue::Null,
        },
        None => usize::MAX,
    };
    let taken: Vec<u16> = text.encode_utf16().skip(begin).take(most).collect();
    PartValue::Text(String::from_utf16_lossy(&taken).into())
}

fn units(text: &str) -> i64 {
    count(text.encode_utf16().count())
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
