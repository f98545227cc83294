//! The letters of Java's `SimpleDateFormat` that configurations use, for `${date:…}`.

use jiff::Zoned;

/// Longer runs of a letter are padded to this width.
const MAX_WIDTH: usize = 100;

/// The present moment in a Java pattern; `None` when the pattern has letters that are not known here.
pub fn now(pattern: &str) -> Option<String> {
    format(&Zoned::now(), pattern)
}

fn format(time: &Zoned, pattern: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\'' {
            if chars.peek() == Some(&'\'') {
                chars.next();
                out.push('\'');
                continue;
            }
            for quoted in chars.by_ref().take_while(|c| *c != '\'') {
                out.push(quoted);
            }
            continue;
        }
        if !c.is_ascii_alphabetic() {
            out.push(c);
            continue;
        }
        let mut width = 1;
        while chars.next_if_eq(&c).is_some() {
            width = (width + 1).min(MAX_WIDTH);
        }
        let number = |n: i64| format!("{n:0width$}");
        let strftime = |spec: &str| time.strftime(spec).to_string();
        out.push_str(&match (c, width) {
            ('y', 2) => strftime("%y"),
            ('y' | 'u', _) => number(time.year().into()),
            ('M', 1 | 2) => number(time.month().into()),
            ('M', 3) => strftime("%b"),
            ('M', _) => strftime("%B"),
            ('d', _) => number(time.day().into()),
            ('D', _) => number(time.day_of_year().into()),
            ('E', 1..=3) => strftime("%a"),
            ('E', _) => strftime("%A"),
            ('H', _) => number(time.hour().into()),
            ('k', _) => number(if time.hour() == 0 { 24 } else { time.hour().into() }),
            ('K', _) => number((time.hour() % 12).into()),
            ('h', _) => number(((time.hour() + 11) % 12 + 1).into()),
            ('m', _) => number(time.minute().into()),
            ('s', _) => number(time.second().into()),
            ('S', _) => number(time.millisecond().into()),
            ('a', _) => strftime("%p"),
            ('z', _) => strftime("%Z"),
            ('Z', _) => strftime("%z"),
            ('X', 3) => strftime("%:z"),
            _ => return None,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_configurations() {
        let time: Zoned = "2024-01-31T13:05:09.012+00:00[UTC]".parse().expect("a time");
        let text = |pattern| format(&time, pattern);
        assert_eq!(text("yyyy-MM-dd HH:mm:ss,SSS").as_deref(), Some("2024-01-31 13:05:09,012"));
        assert_eq!(text("yyMMdd'T'hh''a").as_deref(), Some("240131T01'PM"));
        assert_eq!(text("EEE MMM d").as_deref(), Some("Wed Jan 31"));
        assert_eq!(text("QQ"), None);
    }
}
