//! Java's regular expressions, as Flume's configurations have them.
//!
//! A pattern is translated into one that means the same here, or refused with the place and the reason: it never
//! silently matches something else. What differs between the two and is translated: `\d`, `\w`, `\s` and case-blind
//! letters are ASCII in Java; `.` stops at five line terminators, not one; `$` also matches before a last one.
//! Refused are intersections and unions of classes, the flags `m`, `x`, `u`, `d` and `U`, `\G`, `\X`, `\N`, back
//! references beside the flag `i`, and the less usual `\p{…}`.

mod replacement;

use std::fmt;
use std::iter::Peekable;
use std::str::CharIndices;

use thiserror::Error;
use tracing::warn;

pub use replacement::{Replacement, Unfinished};

use crate::logging::Limited;

/// Why a pattern is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{what} (at character {at} of \"{pattern}\")")]
pub struct PatternError {
    what: String,
    at: usize,
    pattern: String,
}

/// A pattern.
#[derive(Debug)]
pub struct JavaRegex {
    pattern: String,
    whole: fancy_regex::Regex,
    part: fancy_regex::Regex,
    complaints: Limited,
}

impl JavaRegex {
    /// Reads a pattern.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        let translated = Translator::new(pattern).translate()?;
        let compile = |text: &str| {
            fancy_regex::Regex::new(text).map_err(|error| PatternError {
                what: format!("not a regular expression: {error}"),
                at: 0,
                pattern: pattern.to_owned(),
            })
        };
        Ok(Self {
            pattern: pattern.to_owned(),
            whole: compile(&format!(r"\A(?:{translated})\z"))?,
            part: compile(&translated)?,
            complaints: Limited::default(),
        })
    }

    /// Whether the whole text matches, as Java's `matches` has it. A search that is given up counts as no match.
    pub fn matches(&self, text: &str) -> bool {
        self.finished(self.whole.is_match(text), text).unwrap_or(false)
    }

    /// Whether some part of the text matches, as Java's `find` has it. A search that is given up counts as no match.
    pub fn is_found_in(&self, text: &str) -> bool {
        self.find_in(text).unwrap_or(false)
    }

    /// Whether some part of the text matches; nothing when the search would take for ever and is given up.
    pub fn find_in(&self, text: &str) -> Option<bool> {
        self.finished(self.part.is_match(text), text)
    }

    /// The groups of the first match that begins at `from` or later; nothing when the search is given up.
    pub fn search<'t>(&self, text: &'t str, from: usize) -> Option<Option<fancy_regex::Captures<'t, str>>> {
        self.finished(self.part.captures_from_pos(text, from), text)
    }

    /// The parts of a text between the matches, as Java's `split` has them: without empty ones at the end.
    pub fn split<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let mut parts = Vec::new();
        let mut begin = 0;
        for found in self.part.find_iter(text).map_while(|found| self.finished(found, text)) {
            // Nothing stands before a match of nothing at the very front.
            if found.end() > 0 {
                parts.push(&text[begin..found.start()]);
                begin = found.end();
            }
        }
        parts.push(&text[begin..]);
        while parts.len() > 1 && parts.last().is_some_and(|part| part.is_empty()) {
            parts.pop();
        }
        parts
    }

    /// How many groups the pattern has.
    pub fn groups(&self) -> usize {
        self.part.captures_len() - 1
    }

    /// The number of a group with a name.
    fn group_named(&self, name: &str) -> Option<usize> {
        self.part.capture_names().position(|known| known == Some(name))
    }

    /// A search that would take for ever is given up, and that is logged.
    fn finished<T>(&self, outcome: Result<T, fancy_regex::Error>, text: &str) -> Option<T> {
        outcome
            .inspect_err(|error| {
                if let Some(others) = self.complaints.permit() {
                    warn!(
                        "the regular expression {} was given up on a text of {} bytes: {error}{others}",
                        self.part,
                        text.len()
                    );
                }
            })
            .ok()
    }
}

/// As it was written.
impl fmt::Display for JavaRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pattern)
    }
}

/// What Java's `.` does not match, for a class.
const LINE_ENDS: &str = r"\n\r\x{85}\x{2028}\x{2029}";
/// Java's `$` and `\Z`: the end, or before a line terminator that is the last thing.
const END: &str = r"(?=\z|\r\n\z|(?<!\r)\n\z|[\r\x{85}\x{2028}\x{2029}]\z)";

const SPACES: &str = r"\x{20}\t\n\x{B}\x{C}\r";
const BLANKS: &str = r"\x{20}\t\x{A0}\x{1680}\x{180E}\x{2000}-\x{200A}\x{202F}\x{205F}\x{3000}";
const BREAKS: &str = r"\n\x{B}\x{C}\r\x{85}\x{2028}\x{2029}";

/// ASCII classes by their names in Java, as the inside of a class.
const POSIX: &[(&str, &str)] = &[
    ("Lower", "a-z"),
    ("Upper", "A-Z"),
    ("ASCII", r"\x{0}-\x{7F}"),
    ("Alpha", "a-zA-Z"),
    ("Digit", "0-9"),
    ("Alnum", "a-zA-Z0-9"),
    ("Punct", r"\x{21}-\x{2F}\x{3A}-\x{40}\x{5B}-\x{60}\x{7B}-\x{7E}"),
    ("Graph", r"\x{21}-\x{7E}"),
    ("Print", r"\x{20}-\x{7E}"),
    ("Blank", r"\x{20}\t"),
    ("Cntrl", r"\x{0}-\x{1F}\x{7F}"),
    ("XDigit", "0-9a-fA-F"),
    ("Space", SPACES),
];
/// General categories that both know under these names.
const CATEGORIES: &[&str] = &[
    "L", "Lu", "Ll", "Lt", "Lm", "Lo", "M", "Mn", "Mc", "Me", "N", "Nd", "Nl", "No", "P", "Pc", "Pd", "Ps", "Pe", "Pi",
    "Pf", "Po", "S", "Sm", "Sc", "Sk", "So", "Z", "Zs", "Zl", "Zp",
];

#[derive(Clone, Copy, Default)]
struct Flags {
    case_blind: bool,
    dot_all: bool,
}

/// What an escape stands for.
enum Escape {
    Char(char),
    /// The inside of a class, and whether it is the rest that is meant.
    Class(String, bool),
    /// A place between characters.
    Anchor(&'static str),
    /// Something longer: a back reference, any line end.
    Other(String),
}

struct Translator<'a> {
    pattern: &'a str,
    chars: Peekable<CharIndices<'a>>,
    out: String,
    flags: Flags,
    /// The flags outside of each open group.
    outer: Vec<Flags>,
    /// Whether there is something for a quantifier to repeat.
    repeatable: bool,
}

impl<'a> Translator<'a> {
    fn new(pattern: &'a str) -> Self {
        Self {
            pattern,
            chars: pattern.char_indices().peekable(),
            out: String::with_capacity(pattern.len() + 16),
            flags: Flags::default(),
            outer: Vec::new(),
            repeatable: false,
        }
    }

    fn translate(mut self) -> Result<String, PatternError> {
        while let Some((_, c)) = self.chars.next() {
            match c {
                '\\' => self.escape_outside()?,
                '[' => {
                    let class = self.class()?;
                    self.out.push_str(&class);
                    self.repeatable = true;
                }
                '(' => self.open()?,
                ')' => {
                    self.flags = self.outer.pop().ok_or_else(|| self.error("a ) without its ("))?;
                    self.out.push(')');
                    self.repeatable = true;
                }
                '|' => {
                    self.out.push('|');
                    self.repeatable = false;
                }
                '.' => {
                    self.out.push_str(&if self.flags.dot_all {
                        "(?s:.)".to_owned()
                    } else {
                        format!("[^{LINE_ENDS}]")
                    });
                    self.repeatable = true;
                }
                '^' => self.anchor(r"\A"),
                '$' => self.anchor(END),
                '?' | '*' | '+' | '{' => self.quantifier(c)?,
                other => self.literal(other),
            }
        }
        if !self.outer.is_empty() {
            return Err(self.error("a ( without its )"));
        }
        Ok(self.out)
    }

    fn error(&mut self, what: impl Into<String>) -> PatternError {
        let rest = self.chars.clone().count();
        let at = self.pattern.chars().count() - rest;
        PatternError { what: what.into(), at, pattern: self.pattern.to_owned() }
    }

    fn refuse<T>(&mut self, what: impl Into<String>) -> Result<T, PatternError> {
        Err(self.error(what))
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, c)| *c)
    }

    fn eat(&mut self, expected: char) -> bool {
        self.chars.next_if(|(_, c)| *c == expected).is_some()
    }

    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some((_, c)) = self.chars.next_if(|(_, c)| fits(*c)) {
            taken.push(c);
        }
        taken
    }

    fn rest(&mut self) -> &'a str {
        let at = self.chars.peek().map_or(self.pattern.len(), |(at, _)| *at);
        &self.pattern[at..]
    }

    fn anchor(&mut self, text: &str) {
        self.out.push_str(text);
        self.repeatable = false;
    }

    fn literal(&mut self, c: char) {
        if self.flags.case_blind && c.is_ascii_alphabetic() {
            self.out.extend(['[', c.to_ascii_lowercase(), c.to_ascii_uppercase(), ']']);
        } else {
            push_char(&mut self.out, c);
        }
        self.repeatable = true;
    }

    fn quantifier(&mut self, c: char) -> Result<(), PatternError> {
        if !self.repeatable {
            return self.refuse(format!("nothing for {c} to repeat"));
        }
        self.out.push(c);
        if c == '{' {
            let counts = self.take_while(|c| c.is_ascii_digit() || c == ',');
            let right = counts.starts_with(|c: char| c.is_ascii_digit()) && counts.matches(',').count() <= 1;
            if !right || !self.eat('}') {
                return self.refuse("expected {n}, {n,} or {n,m}");
            }
            self.out.push_str(&counts);
            self.out.push('}');
        }
        if self.eat('?') {
            self.out.push('?');
        } else if self.eat('+') {
            self.out.push('+');
        }
        self.repeatable = false;
        Ok(())
    }

    fn open(&mut self) -> Result<(), PatternError> {
        self.repeatable = false;
        let outer = self.flags;
        if !self.eat('?') {
            self.out.push('(');
            self.outer.push(outer);
            return Ok(());
        }
        let known = ["<=", "<!", ":", "=", "!", ">"];
        let rest = self.rest();
        if let Some(kind) = known.into_iter().find(|kind| rest.starts_with(kind)) {
            for _ in kind.chars() {
                self.chars.next();
            }
            self.out.push_str("(?");
            self.out.push_str(kind);
            self.outer.push(outer);
            return Ok(());
        }
        if self.eat('<') {
            let name = self.take_while(|c| c.is_ascii_alphanumeric());
            if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !self.eat('>') {
                return self.refuse("expected the name of a group: a letter, then letters and digits, then >");
            }
            self.out.push_str(&format!("(?P<{name}>"));
            self.outer.push(outer);
            return Ok(());
        }
        let mut on = true;
        loop {
            match self.chars.next().map(|(_, c)| c) {
                Some('-') => on = false,
                Some('i') => self.flags.case_blind = on,
                Some('s') => self.flags.dot_all = on,
                Some(':') => {
                    self.out.push_str("(?:");
                    self.outer.push(outer);
                    return Ok(());
                }
                // The flags hold up to the end of the group around it.
                Some(')') => return Ok(()),
                Some(other) => return self.refuse(format!("the construct (?{other} is not supported")),
                None => return self.refuse("a ( without its )"),
            }
        }
    }

    fn escape_outside(&mut self) -> Result<(), PatternError> {
        if self.eat('Q') {
            let quoted = self.quoted();
            quoted.chars().for_each(|c| self.literal(c));
            return Ok(());
        }
        if self.eat('E') {
            return Ok(());
        }
        match self.escape(false)? {
            Escape::Char(c) => self.literal(c),
            Escape::Class(inside, rest) => {
                let not = if rest { "^" } else { "" };
                self.out.push_str(&format!("[{not}{inside}]"));
                self.repeatable = true;
            }
            Escape::Anchor(text) => self.anchor(text),
            Escape::Other(text) => {
                self.out.push_str(&text);
                self.repeatable = true;
            }
        }
        Ok(())
    }

    /// What stands up to `\E`, or up to the end.
    fn quoted(&mut self) -> &'a str {
        let rest = self.rest();
        let (quoted, skip) = match rest.find(r"\E") {
            Some(at) => (&rest[..at], rest[..at].chars().count() + 2),
            None => (rest, rest.chars().count()),
        };
        for _ in 0..skip {
            self.chars.next();
        }
        quoted
    }

    fn hex(&mut self, digits: usize) -> Result<char, PatternError> {
        let mut text = String::new();
        for _ in 0..digits {
            text.extend(self.chars.next_if(|(_, c)| c.is_ascii_hexdigit()).map(|(_, c)| c));
        }
        if text.len() == digits {
            self.code(&text, 16)
        } else {
            self.refuse(format!("expected {digits} hexadecimal digits"))
        }
    }

    fn code(&mut self, digits: &str, radix: u32) -> Result<char, PatternError> {
        match u32::from_str_radix(digits, radix).ok().and_then(char::from_u32) {
            Some(c) => Ok(c),
            None => self.refuse(format!("{digits} is not the number of a character")),
        }
    }

    fn escape(&mut self, in_class: bool) -> Result<Escape, PatternError> {
        let Some((_, c)) = self.chars.next() else { return self.refuse("nothing after the last backslash") };
        Ok(match c {
            't' => Escape::Char('\t'),
            'n' => Escape::Char('\n'),
            'r' => Escape::Char('\r'),
            'f' => Escape::Char('\x0c'),
            'a' => Escape::Char('\x07'),
            'e' => Escape::Char('\x1b'),
            'x' if self.eat('{') => {
                let digits = self.take_while(|c| c.is_ascii_hexdigit());
                if !self.eat('}') {
                    return self.refuse("expected }");
                }
                Escape::Char(self.code(&digits, 16)?)
            }
            'x' => Escape::Char(self.hex(2)?),
            'u' => Escape::Char(self.hex(4)?),
            'c' => match self.chars.next() {
                Some((_, c)) if c.is_ascii() => Escape::Char(char::from(c as u8 ^ 64)),
                _ => return self.refuse(r"expected an ASCII character after \c"),
            },
            '0' => {
                let mut digits = String::new();
                while digits.len() < 3 && !(digits.len() == 2 && digits.as_bytes()[0] > b'3') {
                    let Some((_, digit)) = self.chars.next_if(|(_, c)| ('0'..='7').contains(c)) else { break };
                    digits.push(digit);
                }
                if digits.is_empty() {
                    return self.refuse(r"expected octal digits after \0");
                }
                Escape::Char(self.code(&digits, 8)?)
            }
            'd' | 'D' => Escape::Class("0-9".to_owned(), c == 'D'),
            'w' | 'W' => Escape::Class("a-zA-Z0-9_".to_owned(), c == 'W'),
            's' | 'S' => Escape::Class(SPACES.to_owned(), c == 'S'),
            'h' | 'H' => Escape::Class(BLANKS.to_owned(), c == 'H'),
            'v' | 'V' => Escape::Class(BREAKS.to_owned(), c == 'V'),
            'p' | 'P' => {
                let (inside, not) = self.property()?;
                Escape::Class(inside, not != (c == 'P'))
            }
            _ if in_class && (c.is_ascii_alphanumeric()) => {
                return self.refuse(format!(r"\{c} is not supported in a class"));
            }
            'b' => Escape::Anchor(r"\b"),
            'B' => Escape::Anchor(r"\B"),
            'A' => Escape::Anchor(r"\A"),
            'z' => Escape::Anchor(r"\z"),
            'Z' => Escape::Anchor(END),
            'R' => Escape::Other(r"(?:\r\n|[\n\x{B}\x{C}\r\x{85}\x{2028}\x{2029}])".to_owned()),
            'k' | '1'..='9' if self.flags.case_blind => {
                return self.refuse("a back reference beside the flag i is not supported");
            }
            'k' => {
                let name = if self.eat('<') { self.take_while(|c| c.is_ascii_alphanumeric()) } else { String::new() };
                if name.is_empty() || !self.eat('>') {
                    return self.refuse(r"expected \k<name>");
                }
                Escape::Other(format!(r"\k<{name}>"))
            }
            '1'..='9' if self.peek().is_some_and(|c| c.is_ascii_digit()) => {
                return self.refuse("a back reference with a digit after it is not supported");
            }
            '1'..='9' => Escape::Other(format!(r"\{c}")),
            _ if c.is_ascii_alphabetic() => return self.refuse(format!(r"\{c} is not supported")),
            _ => Escape::Char(c),
        })
    }

    /// The inside of a class for what follows `\p`, and whether it is the rest that is meant.
    fn property(&mut self) -> Result<(String, bool), PatternError> {
        let name = if self.eat('{') {
            let name = self.take_while(|c| c != '}');
            self.chars.next();
            name
        } else {
            self.chars.next().map(|(_, c)| c.to_string()).unwrap_or_default()
        };
        if self.flags.case_blind {
            return self.refuse(r"\p beside the flag i is not supported");
        }
        if let Some((_, inside)) = POSIX.iter().find(|(posix, _)| *posix == name) {
            return Ok(((*inside).to_owned(), false));
        }
        let category = name.strip_prefix("Is").unwrap_or(&name);
        if CATEGORIES.contains(&category) {
            return Ok((format!(r"\p{{{category}}}"), false));
        }
        self.refuse(format!(r"\p{{{name}}} is not supported"))
    }

    /// A class whose `[` has been read.
    fn class(&mut self) -> Result<String, PatternError> {
        let mut class = String::from(if self.eat('^') { "[^" } else { "[" });
        let front = class.len();
        loop {
            let Some((_, c)) = self.chars.next() else { return self.refuse("a [ without its ]") };
            let first = match c {
                ']' if class.len() > front => break,
                ']' => return self.refuse("an empty class, or a ] that is not escaped"),
                '[' => return self.refuse("classes inside of classes are not supported; escape the ["),
                '&' if self.peek() == Some('&') => return self.refuse("&& in a class is not supported"),
                '\\' if self.eat('Q') => {
                    for c in self.quoted().chars() {
                        self.push_range(&mut class, c, c);
                    }
                    continue;
                }
                '\\' => match self.escape(true)? {
                    Escape::Char(c) => c,
                    Escape::Class(inside, false) => {
                        class.push_str(&inside);
                        continue;
                    }
                    Escape::Class(inside, true) => {
                        class.push_str(&format!("[^{inside}]"));
                        continue;
                    }
                    Escape::Anchor(_) | Escape::Other(_) => {
                        return self.refuse("this escape is not supported in a class");
                    }
                },
                other => other,
            };
            let rest = self.rest();
            if !rest.starts_with('-') || rest.starts_with("-]") {
                self.push_range(&mut class, first, first);
                continue;
            }
            self.chars.next();
            let last = match self.chars.next().map(|(_, c)| c) {
                Some('\\') => match self.escape(true)? {
                    Escape::Char(c) => c,
                    _ => return self.refuse("a range of a class has to end with a character"),
                },
                Some('[') | None => return self.refuse("a range of a class has to end with a character"),
                Some(c) => c,
            };
            if last < first {
                return self.refuse(format!("the range {first}-{last} of a class is upside down"));
            }
            self.push_range(&mut class, first, last);
        }
        class.push(']');
        Ok(class)
    }

    /// Adds a range to a class, in the flag's sense of ASCII letters in both cases.
    fn push_range(&self, class: &mut String, first: char, last: char) {
        let mut push = |first: u32, last: u32| {
            if first <= last {
                class.push_str(&format!(r"\x{{{first:X}}}-\x{{{last:X}}}"));
            }
        };
        let (first, last) = (u32::from(first), u32::from(last));
        push(first, last);
        if self.flags.case_blind {
            let both = |from: u32, to: u32| (first.max(from), last.min(to));
            let (a, z) = both(u32::from('a'), u32::from('z'));
            push(a.saturating_sub(32), z.saturating_sub(32));
            let (a, z) = both(u32::from('A'), u32::from('Z'));
            push(a + 32, z + 32);
        }
    }
}

/// Adds a character that stands for itself.
fn push_char(out: &mut String, c: char) {
    if c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii() {
        out.push(c);
    } else {
        out.push_str(&format!(r"\x{{{:X}}}", u32::from(c)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        JavaRegex::new(pattern).expect(pattern).matches(text)
    }

    fn finds(pattern: &str, text: &str) -> bool {
        JavaRegex::new(pattern).expect(pattern).is_found_in(text)
    }

    #[test]
    fn flumes_own_patterns() {
        assert!(matches("^.*$", "any.log"));
        assert!(matches("^$", ""));
        assert!(!matches("^$", "any.log"));
        assert!(matches(r".*\.log(\.\d+)?", "app.log.12"));
        assert!(!matches(r".*\.log", "app.log.12"), "the whole name has to match");
        assert!(matches(r"(?i)app[-_][a-f]{2,3}\.LOG", "APP-aBc.log"));
        assert!(matches(r"\Qa.b\E.*", "a.b!"));
        assert!(!matches(r"\Qa.b\E.*", "axb!"));
        assert!(finds(r"^\d{4}-\d\d", "2030-01-02 x"));
        assert!(matches(r"(?!.*tmp)(?<name>\w+)", "abc"));
        assert!(!matches(r"(?!.*tmp)\w+", "atmp"));
        assert!(matches(r"(a+)b\1", "aabaa"));
        assert!(matches("a-b]}&&", "a-b]}&&"));
        assert!(matches(r"[a\-\]&~-]+", "a-]&~"));
        assert!(matches(r"[^\d\s]+", "ab"));
        assert!(matches(r"[\W]", "-"));
    }

    #[test]
    fn parts_between_matches() {
        let split = |pattern: &str, text: &'static str| JavaRegex::new(pattern).expect(pattern).split(text);
        assert_eq!(split(r"\s*,\s*", "a , b,c"), ["a", "b", "c"]);
        assert_eq!(split(",", ",a,,b,,"), ["", "a", "", "b"]);
        assert_eq!(split("", "abc"), ["a", "b", "c"]);
        assert_eq!(split("x", "abc"), ["abc"]);
    }

    #[test]
    fn what_means_something_else_here() {
        // Digits, word characters and spaces are ASCII in Java.
        assert!(!matches(r"\d", "٣"));
        assert!(!matches(r"\w", "é"));
        assert!(matches(r"\D\W", "٣é"));
        assert!(!matches(r"(?i)k", "\u{212a}"), "the Kelvin sign");
        // The five line terminators.
        for end in ["\n", "\r", "\u{85}", "\u{2028}", "\u{2029}"] {
            assert!(!matches("a.b", &format!("a{end}b")));
            assert!(finds("a$", &format!("a{end}")), "{end:?}");
            assert!(matches("(?s)a.b", &format!("a{end}b")));
        }
        assert!(finds("a$", "a\r\n") && !finds("a$", "a\n\n") && !finds(r"a\r$", "a\r\n"));
        assert!(matches("[A-z]", "_") && matches("(?i)[x-z]", "Y") && matches("(?i:[X-Z])b", "yb"));
        assert!(!matches("(?i:a)b", "aB"));
        assert!(matches(r"\x41\u00e9\x{1F600}\0101", "Aé😀A"));
    }

    #[test]
    fn what_cannot_be_the_same_is_refused() {
        for pattern in [
            "[a-z&&[^b]]",
            "[a[b]]",
            "(?m)^a",
            "(?x) a",
            "(?u)a",
            r"\G",
            r"\X",
            "*a",
            "a**",
            "(",
            "a)",
            "[",
            "[]a]",
            r"\p{IsGreek}",
            r"(?i)(a)\1",
            "a{",
            "a{,2}",
            "a{1",
            r"\",
            r"\y",
            r"\u12",
            "[z-a]",
            "(?<1>a)",
            r"\k<x",
            "^*",
        ] {
            let error = JavaRegex::new(pattern).expect_err(pattern);
            assert!(error.to_string().contains(pattern), "{error}");
        }
        assert_eq!(
            JavaRegex::new("ab[c&&d]").expect_err("an intersection").to_string(),
            r#"&& in a class is not supported (at character 5 of "ab[c&&d]")"#
        );
    }
}
