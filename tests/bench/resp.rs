//! The protocol of Redis (RESP 2), as far as publishing and subscribing need it.

/// A command.
pub(crate) fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Reads one reply at the beginning of `bytes`: adds its texts and numbers to `parts`, and returns its length; `None` if it has not
/// arrived whole.
pub(crate) fn reply<'a>(bytes: &'a [u8], parts: &mut Vec<&'a [u8]>) -> Option<usize> {
    let end = memchr::memchr(b'\n', bytes)?;
    let (kind, line) = bytes.get(..end)?.strip_suffix(b"\r")?.split_first()?;
    let mut length = end + 1;
    let count = || std::str::from_utf8(line).ok()?.parse::<usize>().ok();
    match kind {
        b'*' => {
            for _ in 0..count()? {
                length += reply(bytes.get(length..)?, parts)?;
            }
        }
        b'$' => {
            let text = bytes.get(length..length + count()? + 2)?;
            parts.push(text.strip_suffix(b"\r\n")?);
            length += text.len();
        }
        _ => parts.push(line),
    }
    Some(length)
}
