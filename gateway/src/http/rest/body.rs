//! Messages in the bodies of requests.

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;

use super::error::Refusal;

use crate::bom;
use crate::hub::Outgoing;
use crate::protocol::{
    Binary, DecodeValueError, Decoder, Encoding, HubMessage, HubProtocol, Invocation, Value,
};

/// How a body is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Media {
    /// `application/json`: target and arguments.
    Json,
    /// `application/x-msgpack`: the same as MessagePack.
    MessagePack,
    /// `application/octet-stream`: whole hub messages, one for each protocol.
    Framed,
}

impl Media {
    pub(super) const ALL: [Self; 3] = [Self::Json, Self::MessagePack, Self::Framed];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::MessagePack => "application/x-msgpack",
            Self::Framed => "application/octet-stream",
        }
    }

    /// The media type that a request names for its body, if that is one of these.
    pub(super) fn of(headers: &HeaderMap, allowed: &[Self]) -> Result<Self, Refusal> {
        check_coding(headers)?;
        let value = headers.get(header::CONTENT_TYPE);
        let text = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = text.split(';').next().unwrap_or_default().trim();
        let found = allowed
            .iter()
            .find(|media| media.name().eq_ignore_ascii_case(essence));
        found.copied().ok_or_else(|| {
            let names: Vec<_> = allowed.iter().map(|media| media.name()).collect();
            Refusal::media_type(&names.join(" or "))
        })
    }
}

/// Checks that the body is not compressed.
pub(super) fn check_coding(headers: &HeaderMap) -> Result<(), Refusal> {
    let coded = |value: &&HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    match headers.get_all(header::CONTENT_ENCODING).iter().find(coded) {
        Some(coding) => Err(Refusal::compressed(&String::from_utf8_lossy(coding.as_bytes()))),
        None => Ok(()),
    }
}

/// Reads a message.
pub(super) fn message(media: Media, body: Bytes) -> Result<Outgoing, Refusal> {
    if media == Media::Framed {
        return framed(body);
    }
    outgoing(&value(media, body)?)
}

/// Reads the one value that a body is.
pub(super) fn value(media: Media, body: Bytes) -> Result<Value, Refusal> {
    if body.is_empty() {
        return Err(Refusal::invalid("Message in request body is required."));
    }
    match media {
        Media::Json => {
            let text = bom::skip(&body);
            Value::from_json_text(body.slice_ref(text))
        }
        Media::MessagePack | Media::Framed => Value::from_messagepack(body),
    }
    .map_err(|error| unreadable("The body", &error))
}

/// Takes target and arguments out of an object. Names have no case: .NET writes them in its own.
pub(super) fn outgoing(value: &Value) -> Result<Outgoing, Refusal> {
    let (mut target, mut arguments) = (None, Vec::new());
    let fields = value
        .fields()
        .map_err(|error| unreadable("The message", &error))?;
    for (name, value) in fields {
        if name.eq_ignore_ascii_case("target") {
            target = Some(value);
        } else if name.eq_ignore_ascii_case("arguments") {
            arguments = elements("arguments", &value)?;
        }
    }
    let target = target.map(|target| target.decode::<String>());
    let target = match target {
        Some(Ok(target)) if !target.is_empty() => target,
        _ => {
            return Err(Refusal::invalid(
                "The message needs a target, a text that is not empty.",
            ));
        }
    };
    Ok(Outgoing {
        target,
        arguments,
        ..Outgoing::default()
    })
}

/// The items of an array, or none for null.
pub(super) fn elements(what: &str, value: &Value) -> Result<Vec<Value>, Refusal> {
    if value.is_null() {
        return Ok(Vec::new());
    }
    let not_an_array = |_| Refusal::invalid(format!("{what} must be an array."));
    value.elements().map_err(not_an_array)
}

/// Reads hub messages in the form of each protocol. A client of that protocol gets the arguments as they are written.
fn framed(body: Bytes) -> Result<Outgoing, Refusal> {
    let frames = value(Media::Framed, body)?;
    let frames = frames.fields().map_err(|error| unreadable("The body", &error))?;
    let mut calls: Vec<(Encoding, Invocation)> = Vec::new();
    for (name, frame) in frames {
        let Some(protocol) = HubProtocol::parse(&name) else {
            continue; // no client speaks it here
        };
        let Binary(frame) = frame
            .decode()
            .map_err(|_| Refusal::invalid(format!("The message for {name:?} must be bytes.")))?;
        calls.push((protocol.encoding(), invocation(protocol, &frame)?));
    }
    let framed_in = calls.iter().map(|(encoding, _)| *encoding).collect();
    let mut calls = calls.into_iter();
    let Some((encoding, first)) = calls.next() else {
        let text = "The body has no message for json or messagepack.";
        return Err(Refusal::invalid(text));
    };
    let mut translated = Vec::new();
    for (other, call) in calls {
        if call.target != first.target || call.arguments.len() != first.arguments.len() {
            let text =
                "The messages for different protocols must have the same target and as many arguments.";
            return Err(Refusal::invalid(text));
        }
        if other != encoding {
            translated = call.arguments;
        }
    }
    Ok(Outgoing {
        target: first.target,
        arguments: first.arguments,
        translated,
        framed_in,
        ..Outgoing::default()
    })
}

fn invocation(protocol: HubProtocol, frame: &[u8]) -> Result<Invocation, Refusal> {
    let mut decoder = Decoder::new(protocol, usize::MAX);
    decoder.push(frame);
    let message = decoder
        .next_message()
        .map_err(|error| Refusal::invalid(format!("The message for {protocol} can't be read: {error}")))?;
    match message {
        Some(HubMessage::Invocation(call)) if decoder.buffered_bytes() == 0 => Ok(call),
        _ => Err(Refusal::invalid(format!(
            "The message for {protocol} must be one whole Invocation."
        ))),
    }
}

/// Refuses the body with the parser's reason and its position.
fn unreadable(what: &str, error: &DecodeValueError) -> Refusal {
    match std::error::Error::source(error) {
        Some(source) => Refusal::invalid(format!("{what} can't be read: {source}.")),
        None => Refusal::invalid(format!("{what} can't be read: {error}.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &'static str) -> Result<Outgoing, Refusal> {
        message(Media::Json, Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn names_have_no_case_and_arguments_are_kept_as_they_are() {
        let outgoing = json("{\"Target\":\"t\", \"x\":{}, \"ARGUMENTS\":[1.50, {\"b\":1,\"a\":2}]}").unwrap();
        assert_eq!(outgoing.target, "t");
        let arguments: Vec<_> = outgoing
            .arguments
            .iter()
            .map(|value| value.bytes().clone())
            .collect();
        assert_eq!(arguments, ["1.50", "{\"b\":1,\"a\":2}"]);
        for none in ["{\"target\":\"t\"}", "{\"target\":\"t\",\"arguments\":null}"] {
            assert!(json(none).unwrap().arguments.is_empty());
        }
        for bad in [
            "",
            "{",
            "[]",
            "{}",
            "{\"target\":\"\"}",
            "{\"target\":7}",
            "{\"target\":null}",
            "{\"target\":\"t\",\"arguments\":{}}",
            "{\"target\":\"t\",\"arguments\":7}",
        ] {
            assert!(json(bad).is_err(), "{bad}");
        }
    }

    /// The example of the reference.
    #[test]
    fn framed_messages_are_read_for_each_protocol() {
        let mut body = b"\x82\xa4json\xc4\x28{\"type\":1,\"target\":\"a\",\"arguments\":[1]}\x1e".to_vec();
        body.extend_from_slice(b"\xabmessagepack\xc4\x0a\x09\x96\x01\x80\xc0\xa1a\x91\x01\x90");
        let outgoing = message(Media::Framed, body.clone().into()).unwrap();
        assert_eq!(outgoing.target, "a");
        assert_eq!(outgoing.arguments[0].encoding(), Encoding::Json);
        assert_eq!(outgoing.translated[0].encoding(), Encoding::MessagePack);
        body[0] = 0x81;
        assert!(
            message(Media::Framed, body.clone().into()).is_err(),
            "bytes behind it"
        );
        body.truncate(8 + 40);
        let alone = message(Media::Framed, body.into()).unwrap();
        assert!(alone.translated.is_empty());
        let unknown = Bytes::from_static(b"\x81\xa1x\xc4\x00");
        assert!(message(Media::Framed, unknown).is_err());
    }
}
