//! Charsets by their Java names, for sources whose input is text.

use std::borrow::Cow;

use encoding_rs::{CoderResult, Decoder, DecoderResult, Encoding};

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

/// What becomes of bytes that a charset does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMalformed {
    /// They are an error.
    Fail,
    /// They become U+FFFD.
    Replace,
    /// They are left out.
    Ignore,
}

impl OnMalformed {
    /// How many UTF-16 units they become.
    fn units(self) -> usize {
        usize::from(self != Self::Ignore)
    }

    fn apply(self, at: usize, out: &mut String) -> Result<(), usize> {
        match self {
            Self::Fail => return Err(at),
            Self::Replace => out.push('\u{fffd}'),
            Self::Ignore => {}
        }
        Ok(())
    }
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

    /// Appends the text of bytes that end where a character does. The error is the place of the first byte that is none.
    pub fn decode(self, bytes: &[u8], on_malformed: OnMalformed, out: &mut String) -> Result<(), usize> {
        match self {
            Self::Latin1 => out.extend(bytes.iter().copied().map(char::from)),
            Self::Utf8 => {
                let mut at = 0;
                for chunk in bytes.utf8_chunks() {
                    out.push_str(chunk.valid());
                    at += chunk.valid().len();
                    if !chunk.invalid().is_empty() {
                        on_malformed.apply(at, out)?;
                        at += chunk.invalid().len();
                    }
                }
            }
            Self::Ascii => {
                for (at, byte) in bytes.iter().enumerate() {
                    match byte.is_ascii() {
                        true => out.push(char::from(*byte)),
                        false => on_malformed.apply(at, out)?,
                    }
                }
            }
            Self::Other(encoding) => {
                let mut decoder = encoding.new_decoder_without_bom_handling();
                let mut at = 0;
                loop {
                    out.reserve(bytes.len() - at + 16);
                    let (result, read) = decoder.decode_to_string_without_replacement(&bytes[at..], out, true);
                    at += read;
                    match result {
                        DecoderResult::InputEmpty => break,
                        DecoderResult::OutputFull => {}
                        DecoderResult::Malformed(bad, behind) => {
                            on_malformed.apply(at.saturating_sub(usize::from(bad + behind)), out)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// How many bytes make up the first `units` UTF-16 units, with no character cut in two (unless it has more units than
    /// that); `None` when there are fewer.
    pub fn prefix(self, bytes: &[u8], units: usize, on_malformed: OnMalformed) -> Option<usize> {
        let mut at = 0;
        let mut seen = 0;
        while seen < units {
            let (len, more) = self.character(&bytes[at..], on_malformed)?;
            if seen > 0 && seen + more > units {
                break;
            }
            at += len;
            seen += more;
        }
        Some(at)
    }

    /// The bytes and the UTF-16 units of the first character, or of the bytes in front that are none.
    fn character(self, bytes: &[u8], on_malformed: OnMalformed) -> Option<(usize, usize)> {
        let first = *bytes.first()?;
        if first.is_ascii() || self == Self::Latin1 {
            return Some((1, 1));
        }
        // No charset has longer ones.
        let bytes = &bytes[..bytes.len().min(4)];
        Some(match self {
            Self::Utf8 => match bytes.utf8_chunks().next() {
                Some(chunk) => match chunk.valid().chars().next() {
                    Some(character) => (character.len_utf8(), character.len_utf16()),
                    None => (chunk.invalid().len(), on_malformed.units()),
                },
                None => return None,
            },
            Self::Other(encoding) => (1..=bytes.len())
                .find_map(|len| {
                    let mut units = [0; 4];
                    let mut decoder = encoding.new_decoder_without_bom_handling();
                    let (result, _, written) =
                        decoder.decode_to_utf16_without_replacement(&bytes[..len], &mut units, false);
                    (result == DecoderResult::InputEmpty && written > 0).then_some((len, written))
                })
                .unwrap_or((1, on_malformed.units())),
            _ => (1, on_malformed.units()),
        })
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

    fn decoded(name: &str, bytes: &[u8], on_malformed: OnMalformed) -> Result<String, usize> {
        let mut text = String::new();
        Charset::for_name(name).expect("a charset").decode(bytes, on_malformed, &mut text).map(|()| text)
    }

    #[test]
    fn malformed_bytes_fail_or_are_replaced_or_left_out() {
        for (name, bytes) in [("UTF-8", &b"a\xffb\xe2\x82"[..]), ("US-ASCII", b"a\xffb\xff"), ("EUC-KR", b"a\xffb\xb0")]
        {
            assert_eq!(decoded(name, bytes, OnMalformed::Fail), Err(1), "{name}");
            assert_eq!(decoded(name, bytes, OnMalformed::Replace), Ok("a\u{fffd}b\u{fffd}".to_owned()), "{name}");
            assert_eq!(decoded(name, bytes, OnMalformed::Ignore), Ok("ab".to_owned()), "{name}");
        }
        assert_eq!(decoded("ISO-8859-1", b"\xe9", OnMalformed::Fail), Ok("é".to_owned()));
    }

    #[test]
    fn a_prefix_is_counted_in_javas_characters_and_cuts_none_in_two() {
        let prefix = |name: &str, bytes: &[u8], units, on_malformed| {
            Charset::for_name(name).expect("a charset").prefix(bytes, units, on_malformed)
        };
        let text = "aé😀z".as_bytes();
        let expected = [(1, Some(1)), (2, Some(3)), (3, Some(3)), (4, Some(7)), (5, Some(8)), (6, None)];
        for (units, bytes) in expected {
            assert_eq!(prefix("UTF-8", text, units, OnMalformed::Fail), bytes, "{units}");
        }
        assert_eq!(prefix("UTF-8", "😀".as_bytes(), 1, OnMalformed::Fail), Some(4));
        assert_eq!(prefix("UTF-8", b"\xff\xffab", 2, OnMalformed::Replace), Some(2));
        assert_eq!(prefix("UTF-8", b"\xff\xffab", 2, OnMalformed::Ignore), Some(4));
        assert_eq!(prefix("GBK", b"\xc4\xe3a\xc4\xe3", 2, OnMalformed::Fail), Some(3));
        assert_eq!(prefix("GB18030", b"\x94\x39\xda\x33a", 2, OnMalformed::Fail), Some(4));
        assert_eq!(prefix("windows-1252", b"\x80\x80", 2, OnMalformed::Fail), Some(2));
        assert_eq!(prefix("ISO-8859-1", b"\xe9\xe9", 3, OnMalformed::Fail), None);
    }
}
