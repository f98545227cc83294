//! Java properties with the place of every entry.
//!
//! Flume 1.10 and later read files as ISO-8859-1, earlier ones as the platform's charset, which is nearly always
//! UTF-8. A file that is valid UTF-8 is read as UTF-8 here, anything else as ISO-8859-1.

use std::sync::Arc;

use java_properties::{LineContent, PropertiesIter};

use super::finding::{Finding, Origin};

/// One entry of a properties file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// The key without surrounding blanks.
    pub key: String,
    /// The value without surrounding blanks.
    pub value: String,
    /// Where it stands.
    pub origin: Origin,
}

/// Reads all entries in their order. What cannot be read is left out and noted.
pub fn parse(file: &str, text: &[u8], findings: &mut Vec<Finding>) -> Vec<Property> {
    let file: Arc<str> = file.into();
    let origin = |line| Origin { file: Arc::clone(&file), line };
    let decoded = match std::str::from_utf8(text) {
        Ok(utf8) => {
            if let Some(line) = utf8.lines().position(|line| !line.is_ascii()) {
                let note = Finding::note(
                    "the file has characters outside ASCII and is read as UTF-8; Flume 1.10 and later would read it as ISO-8859-1",
                );
                findings.push(Finding { origin: Some(origin(line + 1)), ..note });
            }
            utf8.strip_prefix('\u{feff}').unwrap_or(utf8).to_owned()
        }
        Err(_) => text.iter().map(|byte| char::from(*byte)).collect(),
    };
    let decoded = join_surrogates(&decoded);
    let mut properties = Vec::new();
    for line in PropertiesIter::new_with_encoding(decoded.as_bytes(), encoding_rs::UTF_8) {
        match line {
            Ok(line) => {
                let number = line.line_number();
                if let LineContent::KVPair(key, value) = line.consume_content() {
                    // Java's trim takes off everything up to the blank.
                    let trim = |text: &str| text.trim_matches(|c| c <= ' ').to_owned();
                    properties.push(Property { key: trim(&key), value: trim(&value), origin: origin(number) });
                }
            }
            Err(error) => {
                let help = "write a backslash as \\\\ and other characters as \\u and four hexadecimal digits";
                let finding = Finding::error(format!("the line cannot be read and is left out: {}", plain(&error)))
                    .help(help)
                    .as_flume("Malformed \\uxxxx encoding.");
                findings.push(Finding { origin: error.line_number().map(origin), ..finding });
            }
        }
    }
    properties
}

/// The library's text without the line number, which the finding has anyway.
fn plain(error: &java_properties::PropertiesError) -> String {
    let text = error.to_string();
    text.split(" (line_number").next().unwrap_or_default().trim_end_matches('.').to_lowercase()
}

/// Java writes a character beyond U+FFFF as two escapes; the parser wants characters.
fn join_surrogates(text: &str) -> String {
    let unit = |at: usize| -> Option<u32> {
        let escape = text.get(at..at + 6)?;
        u32::from_str_radix(escape.strip_prefix("\\u")?, 16).ok()
    };
    let mut joined = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if c == '\\' {
            if let (Some(high @ 0xD800..=0xDBFF), Some(low @ 0xDC00..=0xDFFF)) = (unit(at), unit(at + 6)) {
                let code = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                joined.extend(char::from_u32(code));
                at += 12;
                continue;
            }
            // Whatever is escaped goes along, so that "\\u" is not taken for an escape.
            let escaped = text[at + 1..].chars().next();
            joined.push(c);
            joined.extend(escaped);
            at += 1 + escaped.map_or(0, char::len_utf8);
            continue;
        }
        joined.push(c);
        at += c.len_utf8();
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(text: &[u8]) -> Vec<(String, String, usize)> {
        let mut findings = Vec::new();
        let properties = parse("f", text, &mut findings);
        assert!(findings.iter().all(|f| f.severity != super::super::Severity::Error), "{findings:?}");
        properties.into_iter().map(|p| (p.key, p.value, p.origin.line)).collect()
    }

    #[test]
    fn java_rules() {
        let text = b"# comment\n! too\na1.x = one \\\n    two\n\nkey:value\nkey2 value 2  \nreg = \\\\d\\q\\t|\\u00e9\nc = 100 # x\n";
        let expected = [
            ("a1.x", "one two", 3),
            ("key", "value", 6),
            ("key2", "value 2", 7),
            ("reg", "\\dq\t|é", 8),
            ("c", "100 # x", 9),
        ];
        assert_eq!(values(text), expected.map(|(k, v, l)| (k.to_owned(), v.to_owned(), l)));
    }

    #[test]
    fn both_charsets() {
        assert_eq!(values("k = é".as_bytes())[0].1, "é");
        assert_eq!(values(b"k = \xe9")[0].1, "é");
        assert_eq!(values(b"k = \\ud83d\\ude00 \\\\u0041")[0].1, "😀 \\u0041");
    }

    #[test]
    fn a_malformed_line_is_named_and_the_rest_is_read() {
        let mut findings = Vec::new();
        let properties = parse("f", b"a = 1\nb = \\u00zz\nc = 3\n", &mut findings);
        assert_eq!(properties.iter().map(|p| p.key.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].origin.as_ref().map(|o| o.line), Some(2));
    }

    proptest! {
        #[test]
        fn no_input_panics(text in prop::collection::vec(any::<u8>(), 0..400)) {
            parse("f", &text, &mut Vec::new());
        }

        #[test]
        fn no_text_panics(text in "[a-z=: \\\\u0-9\n\r\t!#é]{0,200}") {
            parse("f", text.as_bytes(), &mut Vec::new());
        }
    }
}
