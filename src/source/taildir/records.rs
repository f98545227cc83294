//! Where events begin and end in the bytes of a file.

use crate::java_regex::JavaRegex;

/// How bytes become events: lines, or lines that belong together.
pub struct Records<'a> {
    /// What a line holds that begins an event; without it every line is one.
    pub start: Option<&'a JavaRegex>,
    /// Longer events are cut.
    pub most_bytes: usize,
}

impl Records<'_> {
    /// How many bytes at the front are whole lines.
    pub fn whole_lines(&self, data: &[u8]) -> usize {
        memchr::memrchr(b'\n', data).map_or(0, |at| at + 1)
    }

    /// How many bytes at the front are whole events. An event is whole when the next one begins, and cut where it is
    /// too long.
    pub fn whole(&self, data: &[u8]) -> usize {
        let lines = self.whole_lines(data);
        let whole = match self.start {
            None => lines,
            Some(start) => {
                let mut end = lines;
                loop {
                    let Some(before) = end.checked_sub(1) else { break 0 };
                    let front = memchr::memrchr(b'\n', &data[..before]).map_or(0, |at| at + 1);
                    if front == 0 || is_start(start, &data[front..before]) {
                        break front;
                    }
                    end = front;
                }
            }
        };
        if whole == 0 && data.len() >= self.most_bytes { self.most_bytes } else { whole }
    }

    /// Calls `event` with the start and end of the first `limit` events (some more where an event has to be cut) of
    /// bytes that are whole. Returns how many bytes they are, line ends included.
    pub fn split(&self, data: &[u8], limit: usize, mut event: impl FnMut(usize, usize)) -> usize {
        let mut events = 0;
        let mut start = 0;
        let mut push = |mut start: usize, end: usize, events: &mut usize| {
            while end - start > self.most_bytes {
                event(start, start + self.most_bytes);
                start += self.most_bytes;
                *events += 1;
            }
            event(start, end);
            *events += 1;
        };
        match self.start {
            None => {
                for end in memchr::memchr_iter(b'\n', data) {
                    push(start, without_cr(data, start, end), &mut events);
                    start = end + 1;
                    if events >= limit {
                        return start;
                    }
                }
            }
            Some(pattern) => {
                let mut line = 0;
                for end in memchr::memchr_iter(b'\n', data) {
                    if line > start && is_start(pattern, &data[line..end]) {
                        push(start, without_cr(data, start, line - 1), &mut events);
                        start = line;
                        if events >= limit {
                            return start;
                        }
                    }
                    line = end + 1;
                }
            }
        }
        if start < data.len() {
            let end = if data.ends_with(b"\n") { without_cr(data, start, data.len() - 1) } else { data.len() };
            push(start, end, &mut events);
        }
        data.len()
    }
}

fn is_start(pattern: &JavaRegex, line: &[u8]) -> bool {
    pattern.is_found_in(&String::from_utf8_lossy(line))
}

/// The end of a line without the carriage return before it.
fn without_cr(data: &[u8], start: usize, end: usize) -> usize {
    if end > start && data[end - 1] == b'\r' { end - 1 } else { end }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(records: &Records<'_>, data: &[u8], limit: usize) -> Vec<String> {
        let mut found = Vec::new();
        let mut rest = 0;
        while rest < data.len() {
            let text = &data[rest..];
            let used = records.split(text, limit, |start, end| {
                found.push(String::from_utf8_lossy(&text[start..end]).into_owned());
            });
            assert!(used > 0);
            rest += used;
        }
        found
    }

    #[test]
    fn lines_lose_one_carriage_return() {
        let records = Records { start: None, most_bytes: 100 };
        assert_eq!(records.whole(b"a\r\n\nb\r\r\ntail"), 8);
        assert_eq!(events(&records, b"a\r\n\nb\r\r\n\r\n", 2), ["a", "", "b\r", ""]);
        assert_eq!(events(&records, b"a\nunended\r", 2), ["a", "unended\r"]);
    }

    #[test]
    fn long_lines_are_cut() {
        let records = Records { start: None, most_bytes: 4 };
        assert_eq!(records.whole(b"abc"), 0);
        assert_eq!(records.whole(b"abcdef"), 4);
        assert_eq!(events(&records, b"abcdefghij\nk\n", 9), ["abcd", "efgh", "ij", "k"]);
    }

    #[test]
    fn lines_that_belong_together() {
        let start = JavaRegex::new(r"^\d").expect("a pattern");
        let records = Records { start: Some(&start), most_bytes: 100 };
        let data = b"tail of one\n1 a\n  at x\r\n  at y\r\n2 b\n3 c\nat z\nunen";
        let whole = records.whole(data);
        assert_eq!(&data[whole..], b"3 c\nat z\nunen");
        let expected = ["tail of one", "1 a\n  at x\r\n  at y", "2 b"];
        assert_eq!(events(&records, &data[..whole], 9), expected);
        assert_eq!(events(&records, &data[..whole], 1), expected);
        assert_eq!(records.whole(b"1 a\n  at x\n"), 0);
        assert_eq!(events(&records, b"1 a\n  at x\n", 9), ["1 a\n  at x"]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_it_is_limited(data in "[1a\n]{1,60}", limit in 1usize..5, most in 1usize..20) {
            let start = JavaRegex::new("^1").expect("a pattern");
            for start in [None, Some(&start)] {
                let records = Records { start, most_bytes: most };
                let mut data = data.clone();
                data.push('\n');
                let found = events(&records, data.as_bytes(), limit);
                prop_assert_eq!(&found, &events(&records, data.as_bytes(), usize::MAX));
                let joined: usize = found.iter().map(String::len).sum();
                prop_assert!(found.iter().all(|event| event.len() <= most));
                prop_assert!(joined + data.matches('\n').count() >= data.len());
            }
        }
    }
}
