//! Messages in the bodies of requests to a hub with the REST API of Azure Web PubSub: text, JSON or bytes, passed on as
//! they came.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;

use super::body::check_coding;
use super::error::Refusal;
use crate::bom;
use crate::hub::{Outgoing, with_metadata};
use crate::protocol::{Binary, DataType, Encoding, Headers, MESSAGE, Value, webpubsub};

/// The media types of messages.
pub(super) const MEDIA: [&str; 3] = ["text/plain", "application/json", "application/octet-stream"];

/// The beginning of the names of headers that are metadata of the message.
const METADATA: &str = "x-webpubsub-metadata-";

/// Reads a message.
pub(super) fn message(headers: &HeaderMap, body: &Bytes) -> Result<Outgoing, Refusal> {
    check_coding(headers)?;
    let web_pubsub = with_metadata(metadata(headers)?);
    let message = data(headers, body)?;
    Ok(Outgoing {
        web_pubsub,
        ..message
    })
}

/// Reads the headers whose values are the message's metadata. Of several with one name, also in one header, the last counts.
fn metadata(headers: &HeaderMap) -> Result<Headers, Refusal> {
    let of = |(name, value): (&HeaderName, &HeaderValue)| {
        let name = name.as_str().strip_prefix(METADATA)?.to_owned();
        let text = value.to_str().unwrap_or("\u{fffd}"); // breaks the rules
        Some((
            name,
            text.rsplit(',').next().unwrap_or_default().trim().to_owned(),
        ))
    };
    webpubsub::metadata(headers.iter().filter_map(of))
        .map_err(|rules| Refusal::invalid(format!("The headers {METADATA}… are metadata, which is {rules}.")))
}

fn data(headers: &HeaderMap, body: &Bytes) -> Result<Outgoing, Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str);
    let kind = kind.transpose().map_err(|_| other_media())?;
    // Without a type it is bytes, as in the service's emulator.
    let mut parts = kind
        .unwrap_or("application/octet-stream")
        .split(';')
        .map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let charset = parts.find_map(charset_of);
    let is = |name: &str| essence.eq_ignore_ascii_case(name);
    if is("text/plain") {
        text(&decoded(body, charset)?)
    } else if is("application/json") {
        json(decoded(body, charset)?)
    } else if is("application/octet-stream") {
        binary(body)
    } else {
        Err(other_media())
    }
}

fn other_media() -> Refusal {
    Refusal::media_type(&format!(
        "{}, in UTF-8, US-ASCII or ISO-8859-1",
        MEDIA.join(" or ")
    ))
}

fn charset_of(parameter: &str) -> Option<&str> {
    let (name, value) = parameter.split_once('=')?;
    let is_charset = name.trim().eq_ignore_ascii_case("charset");
    is_charset.then(|| value.trim().trim_matches('"'))
}

/// The body in UTF-8.
fn decoded(body: &Bytes, charset: Option<&str>) -> Result<Bytes, Refusal> {
    let charset = charset.unwrap_or("utf-8").to_ascii_lowercase();
    match charset.as_str() {
        "utf-8" | "utf8" | "us-ascii" if std::str::from_utf8(body).is_ok() => {
            let text = bom::skip(body);
            Ok(body.slice_ref(text))
        }
        "utf-8" | "utf8" | "us-ascii" => Err(Refusal::invalid("The body is no text in UTF-8.")),
        "iso-8859-1" | "latin1" => Ok(body
            .iter()
            .map(|byte| char::from(*byte))
            .collect::<String>()
            .into()),
        _ => Err(other_media()),
    }
}

fn text(text: &Bytes) -> Result<Outgoing, Refusal> {
    let text = std::str::from_utf8(text).map_err(|_| Refusal::invalid("The body is no text in UTF-8."))?;
    Ok(of(encoded(text, Encoding::Json)?, None, DataType::Text))
}

fn json(body: Bytes) -> Result<Outgoing, Refusal> {
    let value = Value::from_json_text(body)
        .map_err(|error| Refusal::invalid(format!("The request body is not a valid JSON. {error}")))?;
    if value.is_null() {
        // Clients of .NET drop their sockets at each message without data.
        return Err(Refusal::invalid("The message may not be null."));
    }
    Ok(of(value, None, DataType::Json))
}

fn binary(body: &Bytes) -> Result<Outgoing, Refusal> {
    let json = encoded(BASE64.encode(body).as_str(), Encoding::Json)?;
    let packed = encoded(&Binary(body.to_vec()), Encoding::MessagePack)?;
    Ok(of(json, Some(packed), DataType::Binary))
}

fn encoded<T: serde::Serialize + ?Sized>(value: &T, encoding: Encoding) -> Result<Value, Refusal> {
    Value::encode_as(value, encoding).map_err(|error| Refusal::invalid(error.to_string()))
}

fn of(data: Value, packed: Option<Value>, data_type: DataType) -> Outgoing {
    Outgoing {
        target: MESSAGE.to_owned(),
        arguments: vec![data],
        translated: packed.into_iter().collect(),
        data_type,
        ..Outgoing::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Option<&'static str>, body: &'static [u8]) -> Result<Outgoing, Refusal> {
        let mut headers = HeaderMap::new();
        if let Some(kind) = kind {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        message(&headers, &Bytes::from_static(body))
    }

    #[test]
    fn metadata_come_in_headers() {
        let read = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            let message = message(&headers, &Bytes::from_static(b"x"))?;
            let entries = message.web_pubsub.into_iter().flat_map(|more| more.metadata);
            Ok::<_, Refusal>(Vec::from_iter(entries.map(|entry| (entry.name, entry.value))))
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read(&[("x-other", "1")]).unwrap(), []);
        let several = [
            ("x-webpubsub-metadata-a", "1, 2 , 3 "),
            ("x-webpubsub-metadata-b", "x"),
            ("x-webpubsub-metadata-b", "y z"),
        ];
        assert_eq!(read(&several).unwrap(), [pair("a", "3"), pair("b", "y z")]);
        let long = "x".repeat(1_025);
        for (name, value) in [
            ("x-webpubsub-metadata-", "1"),
            ("x-webpubsub-metadata-a", "\u{e4}"),
            ("x-webpubsub-metadata-a", &long),
        ] {
            assert!(read(&[(name, value)]).is_err(), "{name}: {value}");
        }
    }

    #[test]
    fn bodies_are_passed_on_as_they_came() {
        for (kind, body, data_type, json) in [
            (
                Some("text/plain"),
                "hällo \"q\"".as_bytes(),
                DataType::Text,
                r#""hällo \"q\"""#,
            ),
            (
                Some("text/plain; charset=\"UTF-8\""),
                b"",
                DataType::Text,
                r#""""#,
            ),
            (
                Some("Text/Plain;charset=iso-8859-1"),
                b"h\xe4",
                DataType::Text,
                r#""hä""#,
            ),
            (
                Some("application/json"),
                b" {\"a\": [1, 2.50]}\n",
                DataType::Json,
                "{\"a\": [1, 2.50]}",
            ),
            (
                Some("application/json; charset=utf-8"),
                b"\xef\xbb\xbf42",
                DataType::Json,
                "42",
            ),
            (
                Some("application/octet-stream"),
                b"\x00\xff\n",
                DataType::Binary,
                r#""AP8K""#,
            ),
            (None, b"x", DataType::Binary, r#""eA==""#),
        ] {
            let outgoing = read(kind, body).unwrap();
            assert_eq!(outgoing.data_type, data_type, "{kind:?}");
            assert_eq!(outgoing.arguments[0].bytes(), json, "{kind:?}");
            assert_eq!(
                outgoing.translated.len(),
                usize::from(data_type == DataType::Binary)
            );
        }
    }

    #[test]
    fn others_are_refused() {
        for (kind, body, status) in [
            ("application/json", &b"{"[..], 400),
            ("application/json", b"", 400),
            ("application/json", b" null ", 400),
            ("text/plain", b"\xff", 400),
            ("text/plain; charset=utf-16", b"", 415),
            ("text/html", b"x", 415),
            ("", b"x", 415),
        ] {
            assert_eq!(read(Some(kind), body).unwrap_err().status(), status, "{kind}");
        }
    }
}
