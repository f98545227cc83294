//! The deserializer LINE: each line becomes one event.
//!
//! A line ends at a line feed and keeps a carriage return before it. One of more than `maxLineLength` characters (Java's,
//! of which some signs are two) is cut, and the rest of it becomes further events; no sign is cut in two. Events are
//! ranges of what was read, unless they have to be decoded and encoded again.
//!
//! Keys: `deserializer.maxLineLength` (2048), `deserializer.outputCharset` (UTF-8).

use std::io;

use tracing::warn;

use super::{Deserializer, DeserializerBuilder, DeserializerConfig, Input, Portion, malformed};
use crate::charset::Charset;
use crate::config::{ComponentType, Props};
use crate::event::{Batch, Headers};
use crate::logging::Limited;
use crate::source::pieces::{READ_BYTES, read_at, share};

/// How the type is registered.
pub const TYPE: ComponentType<DeserializerBuilder> = ComponentType {
    aliases: &["LINE"],
    class: "org.apache.flume.serialization.LineDeserializer$Builder",
    build: |props| Box::new(LineConfig::from_props(props)),
};

const MAX_LINE_LENGTH: i32 = 2048;
/// A longer limit counts as this one: a batch's buffer has less than 4 GiB.
const MOST_CHARACTERS: i32 = 256 << 20;
/// A character at the end of a piece may lack so many bytes.
const LONGEST_CHARACTER: usize = 4;

struct LineConfig {
    max_line_length: usize,
    output: Charset,
}

impl LineConfig {
    fn from_props(props: &mut Props<'_>) -> Self {
        let key = "deserializer.maxLineLength";
        let mut max_line_length = props.or(key, MAX_LINE_LENGTH);
        if max_line_length < 1 {
            props.warning(key, "expected a number of characters, at least 1; 1 is used");
        }
        // From before there were deserializers.
        if let Some(old) = props.optional("bufferMaxLineLength") {
            props.warning("bufferMaxLineLength", &format!("deprecated, and used in place of {key}"));
            max_line_length = old;
        }
        let key = "deserializer.outputCharset";
        let output = Charset::for_name(props.text(key).unwrap_or("UTF-8"));
        if output.is_none() {
            props.error(key, "a charset in which a line feed is one byte, such as UTF-8 or ISO-8859-1", "");
        }
        let max_line_length = max_line_length.clamp(1, MOST_CHARACTERS) as usize;
        Self { max_line_length, output: output.unwrap_or(Charset::Utf8) }
    }
}

impl DeserializerConfig for LineConfig {
    fn open(&self, input: Input) -> io::Result<Box<dyn Deserializer>> {
        let Self { max_line_length, output } = *self;
        Ok(Box::new(Lines { input, max_line_length, output, cuts: Limited::default() }))
    }
}

struct Lines {
    input: Input,
    max_line_length: usize,
    output: Charset,
    /// For warnings of lines that are cut.
    cuts: Limited,
}

impl Deserializer for Lines {
    fn read(&mut self, headers: &Headers) -> io::Result<Vec<Portion>> {
        let (piece, whole) = self.piece()?;
        let text = share(piece, whole);
        let text = text.slice(..whole);
        let plain = self.is_plain(&text);
        let mut portions = Vec::new();
        let mut at = 0;
        let mut failed = None;
        while at < whole && failed.is_none() {
            let mut batch = Batch::with_capacity(self.input.batch_size.min(whole - at));
            let shared = batch.push_buffer(text.clone());
            let headers = batch.push_headers(headers.clone());
            while at < whole && batch.len() < self.input.batch_size {
                let (end, next) = self.event(&text, at);
                if plain || self.is_plain(&text[at..end]) {
                    batch.push_span(shared, at, end, headers);
                } else {
                    match self.convert(&text[at..end]) {
                        Ok(body) => {
                            let len = body.len();
                            let converted = batch.push_buffer(body.into());
                            batch.push_span(converted, 0, len, headers);
                        }
                        Err(place) => {
                            failed = Some(self.input.at + (at + place) as u64);
                            break;
                        }
                    }
                }
                at = next;
            }
            if !batch.is_empty() {
                portions.push((batch, self.input.at + at as u64));
            }
        }
        match (failed, portions.last()) {
            // What comes before it is delivered first.
            (Some(place), None) => Err(malformed(format!(
                "the bytes at offset {place} are no text in the inputCharset, and decodeErrorPolicy is FAIL"
            ))),
            (_, last) => {
                self.input.at = last.map_or(self.input.at, |(_, end)| *end);
                Ok(portions)
            }
        }
    }
}

impl Lines {
    /// Reads on, and says how many bytes are whole events.
    fn piece(&self) -> io::Result<(Vec<u8>, usize)> {
        let Input { file, len, at, .. } = &self.input;
        let left = len.saturating_sub(*at);
        let mut size = READ_BYTES;
        loop {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(size);
            let piece = read_at(file, *at, want)?;
            // A file that is shorter than it was ends here, which is found out when it is done.
            let at_end = piece.len() as u64 == left || piece.len() < want;
            let whole = if at_end {
                piece.len()
            } else {
                memchr::memrchr(b'\n', &piece).map_or_else(|| self.cuts_of(&piece), |at| at + 1)
            };
            if whole > 0 || at_end {
                return Ok((piece, whole));
            }
            size = size.saturating_mul(4);
        }
    }

    /// How many bytes are events that are cut off a line without an end.
    fn cuts_of(&self, line: &[u8]) -> usize {
        let mut at = 0;
        while let Some(cut) = self.cut(&line[at..])
            && at + cut + LONGEST_CHARACTER <= line.len()
        {
            at += cut;
        }
        at
    }

    /// Where the line is cut if it is too long.
    fn cut(&self, line: &[u8]) -> Option<usize> {
        self.input.charset.prefix(line, self.max_line_length, self.input.on_malformed)
    }

    /// Where the event at `at` ends, and where the next one begins.
    fn event(&self, text: &[u8], at: usize) -> (usize, usize) {
        let rest = &text[at..];
        // Further away an end does not matter, but behind bytes that are left out.
        let window = rest.len().min(self.max_line_length.saturating_mul(LONGEST_CHARACTER) + 1);
        let end = memchr::memchr(b'\n', &rest[..window]);
        if end.is_none_or(|end| end >= self.max_line_length)
            && let Some(cut) = self.cut(&rest[..end.unwrap_or(window)])
        {
            if let Some(others) = self.cuts.permit() {
                warn!("Line length exceeds max ({}), truncating line!{others}", self.max_line_length);
            }
            return (at + cut, at + cut);
        }
        match end.or_else(|| Some(window + memchr::memchr(b'\n', &rest[window..])?)) {
            Some(end) => (at + end, at + end + 1),
            None => (text.len(), text.len()),
        }
    }

    /// Whether text has the same bytes in both charsets, and no others.
    fn is_plain(&self, text: &[u8]) -> bool {
        match (self.input.charset, self.output) {
            (Charset::Utf8, Charset::Utf8) => std::str::from_utf8(text).is_ok(),
            (Charset::Latin1, Charset::Latin1) => true,
            _ => text.is_ascii(),
        }
    }

    /// Decodes and encodes; the error is the place of a byte that is no text.
    fn convert(&self, bytes: &[u8]) -> Result<Vec<u8>, usize> {
        let mut text = String::with_capacity(bytes.len());
        self.input.charset.decode(bytes, self.input.on_malformed, &mut text)?;
        Ok(self.output.encode(&text))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{input, read_all};
    use super::*;
    use crate::charset::OnMalformed;

    fn open(input: Input, max_line_length: usize, output: Charset) -> Box<dyn Deserializer> {
        LineConfig { max_line_length, output }.open(input).expect("it can be opened")
    }

    fn lines(bytes: &[u8], max_line_length: usize) -> Vec<String> {
        let (portions, error) = read_all(open(input(bytes, 0, 3), max_line_length, Charset::Utf8));
        assert_eq!(error, None);
        let bodies = portions.into_iter().flat_map(|(bodies, _)| bodies);
        bodies.map(|body| String::from_utf8(body).expect("text")).collect()
    }

    #[test]
    fn lines_end_at_line_feeds_and_keep_what_is_before() {
        assert_eq!(lines(b"a\r\n\nb\rc\nlast", 2048), ["a\r", "", "b\rc", "last"]);
        assert_eq!(lines("\u{feff}a\n".as_bytes(), 2048), ["\u{feff}a"]);
        assert!(lines(b"", 2048).is_empty());
    }

    #[test]
    fn long_lines_are_cut_as_flume_cuts_them() {
        // The line feed counts, and one that comes just too late is an empty line.
        assert_eq!(lines(b"abc\nabcd\nabcdefgh\ni", 4), ["abc", "abcd", "", "abcd", "efgh", "", "i"]);
        assert_eq!(lines("éééé\n".as_bytes(), 4), ["éééé", ""]);
        assert_eq!(lines("ééé\n".as_bytes(), 4), ["ééé"]);
        assert_eq!(lines("a😀b😀c\n".as_bytes(), 2), ["a", "😀", "b", "😀", "c"]);
        assert_eq!(lines(b"ab\n", 1), ["a", "b", ""]);
    }

    #[test]
    fn a_line_may_be_longer_than_a_read() {
        let long = "é".repeat(READ_BYTES);
        assert_eq!(lines(format!("{long}\n{long}").as_bytes(), MOST_CHARACTERS as usize), [&*long, &*long]);
        let cut = lines(format!("{long}z").as_bytes(), 1000);
        assert_eq!((cut.len(), cut.concat()), (READ_BYTES / 1000 + 1, format!("{long}z")));
    }

    #[test]
    fn every_batch_says_where_to_go_on() {
        let text = b"1\n2\n3\n4\n5";
        let (portions, _) = read_all(open(input(text, 0, 2), 9, Charset::Utf8));
        assert_eq!(portions.iter().map(|(_, end)| *end).collect::<Vec<_>>(), [4, 8, 9]);
        for (number, (_, end)) in portions.iter().enumerate() {
            let (rest, _) = read_all(open(input(text, *end, 2), 9, Charset::Utf8));
            assert_eq!(rest, portions[number + 1..]);
        }
    }

    #[test]
    fn malformed_bytes_end_it_or_are_replaced_or_left_out() {
        let bytes = b"good\nb\xffd\ngood again\n";
        let with = |on_malformed| read_all(open(Input { on_malformed, ..input(bytes, 0, 10) }, 9, Charset::Utf8));
        let (portions, error) = with(OnMalformed::Fail);
        assert_eq!(portions, [(vec![b"good".to_vec()], 5)]);
        assert!(error.expect("an error").starts_with("the bytes at offset 6 are no text"));
        let (portions, _) = with(OnMalformed::Replace);
        assert_eq!(portions[0].0[1], "b\u{fffd}d".as_bytes());
        let (portions, _) = with(OnMalformed::Ignore);
        assert_eq!(portions[0].0, [&b"good"[..], b"bd", b"good agai", b"n"]);
    }

    #[test]
    fn charsets_are_decoded_and_encoded() {
        let latin1 = Input { charset: Charset::Latin1, ..input(b"plain\ncaf\xe9\n", 0, 10) };
        let (portions, _) = read_all(open(latin1, 9, Charset::Utf8));
        assert_eq!(portions, [(vec![b"plain".to_vec(), "café".as_bytes().to_vec()], 11)]);
        let (portions, _) = read_all(open(input("é€\n".as_bytes(), 0, 10), 9, Charset::Latin1));
        assert_eq!(portions, [(vec![b"\xe9?".to_vec()], 6)]);
    }

    /// What Flume does, character by character.
    fn flumes(text: &str, max: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let (mut line, mut seen) = (String::new(), 0);
        for character in text.chars() {
            seen += 1;
            if character == '\n' {
                lines.push(std::mem::take(&mut line));
                seen = 0;
                continue;
            }
            line.push(character);
            if seen >= max {
                lines.push(std::mem::take(&mut line));
                seen = 0;
            }
        }
        if seen > 0 {
            lines.push(line);
        }
        lines
    }

    proptest! {
        #[test]
        fn lines_are_flumes(text in "[aé€\r\n]{0,60}", max in 1usize..12) {
            prop_assert_eq!(lines(text.as_bytes(), max), flumes(&text, max));
        }

        #[test]
        fn any_bytes_come_to_an_end(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..60),
                                    max in 1usize..12, ignore: bool) {
            let on_malformed = if ignore { OnMalformed::Ignore } else { OnMalformed::Replace };
            let (portions, error) = read_all(open(Input { on_malformed, ..input(&bytes, 0, 4) }, max, Charset::Utf8));
            prop_assert_eq!(error, None);
            prop_assert_eq!(portions.last().map_or(0, |(_, end)| *end), bytes.len() as u64);
        }
    }
}
