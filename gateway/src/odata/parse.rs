//! Reads filters, and checks that their parts fit together.

use super::{Comparison, Expression, Function, MAX_BYTES, MAX_DEPTH, MAX_PARTS, PartType};

/// The reason why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    #[error("Invalid filter: it is over {MAX_BYTES} bytes. (Parameter 'filter')")]
    TooLong,
    #[error("Invalid filter: it is nested deeper than {MAX_DEPTH}. (Parameter 'filter')")]
    TooDeep,
    #[error("Invalid filter: it has more than {MAX_PARTS} parts. (Parameter 'filter')")]
    TooManyParts,
    #[error("Invalid syntax for '{part}': Type '{is}', expect '{expected}'. (Parameter 'filter')")]
    Kind {
        part: String,
        is: &'static str,
        expected: &'static str,
    },
    #[error("Invalid syntax at character {at}: {problem}. (Parameter 'filter')")]
    Syntax { at: usize, problem: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum FilterToken {
    Name(String),
    Text(String),
    Integer(i64),
    Open,
    Close,
    Comma,
    End,
}

impl FilterToken {
    fn shown(&self) -> String {
        match self {
            Self::Name(name) => format!("'{name}'"),
            Self::Text(_) => "a text".to_owned(),
            Self::Integer(number) => format!("'{number}'"),
            Self::Open => "'('".to_owned(),
            Self::Close => "')'".to_owned(),
            Self::Comma => "','".to_owned(),
            Self::End => "the end".to_owned(),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Where the next token is looked for, in bytes.
    place: usize,
    token: FilterToken,
    /// Where the token begins, and where the one before it ended.
    begins: usize,
    ended: usize,
    depth: usize,
    parts: usize,
}

pub(super) fn parse(text: &str) -> Result<Expression, FilterError> {
    if text.len() > MAX_BYTES {
        return Err(FilterError::TooLong);
    }
    let mut parser = Parser {
        text,
        place: 0,
        token: FilterToken::End,
        begins: 0,
        ended: 0,
        depth: 0,
        parts: 0,
    };
    parser.advance()?;
    let filter = parser.disjunction()?;
    if parser.token != FilterToken::End {
        return Err(parser.unexpected("'and', 'or' or the end"));
    }
    parser.check(0, &filter, PartType::Bool)?;
    Ok(filter)
}

impl Parser<'_> {
    /// `a or b or …`
    fn disjunction(&mut self) -> Result<Expression, FilterError> {
        let begins = self.begins;
        let first = self.conjunction()?;
        if !self.is_word("or") {
            return Ok(first);
        }
        self.check(begins, &first, PartType::Bool)?;
        let mut any = vec![first];
        while self.take_word("or")? {
            let begins = self.begins;
            let next = self.conjunction()?;
            self.check(begins, &next, PartType::Bool)?;
            any.push(next);
        }
        Ok(Expression::Any(any))
    }

    /// `a and b and …`
    fn conjunction(&mut self) -> Result<Expression, FilterError> {
        let begins = self.begins;
        let first = self.comparison()?;
        if !self.is_word("and") {
            return Ok(first);
        }
        self.check(begins, &first, PartType::Bool)?;
        let mut all = vec![first];
        while self.take_word("and")? {
            let begins = self.begins;
            let next = self.comparison()?;
            self.check(begins, &next, PartType::Bool)?;
            all.push(next);
        }
        Ok(Expression::All(all))
    }

    /// `a eq b`, `a in …`, or what stands alone.
    fn comparison(&mut self) -> Result<Expression, FilterError> {
        const WORDS: [(&str, Comparison); 6] = [
            ("eq", Comparison::Equal),
            ("ne", Comparison::Unequal),
            ("gt", Comparison::Greater),
            ("ge", Comparison::GreaterOrEqual),
            ("lt", Comparison::Less),
            ("le", Comparison::LessOrEqual),
        ];
        let begins = self.begins;
        let left = self.negation()?;
        if self.take_word("in")? {
            return self.membership(left);
        }
        for (word, comparison) in WORDS {
            if !self.is_word(word) {
                continue;
            }
            let ordered = !matches!(comparison, Comparison::Equal | Comparison::Unequal);
            if ordered {
                self.check(begins, &left, PartType::Integer)?;
            }
            self.advance()?;
            let begins = self.begins;
            let right = self.negation()?;
            if ordered {
                self.check(begins, &right, PartType::Integer)?;
            }
            return Ok(Expression::Compare(comparison, Box::new((left, right))));
        }
        Ok(left)
    }

    /// The operand of `in`: a list in parentheses, or the groups.
    fn membership(&mut self, left: Expression) -> Result<Expression, FilterError> {
        let mut open = 0_usize;
        while self.token == FilterToken::Open {
            self.deeper()?;
            open = open.saturating_add(1);
            self.advance()?;
        }
        if self.take_word("groups")? {
            for _ in 0..open {
                self.close()?;
                self.depth = self.depth.saturating_sub(1);
            }
            return Ok(Expression::InGroups(Box::new(left)));
        }
        if open == 0 {
            return Err(self.unexpected("'groups' or a list in parentheses"));
        }
        // Of several parentheses the first belongs to the list, the others to its first item.
        let mut list = vec![self.disjunction()?];
        for _ in 1..open {
            self.close()?;
            self.depth = self.depth.saturating_sub(1);
        }
        while self.token == FilterToken::Comma {
            self.advance()?;
            list.push(self.disjunction()?);
        }
        self.close()?;
        self.depth = self.depth.saturating_sub(1);
        Ok(Expression::OneOf(Box::new(left), list))
    }

    /// `not a`, or `a`.
    fn negation(&mut self) -> Result<Expression, FilterError> {
        if !self.take_word("not")? {
            return self.primary();
        }
        self.deeper()?;
        self.count()?;
        let begins = self.begins;
        let operand = self.negation()?;
        self.check(begins, &operand, PartType::Bool)?;
        self.depth = self.depth.saturating_sub(1);
        Ok(Expression::Not(Box::new(operand)))
    }

    /// A literal, a name, a call, or something in parentheses.
    fn primary(&mut self) -> Result<Expression, FilterError> {
        self.count()?;
        let expected = "a name, a literal, a function or '('";
        match self.token.clone() {
            FilterToken::Text(text) => self.done(Expression::Text(text)),
            FilterToken::Integer(number) => self.done(Expression::Integer(number)),
            FilterToken::Open => {
                self.deeper()?;
                self.advance()?;
                let inner = self.disjunction()?;
                self.close()?;
                self.depth = self.depth.saturating_sub(1);
                Ok(inner)
            }
            FilterToken::Name(name) => {
                if let Some(simple) = simple(&name) {
                    return self.done(simple);
                }
                let Some(function) = Function::of(&name) else {
                    return Err(self.unexpected(expected));
                };
                self.advance()?;
                self.call(function)
            }
            FilterToken::Close | FilterToken::Comma | FilterToken::End => Err(self.unexpected(expected)),
        }
    }

    /// The arguments of a function.
    fn call(&mut self, function: Function) -> Result<Expression, FilterError> {
        let (kinds, least) = function.takes();
        self.deeper()?;
        if self.token != FilterToken::Open {
            return Err(self.unexpected("'('"));
        }
        self.advance()?;
        if function == Function::Length && self.is_word("groups") {
            self.advance()?;
            self.close()?;
            self.depth = self.depth.saturating_sub(1);
            return Ok(Expression::CountGroups);
        }
        let mut arguments = Vec::with_capacity(kinds.len());
        for (index, kind) in kinds.iter().enumerate() {
            if index > 0 {
                if self.token != FilterToken::Comma && index >= least {
                    break;
                }
                if self.token != FilterToken::Comma {
                    return Err(self.unexpected("','"));
                }
                self.advance()?;
            }
            let begins = self.begins;
            let argument = self.disjunction()?;
            self.check(begins, &argument, *kind)?;
            arguments.push(argument);
        }
        self.close()?;
        self.depth = self.depth.saturating_sub(1);
        Ok(Expression::Call(function, arguments))
    }

    fn done(&mut self, expression: Expression) -> Result<Expression, FilterError> {
        self.advance()?;
        Ok(expression)
    }

    fn close(&mut self) -> Result<(), FilterError> {
        if self.token != FilterToken::Close {
            return Err(self.unexpected("')'"));
        }
        self.advance()
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(&self.token, FilterToken::Name(name) if name.eq_ignore_ascii_case(word))
    }

    fn take_word(&mut self, word: &str) -> Result<bool, FilterError> {
        let is_there = self.is_word(word);
        if is_there {
            self.advance()?;
        }
        Ok(is_there)
    }

    fn deeper(&mut self) -> Result<(), FilterError> {
        self.depth = self.depth.saturating_add(1);
        if self.depth > MAX_DEPTH {
            return Err(FilterError::TooDeep);
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), FilterError> {
        self.parts = self.parts.saturating_add(1);
        if self.parts > MAX_PARTS {
            return Err(FilterError::TooManyParts);
        }
        Ok(())
    }

    /// Checks the kind of a part that began there. A null may stand for a text or a number.
    fn check(&self, begins: usize, part: &Expression, expected: PartType) -> Result<(), FilterError> {
        let is = part.kind();
        if is == expected || (is == PartType::Null && expected != PartType::Bool) {
            return Ok(());
        }
        let text = self.text.get(begins..self.ended).unwrap_or_default().trim();
        Err(FilterError::Kind {
            part: text.chars().take(200).collect(),
            is: is.name(),
            expected: expected.name(),
        })
    }

    fn unexpected(&self, expected: &str) -> FilterError {
        self.problem(
            self.begins,
            format!("{expected} was expected, not {}", self.token.shown()),
        )
    }

    fn problem(&self, place: usize, problem: String) -> FilterError {
        let before = self.text.get(..place).unwrap_or_default();
        FilterError::Syntax {
            at: before.chars().count(),
            problem,
        }
    }

    /// Reads the next token.
    fn advance(&mut self) -> Result<(), FilterError> {
        self.ended = self.place;
        let rest = self.text.get(self.place..).unwrap_or_default();
        let trimmed = rest.trim_start();
        self.begins = self.text.len().saturating_sub(trimmed.len());
        let (token, length) = self.next(trimmed)?;
        self.place = self.begins.saturating_add(length);
        self.token = token;
        Ok(())
    }

    /// The first token of a text, and its length in bytes.
    fn next(&self, text: &str) -> Result<(FilterToken, usize), FilterError> {
        let Some(first) = text.chars().next() else {
            return Ok((FilterToken::End, 0));
        };
        match first {
            '(' => Ok((FilterToken::Open, 1)),
            ')' => Ok((FilterToken::Close, 1)),
            ',' => Ok((FilterToken::Comma, 1)),
            '\'' => self.quoted(text),
            '+' | '-' | '0'..='9' => {
                let digits = |c: char| !c.is_ascii_digit();
                let sign = usize::from(!first.is_ascii_digit());
                let number = text.get(sign..).unwrap_or_default();
                let length = number.find(digits).unwrap_or(number.len()).saturating_add(sign);
                let number = text.get(..length).unwrap_or_default().parse();
                let number = number.map_err(|_| {
                    self.problem(self.begins, "it is no whole number, or one too large".to_owned())
                })?;
                Ok((FilterToken::Integer(number), length))
            }
            'A'..='Z' | 'a'..='z' | '_' => {
                let ends = |c: char| !c.is_ascii_alphanumeric() && c != '_';
                let length = text.find(ends).unwrap_or(text.len());
                let name = text.get(..length).unwrap_or_default();
                Ok((FilterToken::Name(name.to_owned()), length))
            }
            other => Err(self.problem(self.begins, format!("{other:?} has no meaning here"))),
        }
    }

    /// A text in quotes, in which a quote is doubled.
    fn quoted(&self, text: &str) -> Result<(FilterToken, usize), FilterError> {
        let mut value = String::new();
        let mut characters = text.char_indices().skip(1).peekable();
        while let Some((place, character)) = characters.next() {
            if character != '\'' {
                value.push(character);
            } else if characters.next_if(|(_, next)| *next == '\'').is_some() {
                value.push('\'');
            } else {
                return Ok((FilterToken::Text(value), place.saturating_add(1)));
            }
        }
        Err(self.problem(self.begins, "the text has no end".to_owned()))
    }
}

/// A name or a literal that is a word.
fn simple(name: &str) -> Option<Expression> {
    let is = |word: &str| name.eq_ignore_ascii_case(word);
    Some(match () {
        () if is("connectionId") => Expression::Connection,
        () if is("userId") => Expression::User,
        () if is("protocol") => Expression::Protocol,
        () if is("true") => Expression::Bool(true),
        () if is("false") => Expression::Bool(false),
        () if is("null") => Expression::Null,
        () => return None,
    })
}
