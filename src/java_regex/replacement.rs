//! Java's replacement texts, as `Matcher.replaceAll` takes them.
//!
//! `$1` and `${name}` stand for what a group matched, nothing when it did not take part; `\` takes the next character as
//! it is. Java finds out what is wrong with such a text at the first match, here it is known beforehand.

use super::{JavaRegex, PatternError};

/// A replacement for the matches of one pattern.
#[derive(Debug, PartialEq, Eq)]
pub struct Replacement(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
}

/// Why a text was not searched to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// The search took too long.
    Search,
    /// The result would be longer than it may.
    Length,
}

impl Replacement {
    /// Reads the text of a replacement.
    pub fn new(text: &str, regex: &JavaRegex) -> Result<Self, PatternError> {
        Reader { text, chars: text.char_indices().peekable(), parts: Vec::new() }.read(regex)
    }

    /// What it says for one match.
    fn expand(&self, captures: &fancy_regex::Captures<'_, str>, out: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Group(group) => {
                    out.extend_from_slice(captures.get(*group).map_or("", |found| found.as_str()).as_bytes());
                }
            }
        }
    }
}

impl JavaRegex {
    /// Appends the text with all matches replaced, and says whether there were any; if not, nothing is appended.
    ///
    /// A match may be empty and begin where the one before it ended, as in Java. On an error what has been appended is
    /// of no use.
    pub fn replace_all(
        &self,
        text: &str,
        replacement: &Replacement,
        out: &mut Vec<u8>,
        max_bytes: usize,
    ) -> Result<bool, Unfinished> {
        let start = out.len();
        // What has been copied, and where the next search begins.
        let (mut copied, mut from) = (0, 0);
        let mut any = false;
        while let Some(captures) = self.search(text, from).ok_or(Unfinished::Search)? {
            let Some(whole) = captures.get(0) else { break };
            any = true;
            out.extend_from_slice(&text.as_bytes()[copied..whole.start()]);
            replacement.expand(&captures, out);
            copied = whole.end();
            if out.len() - start > max_bytes {
                return Err(Unfinished::Length);
            }
            from = whole.end();
            if whole.start() == whole.end() {
                match text[from..].chars().next() {
                    Some(c) => from += c.len_utf8(),
                    None => break,
                }
            }
        }
        if any {
            out.extend_from_slice(&text.as_bytes()[copied..]);
        }
        Ok(any)
    }
}

struct Reader<'a> {
    text: &'a str,
    chars: std::iter::Peekable<std::str::CharIndices<'a>>,
    parts: Vec<Part>,
}

impl Reader<'_> {
    fn read(mut self, regex: &JavaRegex) -> Result<Replacement, PatternError> {
        while let Some((_, c)) = self.chars.next() {
            match c {
                '\\' => match self.chars.next() {
                    Some((_, c)) => self.push(c),
                    None => return Err(self.error("character to be escaped is missing")),
                },
                '$' => {
                    let group = self.group(regex)?;
                    self.parts.push(Part::Group(group));
                }
                c => self.push(c),
            }
        }
        Ok(Replacement(self.parts))
    }

    fn error(&mut self, what: impl Into<String>) -> PatternError {
        let at = self.text.chars().count() - self.chars.clone().count();
        PatternError { what: what.into(), at, pattern: self.text.to_owned() }
    }

    fn push(&mut self, c: char) {
        match self.parts.last_mut() {
            Some(Part::Text(text)) => text.push(c),
            _ => self.parts.push(Part::Text(c.to_string())),
        }
    }

    /// The group that follows a `$`.
    fn group(&mut self, regex: &JavaRegex) -> Result<usize, PatternError> {
        let digit = |c: char| c.to_digit(10).map(|digit| digit as usize);
        match self.chars.next() {
            None => Err(self.error("Illegal group reference: group index is missing")),
            Some((_, '{')) => {
                let mut name = String::new();
                while let Some((_, c)) = self.chars.next_if(|(_, c)| c.is_ascii_alphanumeric()) {
                    name.push(c);
                }
                if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
                    return Err(self.error("a group's name begins with a letter, and has letters and digits"));
                }
                if self.chars.next_if(|(_, c)| *c == '}').is_none() {
                    return Err(self.error("named capturing group is missing trailing '}'"));
                }
                regex.group_named(&name).ok_or_else(|| self.error(format!("No group with name {{{name}}}")))
            }
            Some((_, first)) => {
                let Some(mut group) = digit(first) else { return Err(self.error("Illegal group reference")) };
                if group > regex.groups() {
                    return Err(self.error(format!("No group {group}")));
                }
                // As many digits as still make the number of a group.
                while let Some((_, c)) = self.chars.peek()
                    && let Some(longer) = digit(*c).map(|next| group * 10 + next)
                    && longer <= regex.groups()
                {
                    group = longer;
                    self.chars.next();
                }
                Ok(group)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn replaced(pattern: &str, replacement: &str, text: &str) -> String {
        let regex = JavaRegex::new(pattern).expect(pattern);
        let replacement = Replacement::new(replacement, &regex).expect(replacement);
        let mut out = Vec::new();
        match regex.replace_all(text, &replacement, &mut out, 1 << 20).expect("an end") {
            true => String::from_utf8(out).expect("text"),
            false => text.to_owned(),
        }
    }

    #[test]
    fn groups_and_escapes() {
        let swap = "The hungry $2 ate the careless $1";
        let pattern = "The quick brown ([a-z]+) jumped over the lazy ([a-z]+)";
        let text = "The quick brown fox jumped over the lazy dog";
        assert_eq!(replaced(pattern, swap, text), "The hungry dog ate the careless fox");
        assert_eq!(replaced(r"(?<year>\d{4})-(\d\d)", "$2/${year}", "2030-01, 2031-02"), "01/2030, 02/2031");
        assert_eq!(replaced("b", r"\$1\\\x$0", "abc"), r"a$1\xbc");
        assert_eq!(replaced("(a)|b", "<$1>", "ab"), "<a><>");
        assert_eq!(replaced("(a)", "$12$0", "a"), "a2a", "there is no group 12");
        assert_eq!(replaced("^[A-Za-z0-9_]+", "", "word: rest"), ": rest");
    }

    #[test]
    fn empty_matches_as_in_java() {
        assert_eq!(replaced("x*", "-", "abc"), "-a-b-c-");
        assert_eq!(replaced("x*", "-", "xab"), "--a-b-", "one may begin where another has ended");
        assert_eq!(replaced("", "-", "é"), "-é-");
        assert_eq!(replaced("$", "!", "a\n"), "a!\n!");
        assert_eq!(replaced("^", ">", "aa"), ">aa");
        assert_eq!(replaced("(?<=a)b", "c", "abab"), "acac");
    }

    #[test]
    fn wrong_ones_are_refused() {
        let regex = JavaRegex::new("(a)").expect("a pattern");
        for (text, what) in [
            ("$2", "No group 2"),
            ("${b}", "No group with name {b}"),
            ("${b", "named capturing group is missing trailing '}'"),
            ("${1}", "a group's name begins with a letter"),
            ("$", "Illegal group reference: group index is missing"),
            ("$x", "Illegal group reference"),
            (r"a\", "character to be escaped is missing"),
        ] {
            let error = Replacement::new(text, &regex).expect_err(text).to_string();
            assert!(error.starts_with(what) && error.ends_with(&format!("of \"{text}\")")), "{error}");
        }
    }

    #[test]
    fn what_grows_too_long_or_takes_too_long_is_given_up() {
        let regex = JavaRegex::new("a").expect("a pattern");
        let long = Replacement::new(&"b".repeat(100), &regex).expect("a replacement");
        let outcome = regex.replace_all(&"a".repeat(1000), &long, &mut Vec::new(), 5000);
        assert_eq!(outcome, Err(Unfinished::Length));
        let endless = JavaRegex::new(r"^(?:(x+)\1?)+y").expect("a pattern");
        let text = "x".repeat(100) + "zy";
        let outcome = endless.replace_all(&text, &Replacement(Vec::new()), &mut Vec::new(), 5000);
        assert_eq!(outcome, Err(Unfinished::Search));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in r"[$\\{}a0-9é]{0,12}") {
            let regex = JavaRegex::new("(?<a>.)(.)").expect("a pattern");
            if let Ok(replacement) = Replacement::new(&text, &regex) {
                let mut out = Vec::new();
                regex.replace_all("some text", &replacement, &mut out, 1000).expect("an end");
                prop_assert!(std::str::from_utf8(&out).is_ok());
            }
        }

        #[test]
        fn every_match_for_itself_changes_nothing(text in r"[abéx\n]{0,20}") {
            for pattern in ["a*", "(a|é)+", "x", "$", r"\b", "(?s).", "a(?=b)"] {
                prop_assert_eq!(replaced(pattern, "$0", &text), text.clone());
            }
        }
    }
}
