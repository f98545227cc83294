//! The JSON handler: a request is a list of events, `[{"headers": {"k": "v"}, "body": "text"}, …]`.
//!
//! Both fields may be missing or null; other fields are passed over. Values that are numbers or booleans are texts as they
//! stand. A header that is null is left out.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use smol_str::SmolStr;
use thiserror::Error;

use crate::event::{Batch, Headers, HeadersId, NO_HEADERS};

/// What a client may say that its request is written in; bodies of events are written in the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8.
    Utf8,
    /// UTF-16: big-endian, unless a byte order mark says otherwise. Bodies get one.
    Utf16,
    /// UTF-32: the same, and bodies get none.
    Utf32,
}

/// Why a request has no events.
#[derive(Debug, Error)]
pub enum JsonError {
    /// It is not what it has to be.
    #[error("Request has invalid JSON Syntax. {0}")]
    Syntax(String),
    /// There is nothing where a list or an event has to be.
    #[error("{0}")]
    Nothing(&'static str),
}

impl Encoding {
    /// The encoding by its name; the standard's for none. Others are not allowed.
    pub fn named(name: Option<&str>) -> Option<Self> {
        let Some(name) = name else { return Some(Self::Utf8) };
        [("utf-8", Self::Utf8), ("utf8", Self::Utf8), ("utf-16", Self::Utf16), ("utf-32", Self::Utf32)]
            .into_iter()
            .find_map(|(known, encoding)| name.eq_ignore_ascii_case(known).then_some(encoding))
    }

    /// A request in UTF-8; `None` where it is not in this encoding. That it is in UTF-8 shows later.
    fn decode(self, request: Bytes) -> Option<Bytes> {
        match self {
            Self::Utf8 => Some(match request.strip_prefix(b"\xef\xbb\xbf") {
                Some(rest) => request.slice_ref(rest),
                None => request,
            }),
            Self::Utf16 => {
                let (text, _, malformed) = encoding_rs::UTF_16BE.decode(&request);
                (!malformed).then(|| text.into_owned().into())
            }
            Self::Utf32 => {
                let (units, rest) = request.as_chunks::<4>();
                let (units, from): (_, fn([u8; 4]) -> u32) = match units {
                    [[0xFF, 0xFE, 0, 0], units @ ..] => (units, u32::from_le_bytes),
                    [[0, 0, 0xFE, 0xFF], units @ ..] => (units, u32::from_be_bytes),
                    units => (units, u32::from_be_bytes),
                };
                let text: Option<String> = units.iter().map(|unit| char::from_u32(from(*unit))).collect();
                text.filter(|_| rest.is_empty()).map(Bytes::from)
            }
        }
    }

    fn encode(self, text: &str, out: &mut Vec<u8>) {
        match self {
            Self::Utf8 => out.extend_from_slice(text.as_bytes()),
            Self::Utf16 => {
                let units = std::iter::once(0xFEFF).chain(text.encode_utf16()).flat_map(u16::to_be_bytes);
                // Java writes no mark where there is nothing else to write.
                out.extend(units.take(if text.is_empty() { 0 } else { usize::MAX }));
            }
            Self::Utf32 => out.extend(text.chars().flat_map(|c| u32::from(c).to_be_bytes())),
        }
    }
}

/// The events of a request.
pub fn events(request: Bytes, encoding: Encoding) -> Result<Batch, JsonError> {
    let malformed = || JsonError::Syntax(format!("It is not valid {encoding:?}."));
    let text = encoding.decode(request).ok_or_else(malformed)?;
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(JsonError::Nothing("There is no list of events in the request, as it is empty"));
    }
    let mut list =
        List { encoding, text: &text, nothing: None, batch: Batch::new(), places: Vec::new(), own: Vec::new() };
    let mut json = serde_json::Deserializer::from_slice(&text);
    let outcome = OrNull(&mut list).deserialize(&mut json).and_then(|()| json.end());
    outcome.map_err(|error| JsonError::Syntax(error.to_string()))?;
    match list.nothing {
        Some(nothing) => Err(JsonError::Nothing(nothing)),
        None => Ok(list.finish()),
    }
}

/// Where the body of an event is.
enum Body {
    /// In the request.
    Request(Range<usize>),
    /// In what has been written anew.
    Own(Range<usize>),
}

/// The events of a list.
struct List<'de> {
    encoding: Encoding,
    text: &'de Bytes,
    /// What was null and must not be.
    nothing: Option<&'static str>,
    batch: Batch,
    places: Vec<(Body, HeadersId)>,
    /// Bodies that do not stand in the request as they are.
    own: Vec<u8>,
}

impl<'de> List<'de> {
    /// The list's batch. Bodies are slices of the request, where nothing in them was escaped.
    fn finish(self) -> Batch {
        let mut batch = self.batch;
        let request = batch.push_buffer(self.text.clone());
        let own = batch.push_buffer(self.own.into());
        for (body, headers) in self.places {
            match body {
                Body::Request(at) => batch.push_span(request, at.start, at.end, headers),
                Body::Own(at) => batch.push_span(own, at.start, at.end, headers),
            }
        }
        batch
    }

    fn add(&mut self, headers: &[(Cow<'de, str>, Cow<'de, str>)], body: Option<Cow<'de, str>>) {
        let last = self.batch.header_sets().last();
        let same = |last: &Headers| {
            last.len() == headers.len() && last.iter().zip(headers).all(|(a, b)| a.0 == b.0 && a.1 == b.1)
        };
        let headers = match self.places.last() {
            _ if headers.is_empty() => NO_HEADERS,
            Some((_, id)) if *id != NO_HEADERS && last.is_some_and(same) => *id,
            _ => self
                .batch
                .push_headers(headers.iter().map(|(key, value)| (SmolStr::new(key), SmolStr::new(value))).collect()),
        };
        let body = match body {
            Some(Cow::Borrowed(text)) if self.encoding == Encoding::Utf8 => {
                let start = text.as_ptr().addr() - self.text.as_ptr().addr();
                Body::Request(start..start + text.len())
            }
            text => {
                let start = self.own.len();
                self.encoding.encode(text.as_deref().unwrap_or_default(), &mut self.own);
                Body::Own(start..self.own.len())
            }
        };
        self.places.push((body, headers));
    }
}

/// A text, or a number or boolean as one; nothing for null.
fn text(value: &RawValue) -> Result<Option<Cow<'_, str>>, serde_json::Error> {
    let raw = value.get();
    match raw.as_bytes() {
        b"null" => Ok(None),
        [b'"', ..] if memchr::memchr(b'\\', raw.as_bytes()).is_none() => {
            Ok(Some(Cow::Borrowed(&raw[1..raw.len() - 1])))
        }
        [b'"', ..] => serde_json::from_str::<String>(raw).map(|text| Some(Cow::Owned(text))),
        [b'{' | b'[', ..] => Err(serde_json::Error::custom(format_args!("expected a text, not {}", beginning(raw)))),
        _ => Ok(Some(Cow::Borrowed(raw))),
    }
}

/// A few characters of a text.
fn beginning(text: &str) -> &str {
    const FEW: usize = 30;
    &text[..text.char_indices().nth(FEW).map_or(text.len(), |(at, _)| at)]
}

/// Something, or null, which is remembered as a problem where it must not be.
struct OrNull<T>(T);

macro_rules! or_null {
    ($of:ty, $read:ident, $null:expr) => {
        impl<'de> DeserializeSeed<'de> for OrNull<$of> {
            type Value = ();

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
                deserializer.deserialize_option(self)
            }
        }

        impl<'de> Visitor<'de> for OrNull<$of> {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.expecting(f)
            }

            fn visit_none<E>(self) -> Result<(), E> {
                let null: fn($of) = $null;
                null(self.0);
                Ok(())
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
                deserializer.$read(self.0)
            }
        }
    };
}

or_null!(&mut List<'de>, deserialize_seq, |list| list.nothing =
    Some("There is no list of events in the request, but null"));
or_null!(OneEvent<'_, 'de>, deserialize_map, |event| event.0.nothing = Some("There is null in the list of events"));
or_null!(&mut Pairs<'de>, deserialize_map, |_| ());

impl<'de> Visitor<'de> for &mut List<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut events: A) -> Result<(), A::Error> {
        let mut pairs = Pairs(Vec::new());
        while events.next_element_seed(OrNull(OneEvent(self, &mut pairs)))?.is_some() {}
        Ok(())
    }
}

struct OneEvent<'a, 'de>(&'a mut List<'de>, &'a mut Pairs<'de>);

impl<'de> Visitor<'de> for OneEvent<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event, with \"headers\" and \"body\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let Self(list, pairs) = self;
        pairs.0.clear();
        let mut body = None;
        while let Some(name) = fields.next_key_seed(Text)? {
            match &*name {
                "headers" => {
                    pairs.0.clear();
                    fields.next_value_seed(OrNull(&mut *pairs))?;
                }
                "body" => body = text(fields.next_value()?).map_err(A::Error::custom)?,
                _ => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        list.add(&pairs.0, body);
        Ok(())
    }
}

/// The headers of an event.
struct Pairs<'de>(Vec<(Cow<'de, str>, Cow<'de, str>)>);

impl<'de> Visitor<'de> for &mut Pairs<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("headers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut headers: A) -> Result<(), A::Error> {
        /// So many are looked through faster than hashed.
        const FEW: usize = 16;
        let mut names = std::collections::HashSet::new();
        while let Some(name) = headers.next_key_seed(Text)? {
            let value: &RawValue = headers.next_value()?;
            let Some(value) = text(value).map_err(A::Error::custom)? else { continue };
            if self.0.len() == FEW {
                names.extend(self.0.iter().map(|(name, _)| name.clone()));
            }
            let twice = match self.0.len() {
                ..FEW => self.0.iter().any(|(other, _)| *other == name),
                _ => !names.insert(name.clone()),
            };
            if twice {
                return Err(A::Error::custom(format_args!("duplicate key: {}", beginning(&name))));
            }
            self.0.push((name, value));
        }
        Ok(())
    }
}

/// A key, as it stands in the request if it can be.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Event;

    fn read(request: &str) -> Result<Batch, JsonError> {
        events(Bytes::copy_from_slice(request.as_bytes()), Encoding::Utf8)
    }

    fn batch(request: &str) -> Batch {
        read(request).expect("right")
    }

    #[test]
    fn events_with_all_that_flume_takes() {
        let request = r#" [{"headers":{"a":"b","n":1.50,"t":true,"z":null},"body":"plain é"},
            {"body":"\u00e9\ud83d\ude00\n","headers":null,"other":{"x":[1]}}, {"body":5}, {}, {"body":null,"headers":{}}] "#;
        let expected = Batch::from_iter([
            Event::new("plain é").with("a", "b").with("n", "1.50").with("t", "true"),
            Event::new("é😀\n"),
            Event::new("5"),
            Event::new(""),
            Event::new(""),
        ]);
        assert_eq!(batch(request), expected);
        assert!(batch("[]").is_empty());
        assert_eq!(batch("\u{feff}[{}]").len(), 1);
        // As in Gson, the last of several counts.
        assert_eq!(batch(r#"[{"body":"a","body":"b"}]"#).get(0).body(), b"b");
    }

    #[test]
    fn the_same_headers_one_after_the_other_are_one_set() {
        let request = r#"[{"headers":{"a":"1"}},{"headers":{"a":"1"}},{},{"headers":{"a":"1"}},{"headers":{"a":"2"}}]"#;
        let batch = batch(request);
        let values: Vec<_> = batch.iter().map(|event| event.headers().get("a")).collect();
        assert_eq!(values, [Some("1"), Some("1"), None, Some("1"), Some("2")]);
        assert_eq!(batch.header_sets().len(), 3);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (request, what) in [
            ("{\"body\":\"x\"}", "expected a list of events"),
            ("[5]", "an event"),
            ("[{\"body\":\"x\"}", "EOF"),
            ("[{\"body\":\"x\"}] more", "trailing"),
            ("[{\"body\":[\"x\"]}]", "expected a text, not [\"x\"]"),
            ("[{\"headers\":{\"a\":{\"b\":1}}}]", "expected a text, not {\"b\":1}"),
            ("[{\"headers\":{\"a\":\"1\",\"a\":\"2\"}}]", "duplicate key: a"),
            ("[{\"body\":\"\\ud800\"}]", "escape"),
            ("[{'body':'x'}]", "column 3"),
            ("[null, 5]", "an event"),
        ] {
            let error = read(request).expect_err(request);
            assert!(matches!(&error, JsonError::Syntax(why) if why.contains(what)), "{request}: {error}");
        }
        for request in ["", " \n", "null", "[{}, null]"] {
            assert!(matches!(read(request), Err(JsonError::Nothing(_))), "{request}");
        }
        let many: String = (0..100).map(|n| format!("\"k{}\":1,", n % 99)).collect();
        assert!(
            read(&format!("[{{\"headers\":{{{}\"k\":1}}}}]", many))
                .is_err_and(|error| error.to_string().contains("k0"))
        );
        let error = events(Bytes::from_static(b"[{\"body\":\"\xff\"}]"), Encoding::Utf8).expect_err("not UTF-8");
        assert!(matches!(error, JsonError::Syntax(_)));
    }

    #[test]
    fn other_encodings() {
        let text = r#"[{"headers":{"é":"ü"},"body":"€"}]"#;
        let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let le: Vec<u8> = "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        for request in [utf16, le] {
            let batch = events(request.into(), Encoding::Utf16).expect("right");
            assert_eq!(batch, Batch::from_iter([Event::new(&b"\xfe\xff\x20\xac"[..]).with("é", "ü")]));
        }
        let utf32 = |unit: fn(u32) -> [u8; 4]| -> Bytes {
            std::iter::once('\u{feff}').chain(text.chars()).flat_map(|c| unit(c.into())).collect()
        };
        for request in [utf32(u32::to_be_bytes), utf32(u32::to_le_bytes), utf32(u32::to_be_bytes).slice(4..)] {
            let batch = events(request, Encoding::Utf32).expect("right");
            assert_eq!(batch, Batch::from_iter([Event::new(&b"\0\0\x20\xac"[..]).with("é", "ü")]));
        }
        for (request, encoding) in [(&b"\xd8\0\0"[..], Encoding::Utf16), (b"\0\0\0[\0", Encoding::Utf32)] {
            assert!(events(Bytes::from_static(request), encoding).is_err());
        }
        assert_eq!(Encoding::named(Some("iso-8859-1")), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(list in prop::collection::vec((prop::collection::btree_map(".{0,5}", ".{0,40}", 0..20), ".{0,40}"), 0..10)) {
            let json: Vec<_> = list.iter().map(|(headers, body)| serde_json::json!({ "headers": headers, "body": body })).collect();
            let expected: Batch = list.iter().map(|(headers, body)| Event { headers: headers.iter().collect(), body: body.clone().into() }).collect();
            prop_assert_eq!(batch(&serde_json::to_string(&json).expect("JSON")), expected);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(request in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            r#"\[(\{("(headers|body|x)":(null|"[a\\u0"]{0,4}"|[0-9.e]{1,3}|\{("a":("b"|1),?)?\}),?){0,3}\},?){0,3}\]?"#.prop_map(String::into_bytes),
        ]) {
            for encoding in [Encoding::Utf8, Encoding::Utf16, Encoding::Utf32] {
                // Whatever comes of it.
                events(request.clone().into(), encoding).ok();
            }
        }
    }
}
