//! The form in which names of groups and users are stored: in keys, channels, log entries, tombstones and arguments of
//! scripts. Names hold any characters; the stored form has no control character but [`ESCAPE`] itself, so line feeds can
//! separate fields, and its first character can mark reserved names.
//!
//! A control character (U+0000–001F, U+007F–009F) is written as [`ESCAPE`] and two hexadecimal digits. All other
//! characters stand for themselves: a name without control characters is its own stored form.

use std::borrow::Cow;

/// The character that begins an escaped one. `quoted` in `redis/script/lua/log.lua` has it, too.
pub(crate) const ESCAPE: char = '\u{2}';

/// The stored form of a name.
pub(crate) fn escape(name: &str) -> Cow<'_, str> {
    if !name.chars().any(char::is_control) {
        return Cow::Borrowed(name);
    }
    let mut stored = String::with_capacity(name.len() + 8);
    for character in name.chars() {
        if character.is_control() {
            stored.push_str(&format!("{ESCAPE}{:02x}", u32::from(character)));
        } else {
            stored.push(character);
        }
    }
    Cow::Owned(stored)
}

/// The name of a stored form; `None` where no name has this form.
pub(crate) fn unescape(stored: &str) -> Option<Cow<'_, str>> {
    if !stored.chars().any(char::is_control) {
        return Some(Cow::Borrowed(stored));
    }
    let mut parts = stored.split(ESCAPE);
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let code = u32::from_str_radix(part.get(..2)?, 16).ok()?;
        name.push(char::from_u32(code)?);
        name.push_str(part.get(2..)?);
    }
    let name = Cow::Owned(name);
    (escape(&name) == stored).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_characters_are_escaped_and_nothing_else_is() {
        for (name, stored) in [
            ("a%0ab c/ü\u{2028}", "a%0ab c/ü\u{2028}"),
            ("a\nb", "a\u{2}0ab"),
            ("\u{0}\u{1}\u{2}", "\u{2}00\u{2}01\u{2}02"),
            ("\u{7f}\u{85}\u{9f}\u{a0}", "\u{2}7f\u{2}85\u{2}9f\u{a0}"),
        ] {
            assert_eq!(escape(name), stored);
            assert_eq!(unescape(stored).as_deref(), Some(name));
        }
        for other in [
            "\u{2}",
            "\u{2}0",
            "\u{2}0A",
            "\u{2}41",
            "\u{2}xy",
            "\u{2}+a",
            "\n",
            "\u{2}0a\n",
            "\u{2}ü",
        ] {
            assert_eq!(unescape(other), None, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_read_as_it_was_stored(name in any::<String>(), more in "[\\x00-\\x1f\\x7f-\\x9fa]*") {
            let name = name + &more;
            let stored = escape(&name);
            prop_assert!(stored.chars().all(|character| character == ESCAPE || !character.is_control()));
            prop_assert_eq!(unescape(&stored), Some(Cow::Borrowed(name.as_str())));
        }
    }
}
