//! The properties of an object, still encoded.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{DecodeValueError, Encoding, MAX_DEPTH, Value, json, pack};

impl Value {
    /// The properties of an object, in order, sharing its bytes. Names may repeat.
    ///
    /// # Errors
    ///
    /// The value is no object, or not well formed, or has a name that is no text.
    pub(crate) fn fields(&self) -> Result<Vec<(String, Value)>, DecodeValueError> {
        match self.encoding() {
            Encoding::Json => {
                let mut reader = serde_json::Deserializer::from_slice(self.bytes());
                let fields = reader.deserialize_map(RawFields)?;
                reader.end()?;
                let value_in = |(name, raw)| (name, json::value_in(self.bytes(), raw));
                Ok(fields.into_iter().map(value_in).collect())
            }
            Encoding::MessagePack => {
                let mut reader = pack::Reader::new(self.bytes());
                let mut fields = Vec::new();
                for _ in 0..reader.map()? {
                    let name = reader.str()?.to_owned();
                    let value = reader.value(MAX_DEPTH.saturating_sub(1))?;
                    fields.push((name, pack::value_in(self.bytes(), value)));
                }
                reader.end()?;
                Ok(fields)
            }
        }
    }
}

struct RawFields;

impl<'de> Visitor<'de> for RawFields {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn both_encodings_give_the_same_fields() {
        let json = Value::from_json_text(" {\"a\": [1, 2.50], \"\\u0062\":{}, \"a\" : null}").unwrap();
        let named = |value: &Value| -> Vec<_> {
            let fields = value.fields().unwrap();
            fields
                .into_iter()
                .map(|(name, value)| (name, value.transcode(Encoding::Json).unwrap().bytes().clone()))
                .collect()
        };
        let expected = [("a", "[1, 2.50]"), ("b", "{}"), ("a", "null")]
            .map(|(name, text)| (name.to_owned(), Bytes::from_static(text.as_bytes())));
        assert_eq!(named(&json), expected);
        let packed = json.transcode(Encoding::MessagePack).unwrap();
        let names: Vec<_> = named(&packed).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b", "a"]);
        for none in ["[]", "1", "null"] {
            let value = Value::from_json_text(none).unwrap();
            assert!(value.fields().is_err(), "{none}");
            assert!(
                value.transcode(Encoding::MessagePack).unwrap().fields().is_err(),
                "{none}"
            );
        }
        let number = Value::from_messagepack(Bytes::from_static(&[0x81, 1, 1])).unwrap();
        assert!(number.fields().is_err(), "a name is a text");
    }
}
