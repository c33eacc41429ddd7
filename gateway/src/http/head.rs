//! Heads of responses that are written without the HTTP library, as it writes them.

use std::time::SystemTime;

use axum::http::{HeaderMap, StatusCode, header};
use bytes::{BufMut as _, BytesMut};

/// A head, with a date if it has none. `framing`: how the body is delimited, if there is one.
pub(super) fn write(status: StatusCode, headers: &HeaderMap, framing: Option<(&str, &str)>) -> BytesMut {
    let mut head = BytesMut::with_capacity(512);
    head.put_slice(b"HTTP/1.1 ");
    head.put_slice(status.as_str().as_bytes());
    head.put_u8(b' ');
    head.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    head.put_slice(b"\r\n");
    for (name, value) in headers {
        put(&mut head, name.as_str(), value.as_bytes());
    }
    if let Some((name, value)) = framing {
        put(&mut head, name, value.as_bytes());
    }
    if !headers.contains_key(header::DATE) {
        let now = httpdate::fmt_http_date(SystemTime::now());
        put(&mut head, "date", now.as_bytes());
    }
    head.put_slice(b"\r\n");
    head
}

fn put(head: &mut BytesMut, name: &str, value: &[u8]) {
    head.put_slice(name.as_bytes());
    head.put_slice(b": ");
    head.put_slice(value);
    head.put_slice(b"\r\n");
}
