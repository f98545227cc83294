//! Patterns of topics' names, in Java's syntax, as librdkafka takes them: POSIX's extended syntax with a `^` in front.
//!
//! What cannot be said there, or would mean something else, is an error. Characters that no name has are left out of
//! classes.

use std::iter::Peekable;
use std::str::Chars;

use crate::java_regex::JavaRegex;

const DIGITS: &str = "0-9";
const WORD: &str = "A-Za-z0-9_";

/// Translates a pattern, which stands for whole names. An error says what is wrong with it.
pub fn posix(pattern: &str) -> Result<String, String> {
    JavaRegex::new(pattern).map_err(|error| error.to_string())?;
    let mut out = String::from("^(");
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next().unwrap_or_default() {
                'd' => out.push_str(&format!("[{DIGITS}]")),
                'w' => out.push_str(&format!("[{WORD}]")),
                'D' => out.push_str(&format!("[^{DIGITS}]")),
                'W' => out.push_str(&format!("[^{WORD}]")),
                literal if !literal.is_ascii_alphanumeric() => out.extend(['\\', literal]),
                other => return Err(format!("\\{other} cannot be translated")),
            },
            '[' => class(&mut rest, &mut out)?,
            '(' if rest.next_if_eq(&'?').is_some() => match rest.next() {
                Some(':') => out.push('('),
                other => return Err(format!("(?{} cannot be translated", other.unwrap_or_default())),
            },
            '*' | '+' | '?' | '}' => {
                out.push(c);
                // For whole names it is the same how much each part takes at first.
                rest.next_if_eq(&'?');
                if rest.next_if_eq(&'+').is_some() {
                    return Err(format!("{c}+ cannot be translated"));
                }
            }
            c => out.push(c),
        }
    }
    out.push_str(")$");
    Ok(out)
}

/// Translates a class, of which the bracket has been read.
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let is_negated = rest.next_if_eq(&'^').is_some();
    let mut members = String::new();
    let mut has_hyphen = false;
    loop {
        let c = rest.next().unwrap_or_default();
        let literal = match c {
            ']' => break,
            '[' => return Err("a class within a class cannot be translated".to_owned()),
            '&' if rest.peek() == Some(&'&') => return Err("&& cannot be translated".to_owned()),
            '\\' => match rest.next().unwrap_or_default() {
                'd' => {
                    members.push_str(DIGITS);
                    continue;
                }
                'w' => {
                    members.push_str(WORD);
                    continue;
                }
                literal if !literal.is_ascii_alphanumeric() => literal,
                other => return Err(format!("\\{other} in a class cannot be translated")),
            },
            c => c,
        };
        match literal {
            '-' => has_hyphen = true,
            first if is_range(rest) => {
                rest.next();
                let last = rest.next().unwrap_or_default();
                if !first.is_ascii_alphanumeric() || !last.is_ascii_alphanumeric() {
                    return Err(format!("the range {first}-{last} cannot be translated"));
                }
                members.extend([first, '-', last]);
            }
            one if one.is_ascii_alphanumeric() || "._".contains(one) => members.push(one),
            _ => {}
        }
    }
    if has_hyphen {
        members.push('-');
    }
    match (members.is_empty(), is_negated) {
        (true, true) => out.push('.'),
        (true, false) => return Err("it has a class of characters that no topic's name has".to_owned()),
        (false, true) => out.push_str(&format!("[^{members}]")),
        (false, false) => out.push_str(&format!("[{members}]")),
    }
    Ok(())
}

/// Whether a hyphen comes, and then the end of a range.
fn is_range(rest: &Peekable<Chars<'_>>) -> bool {
    let mut ahead = rest.clone();
    ahead.next() == Some('-') && ahead.next().is_some_and(|last| last != ']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_whole_names() {
        for (java, expected) in [
            ("logs-\\d+", "^(logs-[0-9]+)$"),
            ("(?:a|b).*", "^((a|b).*)$"),
            ("a\\.b\\-c", "^(a\\.b\\-c)$"),
            ("[\\w.-]+?x{1,2}", "^([A-Za-z0-9_.-]+x{1,2})$"),
            ("[^-a-f\\d]\\W", "^([^a-f0-9-][^A-Za-z0-9_])$"),
            ("[^ /]", "^(.)$"),
            ("^web$", "^(^web$)$"),
        ] {
            assert_eq!(posix(java), Ok(expected.to_owned()), "{java}");
        }
    }

    #[test]
    fn what_would_mean_something_else_is_refused() {
        for java in ["(?!a).*", "(?i)a", "\\bweb", "(a)\\1", "a*+", "[a-z&&[^b]]", "[ ]", "[!-~]", "a(", "\\p{L}"] {
            assert!(posix(java).is_err(), "{java}: {:?}", posix(java));
        }
    }
}
