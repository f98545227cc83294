//! The parts of a syslog message, in Flume's two dialects.

use std::ops::Range;

/// Whose rules a message is read by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Those of syslogtcp and syslogudp: the message matches the pattern of RFC 5424 or RFC 3164, or only its priority
    /// can be told.
    Pattern,
    /// Those of multiport_syslogtcp: fields between blanks.
    Fields,
}

/// What a message was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// None.
    Invalid,
    /// Something behind a priority; that is all that can be told.
    Priority(Range<usize>),
    /// A message with its parts.
    Whole(Parts),
}

/// Where the parts of a message lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The digits of the priority.
    pub priority: Range<usize>,
    /// The version.
    pub version: Option<Range<usize>>,
    /// The time stamp.
    pub stamp: Option<Range<usize>>,
    /// The host.
    pub host: Option<Range<usize>>,
    /// Where the body begins.
    pub body: usize,
}

impl Dialect {
    /// Finds the parts of a message, which has no line feed at its end.
    pub fn read(self, message: &[u8]) -> Shape {
        match self {
            Self::Pattern => {
                let Some(priority) = digits_in_brackets(message) else { return Shape::Invalid };
                match pattern(message, priority.clone()) {
                    Some(parts) if is_one_line(&message[parts.body..]) => Shape::Whole(parts),
                    _ => Shape::Priority(priority),
                }
            }
            Self::Fields => fields(message).map_or(Shape::Invalid, Shape::Whole),
        }
    }
}

/// Where the digits of `<ddd>` are, three at most.
fn digits_in_brackets(message: &[u8]) -> Option<Range<usize>> {
    let digits = message.strip_prefix(b"<")?.iter().take(4).take_while(|byte| byte.is_ascii_digit()).count();
    let end = 1 + digits;
    ((1..=3).contains(&digits) && message.get(end) == Some(&b'>')).then_some(1..end)
}

/// What follows the priority: a digit as the version if there is one, a stamp or `-`, a host or `-`. A `-` for the host
/// is for RFC 5424 only.
fn pattern(message: &[u8], priority: Range<usize>) -> Option<Parts> {
    let at = priority.end + 1;
    let versioned = message.get(at).is_some_and(u8::is_ascii_digit).then_some(at..at + 1);
    // A digit may also be the first of the stamp.
    [versioned, None].into_iter().find_map(|version| {
        let at = version.as_ref().map_or(at, |version| version.end);
        let at = at + usize::from(message.get(at).is_some_and(is_blank));
        let rest = &message[at..];
        let (stamp, nil_host) = match rest.first()? {
            b'-' => (None, true),
            b'0'..=b'9' => (Some(at..at + full_stamp(rest)?), true),
            _ => (Some(at..at + short_stamp(rest)?), false),
        };
        let at = stamp.as_ref().map_or(at + 1, |stamp| stamp.end);
        let rest = message[at..].split_first().filter(|(first, _)| is_blank(first))?.1;
        let at = at + 1;
        let (host, at) = match rest.first()? {
            b'-' if nil_host => (None, at + 1),
            first if is_word(first) => {
                let len = rest.iter().take_while(|byte| is_word(byte) || b".@-".contains(byte)).count();
                (Some(at..at + len), at + len)
            }
            _ => return None,
        };
        let is_whole = message.get(at).is_some_and(is_blank);
        is_whole.then(|| Parts { priority: priority.clone(), version, stamp, host, body: at + 1 })
    })
}

/// The length of `yyyy-MM-ddTHH:mm:ss` with a fraction of up to six digits and a zone, as far as they are there.
fn full_stamp(text: &[u8]) -> Option<usize> {
    let mut at = shaped(text, b"0000-00-00T00:00:00")?;
    if text.get(at) == Some(&b'.') {
        let digits = text[at + 1..].iter().take(6).take_while(|byte| byte.is_ascii_digit()).count();
        at += if digits > 0 { 1 + digits } else { 0 };
    }
    Some(match text.get(at) {
        Some(b'Z') => at + 1,
        Some(b'+' | b'-') => at + 1 + shaped(&text[at + 1..], b"00:00").unwrap_or_default(),
        _ => at,
    })
}

/// The length of `MMM d HH:mm:ss`, with one or two blanks and digits of the day.
fn short_stamp(text: &[u8]) -> Option<usize> {
    let name = [u8::is_ascii_uppercase, u8::is_ascii_lowercase, u8::is_ascii_lowercase];
    if !(text.len() > 3 && name.iter().zip(text).all(|(is, byte)| is(byte))) {
        return None;
    }
    let blanks = text[3..].iter().take(2).take_while(|byte| is_blank(byte)).count();
    let digits = text[3 + blanks..].iter().take(2).take_while(|byte| byte.is_ascii_digit()).count();
    let at = 3 + blanks + digits;
    let whole = blanks > 0 && digits > 0 && text.get(at).is_some_and(is_blank);
    whole.then(|| Some(at + 1 + shaped(&text[at + 1..], b"00:00:00")?)).flatten()
}

/// The length of `shape` when the text begins like it, where a `0` stands for any digit.
fn shaped(text: &[u8], shape: &[u8]) -> Option<usize> {
    let fits = |(byte, shape): (&u8, &u8)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape };
    (text.len() >= shape.len() && text.iter().zip(shape).all(fits)).then_some(shape.len())
}

/// What `\s` means in Java.
fn is_blank(byte: &u8) -> bool {
    matches!(*byte, b' ' | b'\t'..=b'\r')
}

/// What `\w` means in Java.
fn is_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_'
}

/// Whether a text has none of what Java takes for the end of a line, which Flume's patterns do not reach beyond:
/// U+000A, U+000D, U+0085, U+2028 and U+2029.
fn is_one_line(text: &[u8]) -> bool {
    memchr::memchr2(b'\n', b'\r', text).is_none()
        && memchr::memchr2_iter(0xC2, 0xE2, text)
            .all(|at| !matches!(text[at..], [0xC2, 0x85, ..] | [0xE2, 0x80, 0xA8 | 0xA9, ..]))
}

/// A priority of up to five characters in brackets, `1 ` if there is a version, a stamp and a host.
fn fields(message: &[u8]) -> Option<Parts> {
    message.strip_prefix(b"<")?;
    let end = memchr::memchr(b'>', &message[..message.len().min(7)])?;
    let priority = 1..end;
    priority_number(&message[priority.clone()])?;
    let mut at = end + 1;
    let version = message[at..].starts_with(b"1 ") && message.len() > at + 2;
    let version = version.then_some(at..at + 1);
    if version.is_some() {
        at += 2;
    }
    let (stamp, host) = match message.get(at)? {
        b'-' => (at..at + 1, at + characters(&message[at..], 2)?),
        b'A'..=b'Z' => {
            let len = characters(&message[at..], 15)?;
            (at..at + len, at + len + characters(&message[at + len..], 1)?)
        }
        _ => {
            let end = at + memchr::memchr(b' ', &message[at..])?;
            (at..end, end + 1)
        }
    };
    let end = host + memchr::memchr(b' ', &message[host..])?;
    Some(Parts { priority, version, stamp: Some(stamp), host: Some(host..end), body: end + 1 })
}

/// A priority as Java reads an integer.
pub fn priority_number(text: &[u8]) -> Option<i32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The bytes that this many characters of UTF-8 take; `None` when there are fewer.
fn characters(text: &[u8], count: usize) -> Option<usize> {
    let starts = (0..text.len()).filter(|at| !(0x80..0xC0).contains(&text[*at]));
    starts.chain([text.len()]).nth(count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The texts of the parts: priority, version, stamp, host, body.
    fn parts(dialect: Dialect, message: &str) -> Option<[&str; 5]> {
        let Shape::Whole(parts) = dialect.read(message.as_bytes()) else { return None };
        let text = |range: Option<Range<usize>>| range.map_or("", |range| &message[range]);
        Some([
            &message[parts.priority],
            text(parts.version),
            text(parts.stamp),
            text(parts.host),
            &message[parts.body..],
        ])
    }

    #[test]
    fn both_dialects_know_both_standards() {
        for (message, expected) in [
            ("<13>Nov 20 22:14:15 my_m-1.x su: root", ["13", "", "Nov 20 22:14:15", "my_m-1.x", "su: root"]),
            ("<13>Nov  1 22:14:15 m two", ["13", "", "Nov  1 22:14:15", "m", "two"]),
            (
                "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 x",
                ["165", "1", "2003-08-24T05:14:15.000003-07:00", "192.0.2.1", "x"],
            ),
            ("<165>2003-08-24T05:14:15.5Z h a", ["165", "", "2003-08-24T05:14:15.5Z", "h", "a"]),
            ("<013>Nov 20 22:14:15 m ", ["013", "", "Nov 20 22:14:15", "m", ""]),
        ] {
            for dialect in [Dialect::Pattern, Dialect::Fields] {
                assert_eq!(parts(dialect, message), Some(expected), "{dialect:?} {message}");
            }
        }
    }

    #[test]
    fn what_flumes_patterns_match() {
        let parts = |message| parts(Dialect::Pattern, message);
        assert_eq!(parts("<13>1 - - nil"), Some(["13", "1", "", "", "nil"]));
        assert_eq!(parts("<13>- h nil stamp"), Some(["13", "", "", "h", "nil stamp"]));
        assert_eq!(
            parts("<13>12003-08-24T05:14:15Z h no blank"),
            Some(["13", "1", "2003-08-24T05:14:15Z", "h", "no blank"])
        );
        assert_eq!(parts("<13>2Nov 20 22:14:15 m x"), Some(["13", "2", "Nov 20 22:14:15", "m", "x"]));
        for unmatched in [
            "<13>nothing to parse",
            "<13>",
            "<13>1",
            "<13>-",
            "<13>1  2003-08-24T05:14:15Z h two blanks",
            "<13>1 2003-08-24T05:14:15.1234567Z h seven digits",
            "<13>1 2003-08-24T05:14:15. h x",
            "<13>1 2003-08-24T05:14:15+0200 h x",
            "<13>Nov 20 22:14:15 m",
            "<13>Nov 20 22:14:15 - x",
            "<13>Nov 20 22:14:15 m x\r",
            "<13>Nov 20 22:14:15 m x\u{85}",
            "<13>Nov 20 22:14:15 m x\u{2028}",
            "<13>NOV 20 22:14:15 m x",
        ] {
            assert!(matches!(Dialect::Pattern.read(unmatched.as_bytes()), Shape::Priority(_)), "{unmatched:?}");
        }
        for invalid in ["", "x", "<", "<13", "<>x", "<abc>x", "<1234>x", "<-13>x"] {
            assert_eq!(Dialect::Pattern.read(invalid.as_bytes()), Shape::Invalid, "{invalid}");
        }
    }

    #[test]
    fn what_multiport_syslogtcp_takes() {
        let parts = |message| parts(Dialect::Fields, message);
        assert_eq!(parts("<13>1 - - nil"), Some(["13", "1", "-", "-", "nil"]));
        assert_eq!(parts("<-13>Nov 20 22:14:15 m x\r"), Some(["-13", "", "Nov 20 22:14:15", "m", "x\r"]));
        assert_eq!(parts("<13>Garbage text that is long"), Some(["13", "", "Garbage text th", "t", "is long"]));
        assert_eq!(parts("<13>Gärbage text that is long"), Some(["13", "", "Gärbage text th", "t", "is long"]));
        for invalid in ["", "<>x", "<1234567>x", "<13>", "<13>1 ", "<13>- ", "<13>Nov 20 22:14:15", "<13>x h"] {
            assert_eq!(parts(invalid), None, "{invalid:?}");
        }
    }

    proptest! {
        #[test]
        fn parts_lie_in_their_order_in_any_message(message in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            "<[0-9+-]{0,4}>[1 ]{0,2}(-|[A-Z][a-zä]{2} {1,2}[0-9]{1,2} [0-9:]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(\\.[0-9]{0,7})?(Z|\\+[0-9:]{5})?)[ -][a-z.-]{0,5} ?[a-z\r]{0,5}"
                .prop_map(String::into_bytes),
        ]) {
            for dialect in [Dialect::Pattern, Dialect::Fields] {
                if let Shape::Whole(parts) = dialect.read(&message) {
                    let mut at = 1;
                    for part in [Some(parts.priority), parts.version, parts.stamp, parts.host].into_iter().flatten() {
                        prop_assert!(at <= part.start && part.start <= part.end);
                        at = part.end;
                    }
                    prop_assert!(at < parts.body && parts.body <= message.len());
                }
            }
        }
    }
}
