//! Charsets by their Java names, for sources whose input is text.

use std::borrow::Cow;

use encoding_rs::{CoderResult, Decoder, Encoding};

/// A charset in which a line feed is the byte 0x0A and nothing else is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// UTF-8.
    Utf8,
    /// ISO-8859-1: every byte is the character of its number.
    Latin1,
    /// US-ASCII: bytes above 0x7F are errors.
    Ascii,
    /// Another one.
    Other(&'static Encoding),
}

impl Charset {
    /// Finds a charset; UTF-16 and UTF-32 are not supported.
    pub fn for_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "utf-8" | "utf8" => Some(Self::Utf8),
            "iso-8859-1" | "iso8859-1" | "iso8859_1" | "latin1" | "l1" => Some(Self::Latin1),
            "us-ascii" | "ascii" | "iso646-us" => Some(Self::Ascii),
            other => {
                let other =
                    other.strip_prefix("cp").map_or_else(|| other.to_owned(), |number| format!("windows-{number}"));
                let encoding = Encoding::for_label(other.as_bytes())?;
                let usable = encoding.is_ascii_compatible() && encoding != encoding_rs::REPLACEMENT;
                usable.then_some(Self::Other(encoding))
            }
        }
    }

    /// A decoder of a stream.
    pub fn decoder(self) -> TextDecoder {
        TextDecoder {
            charset: self,
            inner: if let Self::Other(encoding) = self {
                Some(encoding.new_decoder_without_bom_handling())
            } else {
                None
            },
        }
    }

    /// Whether all of these bytes mean something in this charset.
    pub fn is_valid(self, bytes: &[u8]) -> bool {
        match self {
            Self::Latin1 => true,
            Self::Ascii => bytes.is_ascii(),
            Self::Utf8 => std::str::from_utf8(bytes).is_ok(),
            Self::Other(_) => self.text(bytes).is_some(),
        }
    }

    /// What these bytes mean; `None` when they are malformed.
    pub fn text(self, bytes: &[u8]) -> Option<Cow<'_, str>> {
        match self {
            Self::Other(encoding) => encoding.decode_without_bom_handling_and_without_replacement(bytes),
            Self::Latin1 => Some(encoding_rs::mem::decode_latin1(bytes)),
            Self::Ascii if !bytes.is_ascii() => None,
            Self::Ascii | Self::Utf8 => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        }
    }

    /// Text in this charset; what it does not have becomes a question mark, as in Java.
    pub fn encode(self, text: &str) -> Vec<u8> {
        match self {
            Self::Utf8 => text.as_bytes().to_vec(),
            Self::Latin1 => text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect(),
            Self::Ascii => text.chars().map(|c| if c.is_ascii() { c as u8 } else { b'?' }).collect(),
            Self::Other(encoding) => {
                let mut encoder = encoding.new_encoder();
                let mut out = Vec::with_capacity(text.len() + 16);
                let mut rest = text;
                loop {
                    let (result, read) = encoder.encode_from_utf8_to_vec_without_replacement(rest, &mut out, true);
                    rest = &rest[read..];
                    match result {
                        encoding_rs::EncoderResult::InputEmpty => return out,
                        encoding_rs::EncoderResult::OutputFull => out.reserve(rest.len() + 16),
                        encoding_rs::EncoderResult::Unmappable(_) => out.push(b'?'),
                    }
                }
            }
        }
    }
}

/// Turns a stream of bytes into text; malformed bytes become U+FFFD.
pub struct TextDecoder {
    charset: Charset,
    inner: Option<Decoder>,
}

impl TextDecoder {
    /// Decodes one piece. UTF-8 must come in whole characters, as whole lines do.
    pub fn decode(&mut self, bytes: &[u8], out: &mut String) {
        match (&mut self.inner, self.charset) {
            (Some(decoder), _) => {
                let mut rest = bytes;
                loop {
                    out.reserve(rest.len() + 16);
                    let (result, read, _) = decoder.decode_to_string(rest, out, false);
                    rest = &rest[read..];
                    if result == CoderResult::InputEmpty {
                        return;
                    }
                }
            }
            (None, Charset::Latin1) => out.extend(bytes.iter().map(|byte| char::from(*byte))),
            (None, Charset::Ascii) => {
                out.extend(bytes.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '\u{fffd}' }));
            }
            (None, _) => out.push_str(&String::from_utf8_lossy(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(name: &str, bytes: &[u8]) -> (String, Vec<u8>) {
        let charset = Charset::for_name(name).expect("a charset");
        let mut text = String::new();
        charset.decoder().decode(bytes, &mut text);
        let encoded = charset.encode(&text);
        (text, encoded)
    }

    #[test]
    fn malformed_bytes_are_told_from_text() {
        let text = |name: &str, bytes| Charset::for_name(name).expect("a charset").text(bytes).map(Cow::into_owned);
        assert_eq!(text("utf-8", "é".as_bytes()).as_deref(), Some("é"));
        assert_eq!(text("iso-8859-1", b"\xe9").as_deref(), Some("é"));
        assert_eq!(text("gbk", b"\xc4\xe3").as_deref(), Some("你"));
        for (name, bytes) in [("utf-8", b"\xff"), ("us-ascii", b"\xe9"), ("gbk", b"\xff")] {
            assert_eq!(text(name, bytes), None, "{name}");
            assert!(!Charset::for_name(name).expect("a charset").is_valid(bytes), "{name}");
        }
    }

    #[test]
    fn java_names() {
        assert_eq!(round("ISO-8859-1", b"\xe9\x80"), ("é\u{80}".to_owned(), b"\xe9\x80".to_vec()));
        assert_eq!(round("windows-1252", b"\x80"), ("€".to_owned(), b"\x80".to_vec()));
        assert_eq!(round("Cp1252", b"\x80").0, "€");
        assert_eq!(round("US-ASCII", b"a\xe9"), ("a\u{fffd}".to_owned(), b"a?".to_vec()));
        assert_eq!(round("utf-8", b"a\xff").0, "a\u{fffd}");
        assert_eq!(round("GBK", b"\xc4\xe3").0, "你");
        assert_eq!(Charset::for_name("nosuch"), None);
        assert_eq!(Charset::for_name("UTF-16"), None);
    }
}
