//! The byte order mark that some editors and shells put before a text.

/// A UTF-8 text without it. Section 8.1 of RFC 8259 lets readers of JSON ignore it.
pub(crate) fn skip(text: &[u8]) -> &[u8] {
    text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mark_at_the_beginning_is_skipped() {
        assert_eq!(skip("\u{feff}[1]".as_bytes()), b"[1]");
        assert_eq!(skip(b"[1]"), b"[1]");
        let two = "\u{feff}\u{feff}";
        assert_eq!(skip(two.as_bytes()), "\u{feff}".as_bytes());
    }
}
