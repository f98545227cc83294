//! Lines in a stream of bytes.

/// What ends a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminator {
    /// A line feed; a carriage return before it stays in the line.
    Lf,
    /// A line feed, a carriage return, or both, as Java's `readLine` has it.
    Any,
}

/// Finds the lines in a stream that arrives in pieces.
#[derive(Clone, Debug)]
pub struct LineSplitter {
    terminator: Terminator,
    /// The last piece ended with a carriage return, so that a line feed at the front of the next belongs to it.
    after_cr: bool,
}

impl LineSplitter {
    /// A splitter at the start of a stream.
    pub fn new(terminator: Terminator) -> Self {
        Self { terminator, after_cr: false }
    }

    /// How many bytes of `data` are whole lines, terminators included.
    pub fn whole(&self, data: &[u8]) -> usize {
        let last = match self.terminator {
            Terminator::Lf => memchr::memrchr(b'\n', data),
            Terminator::Any => memchr::memrchr2(b'\n', b'\r', data),
        };
        last.map_or(0, |at| at + 1)
    }

    /// Calls `line` with the start and end of every line in `data`, which ends with a terminator.
    pub fn split(&mut self, data: &[u8], line: impl FnMut(usize, usize)) {
        self.split_some(data, usize::MAX, line);
    }

    /// The same for the first `limit` lines. Returns how many bytes they are, terminators included.
    pub fn split_some(&mut self, data: &[u8], limit: usize, mut line: impl FnMut(usize, usize)) -> usize {
        let mut start = 0;
        let mut lines = 0;
        match self.terminator {
            Terminator::Lf => {
                for end in memchr::memchr_iter(b'\n', data) {
                    line(start, end);
                    start = end + 1;
                    lines += 1;
                    if lines == limit {
                        break;
                    }
                }
            }
            Terminator::Any => {
                for end in memchr::memchr2_iter(b'\n', b'\r', data) {
                    let follows_cr = if end == 0 { self.after_cr } else { data[end - 1] == b'\r' };
                    if !(data[end] == b'\n' && follows_cr) {
                        line(start, end);
                        lines += 1;
                    }
                    start = end + 1;
                    if lines == limit {
                        break;
                    }
                }
                if let Some(last) = data[..start].last() {
                    self.after_cr = *last == b'\r';
                }
            }
        }
        start
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(terminator: Terminator, pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut splitter = LineSplitter::new(terminator);
        let mut lines = Vec::new();
        let mut pending = Vec::new();
        for piece in pieces {
            pending.extend_from_slice(piece);
            let whole = splitter.whole(&pending);
            let rest = pending.split_off(whole);
            splitter.split(&pending, |start, end| lines.push(pending[start..end].to_vec()));
            pending = rest;
        }
        if !pending.is_empty() {
            lines.push(pending);
        }
        lines
    }

    #[test]
    fn java_read_line() {
        assert_eq!(
            lines(Terminator::Any, &[b"a\rb\r\nc\n\nd"]),
            [b"a".to_vec(), b"b".into(), b"c".into(), b"".into(), b"d".into()]
        );
        // The pair is split by the end of a piece.
        assert_eq!(lines(Terminator::Any, &[b"a\r", b"\nb\n"]), [b"a".to_vec(), b"b".into()]);
        assert_eq!(lines(Terminator::Any, &[b"a\r", b"\rb\n"]), [b"a".to_vec(), b"".into(), b"b".into()]);
    }

    #[test]
    fn line_feed_only() {
        assert_eq!(lines(Terminator::Lf, &[b"a\r\nb\rc\n\n"]), [b"a\r".to_vec(), b"b\rc".into(), b"".into()]);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(data in "[ab\r\n]{0,40}", cut in 0usize..40) {
            let cut = cut.min(data.len());
            let (front, back) = data.as_bytes().split_at(cut);
            for terminator in [Terminator::Lf, Terminator::Any] {
                prop_assert_eq!(lines(terminator, &[front, back]), lines(terminator, &[data.as_bytes()]));
            }
        }
    }
}
