//! Flume's escapes in topics and paths: `%{header}`, `%[localhost]`, `%Y` and so on.

use std::borrow::Cow;
use std::fmt::Write as _;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::event::Headers;
use crate::java::parse_long;

/// The header that times come from, in milliseconds since 1970.
const TIMESTAMP: &str = "timestamp";

/// A text with escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The value of a header, or nothing.
    Header(String),
    /// `%` and a letter.
    Time(char),
}

impl Template {
    /// Reads a text. What does not change from event to event is put in now; an error names what cannot be.
    pub fn new(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            let (before, escape) = rest.split_at(at);
            literal.push_str(before);
            let after = &escape[1..];
            let named = |open: char, close: char, also: &[char]| {
                let inner = after.strip_prefix(open)?;
                let name = &inner[..inner.find(close)?];
                let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || also.contains(&c);
                (!name.is_empty() && name.chars().all(word)).then_some(name)
            };
            let part = if let Some(name) = named('{', '}', &['.', '-']) {
                rest = &after[name.len() + 2..];
                Some(Part::Header(name.to_owned()))
            } else if let Some(name) = named('[', ']', &[]) {
                rest = &after[name.len() + 2..];
                literal.push_str(&of_this_host(name)?);
                None
            } else if let Some(letter) = after.chars().next().filter(|c| c.is_ascii_alphanumeric() || "_%".contains(*c))
            {
                rest = &after[1..];
                Some(Part::Time(letter))
            } else {
                rest = after;
                literal.push('%');
                None
            };
            if let Some(part) = part {
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(part);
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() || parts.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self(parts))
    }

    /// What stands between the escapes.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Header(_) | Part::Time(_) => None,
        })
    }

    /// The text, if it is the same for all events.
    pub fn constant(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text for an event with these headers.
    pub fn expand<'a>(&'a self, headers: &Headers) -> Result<Cow<'a, str>, String> {
        if let Some(text) = self.constant() {
            return Ok(text.into());
        }
        let mut expanded = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => expanded.push_str(text),
                Part::Header(name) => expanded.push_str(headers.get(name).unwrap_or_default()),
                Part::Time(letter) => put_time(&mut expanded, *letter, headers)?,
            }
        }
        Ok(expanded.into())
    }
}

fn of_this_host(name: &str) -> Result<String, String> {
    let host = || dns_lookup::get_hostname().map_err(|error| format!("the name of this host is not known: {error}"));
    let address = |host: &str| -> Result<std::net::IpAddr, String> {
        let mut addresses = dns_lookup::lookup_host(host).map_err(|error| format!("{host}: {error}"))?;
        addresses.next().ok_or_else(|| format!("{host} has no address"))
    };
    match name.to_ascii_lowercase().as_str() {
        "localhost" => host(),
        "ip" => Ok(address(&host()?)?.to_string()),
        "fqdn" => {
            let host = host()?;
            Ok(address(&host).ok().and_then(|address| dns_lookup::lookup_addr(&address).ok()).unwrap_or(host))
        }
        _ => {
            Err(format!("The static escape string '{name}' was provided but does not match any of (localhost,IP,FQDN)"))
        }
    }
}

fn put_time(out: &mut String, letter: char, headers: &Headers) -> Result<(), String> {
    let text = headers.get(TIMESTAMP).ok_or("Expected timestamp in the Flume event headers, but it was null")?;
    let time = parse_long(text).and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let time = time.ok_or_else(|| {
        format!("Flume wasn't able to parse timestamp header in the event to resolve time based bucketing: {text:?}")
    })?;
    let format = match letter {
        'a' | 'A' | 'b' | 'B' | 'd' | 'H' | 'I' | 'j' | 'm' | 'M' | 'p' | 'S' | 'y' | 'Y' | 'z' | '%' => {
            &format!("%{letter}")
        }
        'c' => "%a %b %-d %H:%M:%S %Y",
        'D' => "%m/%d/%y",
        'e' => "%-d",
        'k' => "%-H",
        'l' => "%-I",
        'n' => "%-m",
        's' => "%s",
        't' => {
            out.push_str(text);
            return Ok(());
        }
        _ => return Ok(()),
    };
    let zoned: Zoned = time.to_zoned(TimeZone::system());
    // Writing to a string does not fail.
    write!(out, "{}", zoned.strftime(format)).ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expand(text: &str, headers: &[(&str, &str)]) -> Result<String, String> {
        Template::new(text)?.expand(&headers.iter().copied().collect()).map(Cow::into_owned)
    }

    #[test]
    fn headers_are_put_in_and_missing_ones_are_nothing() {
        assert_eq!(expand("logs-%{host.name}-%{none}.%", &[("host.name", "web1")]), Ok("logs-web1-.%".to_owned()));
        assert_eq!(expand("plain", &[]), Ok("plain".to_owned()));
        assert_eq!(expand("%{not a name}", &[("not a name", "x")]), Ok("%{not a name}".to_owned()));
        assert_eq!(expand("", &[]), Ok(String::new()));
    }

    #[test]
    fn times_come_from_the_header_and_are_local() {
        let noon: Timestamp = "2026-01-05T12:30:09Z".parse().expect("a time");
        let zoned = noon.to_zoned(TimeZone::system());
        let headers = [("timestamp", &*noon.as_millisecond().to_string())];
        assert_eq!(expand("%Y%m%d", &headers), Ok(zoned.strftime("%Y%m%d").to_string()));
        assert_eq!(expand("%M:%S %s %t", &headers), Ok(format!("30:09 {} {}", noon.as_second(), headers[0].1)));
        assert_eq!(expand("%e/%n %% %Q", &headers), Ok(zoned.strftime("%-d/%-m % ").to_string()));
    }

    #[test]
    fn without_a_time_every_letter_is_an_error() {
        let error = "Expected timestamp in the Flume event headers, but it was null".to_owned();
        assert_eq!(expand("%Y", &[]), Err(error.clone()));
        assert_eq!(expand("%%", &[]), Err(error));
        assert!(expand("%Y", &[("timestamp", "soon")]).is_err_and(|why| why.contains("soon")));
    }

    #[test]
    fn the_host_is_known_by_its_name() {
        assert_eq!(expand("%[LOCALHOST]", &[]), Ok(dns_lookup::get_hostname().expect("a name")));
        assert!(Template::new("%[planet]").is_err_and(|why| why.contains("'planet'")));
    }

    proptest! {
        #[test]
        fn any_text_expands_or_says_why(text in "[%{}\\[\\]a-zäß .]{0,20}", time in any::<i64>()) {
            expand(&text, &[("timestamp", &time.to_string())]).ok();
        }
    }
}
