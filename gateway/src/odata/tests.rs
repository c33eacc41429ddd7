use proptest::prelude::*;

use super::*;

struct Ann;

impl Subject for Ann {
    fn connection(&self) -> &str {
        "c-1"
    }

    fn user(&self) -> Option<&str> {
        Some("Ann-ü😀")
    }

    fn protocol(&self) -> Option<&str> {
        Some("json.webpubsub.azure.v1")
    }

    fn is_in(&self, group: &str) -> bool {
        ["a", "it's"].contains(&group)
    }

    fn groups(&self) -> usize {
        2
    }
}

struct Nobody;

impl Subject for Nobody {
    fn connection(&self) -> &str {
        "c-2"
    }

    fn user(&self) -> Option<&str> {
        None
    }

    fn protocol(&self) -> Option<&str> {
        None
    }

    fn is_in(&self, _: &str) -> bool {
        false
    }

    fn groups(&self) -> usize {
        0
    }
}

/// Returns whether Ann and an anonymous connection pass.
fn passes(filter: &str) -> (bool, bool) {
    let filter = Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
    (filter.admits(&Ann), filter.admits(&Nobody))
}

#[test]
fn examples_of_the_documentation_mean_what_it_says() {
    for (filter, expected) in [
        ("'a' in groups or 'b' in groups or 'c' in groups", (true, false)),
        ("userId in ('x', 'Ann-ü😀', 'y') and 'a' in groups", (true, false)),
        ("userId eq 'Ann-ü😀' and connectionId ne '123'", (true, false)),
        ("userId eq 'Ann-ü😀' and (not ('a' in groups))", (false, false)),
        ("'it''s' in groups", (true, false)),
        ("userId ne null", (true, false)),
        ("userId eq null", (false, true)),
        ("not endswith(userId, 'milk')", (true, true)),
        ("not (length(userId) gt 5)", (false, true)),
        ("tolower(userId) eq 'ann-ü😀'", (true, false)),
        ("toupper(connectionId) eq 'C-1'", (true, false)),
        ("trim(' c-1 ') eq connectionId", (true, false)),
        ("substring(userId,4,1) eq 'ü'", (true, false)),
        ("substring(userId,5) eq '😀'", (true, false)),
        ("indexof(userId,'-ü') ge 0", (true, false)),
        ("indexof(userId,'z') eq -1", (true, true)),
        ("length(userId) eq 7", (true, false)),
        ("length(groups) gt 1", (true, false)),
        ("concat(connectionId,'x') eq 'c-1x'", (true, false)),
        (
            "contains(userId,'nn') and startswith(userId,'Ann')",
            (true, false),
        ),
        ("protocol eq 'json.webpubsub.azure.v1'", (true, false)),
        ("true", (true, true)),
        ("false or true and false", (false, false)),
        ("(true or false) and ('a' in (groups))", (true, false)),
        ("USERID EQ null OR LENGTH(Groups) GE +2", (true, true)),
        ("1 eq 1 and 'a' ne 'A' and null eq null", (true, true)),
        ("1 eq '1'", (false, false)),
        ("length(null) gt 0 or null lt 1", (false, false)),
        ("null in groups or null in ('a', null)", (true, true)),
        ("userId in (('x'),null)", (false, true)),
        ("(userId eq null) eq false", (true, false)),
    ] {
        assert_eq!(passes(filter), expected, "{filter}");
    }
}

#[test]
fn what_is_no_filter_is_refused_in_words() {
    for (filter, text) in [
        (
            "",
            "a name, a literal, a function or '(' was expected, not the end",
        ),
        (
            "length(userId)",
            "Invalid syntax for 'length(userId)': Type 'int', expect 'bool'. (Parameter 'filter')",
        ),
        (
            "not length(userId) gt 5",
            "Invalid syntax for 'length(userId)': Type 'int', expect 'bool'",
        ),
        ("userId", "Type 'string', expect 'bool'"),
        ("null", "Type 'null', expect 'bool'"),
        ("true and 1", "Invalid syntax for '1': Type 'int', expect 'bool'"),
        ("false or userId", "Invalid syntax for 'userId': Type 'string'"),
        (
            "userId gt 'a'",
            "Invalid syntax for 'userId': Type 'string', expect 'int'",
        ),
        ("tolower(1) eq 'a'", "Type 'int', expect 'string'"),
        ("substring(userId,'1') eq 'a'", "Type 'string', expect 'int'"),
        ("userId eq 'a", "at character 10: the text has no end"),
        (
            "userId eq 'a' 'b'",
            "at character 14: 'and', 'or' or the end was expected, not a text",
        ),
        ("user eq 'a'", "at character 0: a name"),
        ("groups", "a name, a literal"),
        ("'a' in userId", "'groups' or a list in parentheses was expected"),
        ("'a' in (", "was expected, not the end"),
        ("'a' in ()", "was expected, not ')'"),
        ("contains(userId)", "',' was expected, not ')'"),
        ("contains(userId,'a','b')", "')' was expected, not ','"),
        ("length userId", "'(' was expected"),
        (
            "userId eq 99999999999999999999",
            "no whole number, or one too large",
        ),
        ("userId eq -", "no whole number"),
        ("userId == 'a'", "'=' has no meaning here"),
        ("groups/any(g: g eq 'a')", "a name, a literal"),
        ("userId eq 'a' eq true", "'and', 'or' or the end was expected"),
    ] {
        let error = Filter::parse(filter).expect_err(filter).to_string();
        assert!(error.contains(text), "{filter}: {error}");
        assert!(error.ends_with("(Parameter 'filter')"), "{error}");
    }
}

#[test]
fn length_depth_and_parts_are_bounded() {
    let nested = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Filter::parse(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(
        Filter::parse(&nested(MAX_DEPTH + 1)).unwrap_err(),
        FilterError::TooDeep
    );
    for opening in ["not ", "tolower(", "'a' in ("] {
        let deep = opening.repeat(MAX_DEPTH * 10);
        assert_eq!(
            Filter::parse(&deep).unwrap_err(),
            FilterError::TooDeep,
            "{opening}"
        );
    }
    let many = |count: usize| vec!["true"; count].join(" or ");
    assert!(Filter::parse(&many(MAX_PARTS)).unwrap().admits(&Ann));
    assert_eq!(
        Filter::parse(&many(MAX_PARTS + 1)).unwrap_err(),
        FilterError::TooManyParts
    );
    let long = format!("userId eq '{}'", "x".repeat(MAX_BYTES));
    assert_eq!(Filter::parse(&long).unwrap_err(), FilterError::TooLong);
}

proptest! {
    #[test]
    fn no_text_is_too_much(text in ".{0,80}") {
        if let Ok(filter) = Filter::parse(&text) {
            filter.admits(&Ann);
        }
    }

    #[test]
    fn no_sequence_of_words_is_too_much(words in proptest::collection::vec(
        prop_oneof![Just("("), Just(")"), Just(","), Just("not"), Just("and"), Just("or"), Just("in"), Just("eq"),
            Just("gt"), Just("groups"), Just("userId"), Just("'a'"), Just("1"), Just("null"), Just("true"),
            Just("length"), Just("substring"), Just("concat")], 0..24)) {
        if let Ok(filter) = Filter::parse(&words.join(" ")) {
            prop_assert_eq!(filter.admits(&Ann), filter.admits(&Ann));
            filter.admits(&Nobody);
        }
    }

    #[test]
    fn a_text_is_what_is_quoted(text in ".{0,40}") {
        let quoted = text.replace('\'', "''");
        let units = text.encode_utf16().count();
        let filter = format!("'{quoted}' eq '{quoted}' and length('{quoted}') eq {units}");
        let passed = passes(&filter).0;
        prop_assert!(passed, "{}", filter);
    }
}
