//! Texts of clients and applications as values of headers.

use axum::http::HeaderValue;

/// The text as a header that brings it unchanged: as UTF-8, as both forms have it. `None` where no header can: for control
/// characters, and for blanks at its ends, which receivers take off, so that they would see another name.
pub(super) fn carried(text: &str) -> Option<HeaderValue> {
    if text.chars().any(char::is_control) || text.trim_matches(' ') != text {
        return None;
    }
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_brings_a_text_as_it_is_or_not_at_all() {
        for text in ["ann", "ann b", "\u{e4}nn", "\u{a0}ann", "a,b;c=\"d\"", ""] {
            assert_eq!(carried(text).unwrap().as_bytes(), text.as_bytes(), "{text:?}");
        }
        for text in [
            " ann",
            "ann ",
            "a\tb",
            "\tann",
            "a\r\nx: y",
            "\0",
            "a\u{7f}",
            "a\u{85}b",
        ] {
            assert_eq!(carried(text), None, "{text:?}");
        }
    }
}
