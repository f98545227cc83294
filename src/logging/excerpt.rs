//! What a peer says, as it may stand in a line of the log.

use std::fmt::{self, Display, Formatter, Write};

/// The most characters of a peer's text.
const MAX_CHARS: usize = 512;

/// Shows a text whose length and characters somebody else has chosen: cut, and with characters that could make it look
/// like several lines, or change the terminal, spelt out.
#[derive(Clone, Copy, Debug)]
pub struct Excerpt<T>(pub T);

impl<T: Display> Display for Excerpt<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut rest = Rest { out: f, chars: MAX_CHARS, cut: false };
        match write!(rest, "{}", self.0) {
            Err(fmt::Error) if rest.cut => f.write_str("…"),
            written => written,
        }
    }
}

struct Rest<'a, 'b> {
    out: &'a mut Formatter<'b>,
    /// So many more may come.
    chars: usize,
    cut: bool,
}

impl Write for Rest<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let Some(chars) = self.chars.checked_sub(1) else {
                self.cut = true;
                return Err(fmt::Error);
            };
            self.chars = chars;
            match c {
                '"' | '\'' | '\\' => self.out.write_char(c)?,
                c => write!(self.out, "{}", c.escape_debug())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_line_of_bounded_length() {
        assert_eq!(Excerpt("it's \"Zürich\\\"").to_string(), "it's \"Zürich\\\"");
        assert_eq!(Excerpt("x\n2026 [ERROR] forged\r\u{1b}[2J").to_string(), "x\\n2026 [ERROR] forged\\r\\u{1b}[2J");
        let exact = "x".repeat(MAX_CHARS);
        assert_eq!(Excerpt(&exact).to_string(), exact);
        assert_eq!(Excerpt(format_args!("{exact}{exact}")).to_string(), format!("{exact}…"));
    }
}
