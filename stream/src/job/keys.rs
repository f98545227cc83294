//! Reading a job file so that every mistake has its line.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// A mistake in a job file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what was expected.
    pub message: String,
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.message)
    }
}

/// A file's text, which turns places in it into lines.
#[derive(Debug)]
pub struct Text {
    path: PathBuf,
    text: String,
}

impl Text {
    /// The text of a file.
    pub fn new(path: &Path, text: String) -> Self {
        Self { path: path.to_owned(), text }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// A mistake at a place.
    pub fn error(&self, place: &Range<usize>, message: impl Into<String>) -> JobError {
        let before = &self.text.as_bytes()[..place.start.min(self.text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        JobError { path: self.path.clone(), line, message: message.into() }
    }

    /// Where the value of a key stands: of `["table", "counts", "sql"]`.
    pub fn place(&self, path: &[&str]) -> Option<Range<usize>> {
        let (key, tables) = path.split_last()?;
        let mut table = DeTable::parse(&self.text).ok()?.into_inner();
        for name in tables {
            let DeValue::Table(inner) = table.remove(*name)?.into_inner() else { return None };
            table = inner;
        }
        Some(table.remove(*key)?.span())
    }

    /// A mistake in the value of a key, in this line of its text, from 1, if that is known; without such a key, at
    /// another place.
    pub fn error_in(
        &self,
        path: &[&str],
        line: Option<usize>,
        otherwise: &Range<usize>,
        message: impl Into<String>,
    ) -> JobError {
        let Some(place) = self.place(path) else { return self.error(otherwise, message) };
        let (written, mut error) = (self.text.get(place.clone()).unwrap_or_default(), self.error(&place, message));
        let quotes = ["\"\"\"", "'''"];
        if let (Some(line), Some(text)) = (line, quotes.iter().find_map(|quotes| written.strip_prefix(quotes))) {
            // A line that ends with the quotes is no part of the text.
            let first = usize::from(text.starts_with(['\r', '\n']));
            error.line += (line.saturating_sub(1) + first).min(text.matches('\n').count());
        }
        error
    }

    fn toml_error(&self, of: &str, around: &Range<usize>, error: &toml::de::Error) -> JobError {
        let place = error.span().unwrap_or_else(|| around.clone());
        let message = suggest(error.message());
        let message = NUMBERS.iter().fold(message, |message, (rust, said)| message.replace(rust, said));
        let of = if of.is_empty() { String::new() } else { format!("[{of}] ") };
        self.error(&place, format!("{of}{message}"))
    }
}

/// What serde expects, and what people call that.
const NUMBERS: &[(&str, &str)] = &[
    ("expected usize", "expected a whole number"),
    ("expected a nonzero usize", "expected a whole number greater than 0"),
    ("expected a nonzero u32", "expected a whole number greater than 0"),
    ("expected a nonzero u16", "expected a whole number greater than 0"),
];

/// Adds what may have been meant to serde's message on an unknown word.
fn suggest(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let Some((wrong, known)) = quoted.split_first().filter(|_| message.starts_with("unknown ")) else {
        return message.to_owned();
    };
    format!("{message}{}", did_you_mean(wrong, known.iter().copied()))
}

/// What to add to a message on an unknown word: the known one that is most like it, or nothing.
pub fn did_you_mean<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wrong, known).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

/// The known word that is most like this one, if one is.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let score = |word: &str| {
        let is_slip = word.len() > 2 && strsim::osa_distance(wrong, word) == 1;
        strsim::jaro_winkler(wrong, word) + f64::from(u8::from(is_slip))
    };
    let (score, word) = known.into_iter().map(|word| (score(word), word)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (score > 0.75).then_some(word)
}

/// The keys of one table of the file, for example of `[source.logs]`.
#[derive(Debug)]
pub struct Keys<'t> {
    text: &'t Text,
    /// Its name in the file: `source.logs`.
    of: String,
    /// The last part of that.
    name: String,
    place: Range<usize>,
    table: DeTable<'t>,
}

impl<'t> Keys<'t> {
    /// The keys of the whole file.
    pub fn of_file(text: &'t Text) -> Result<Self, JobError> {
        let table = DeTable::parse(text.as_str()).map_err(|error| text.toml_error("", &(0..0), &error))?;
        Ok(Self { text, of: String::new(), name: String::new(), place: table.span(), table: table.into_inner() })
    }

    /// The file that it stands in.
    pub fn text(&self) -> &'t Text {
        self.text
    }

    /// What the table is called: `source.logs`.
    pub fn of(&self) -> &str {
        &self.of
    }

    /// The last part of that: `logs`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes a key out and reads it.
    pub fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, JobError> {
        let Some(value) = self.table.remove(key) else { return Ok(None) };
        let place = value.span();
        let read = T::deserialize(ValueDeserializer::from(value));
        read.map(Some).map_err(|error| {
            let mut error = self.text.toml_error(&self.of, &place, &error);
            error.message = format!("{} in `{key}`", error.message);
            error
        })
    }

    /// Takes out a key that must be there.
    pub fn need<T: DeserializeOwned>(&mut self, key: &str, what: &str) -> Result<T, JobError> {
        let found = self.take(key)?;
        found.ok_or_else(|| self.error(format!("`{key}` is missing: {what}")))
    }

    /// Reads all keys that are left. The type should deny unknown fields.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, JobError> {
        let value = Spanned::new(self.place.clone(), DeValue::Table(self.table));
        let read = T::deserialize(ValueDeserializer::from(value));
        read.map_err(|error| self.text.toml_error(&self.of, &self.place, &error))
    }

    /// The same, and what they mean together; what is wrong with that concerns the table as a whole.
    pub fn read_as<T: DeserializeOwned, U>(self, mean: impl FnOnce(T) -> Result<U, String>) -> Result<U, JobError> {
        let (text, of, place) = (self.text, self.of.clone(), self.place.clone());
        mean(self.read()?).map_err(|why| text.error(&place, format!("[{of}] {why}")))
    }

    /// The tables in one of its tables, in the order of the file: of `source` every `[source.NAME]`.
    pub fn tables(&mut self, key: &str) -> Result<Vec<Keys<'t>>, JobError> {
        let Some(value) = self.table.remove(key) else { return Ok(Vec::new()) };
        let place = value.span();
        let expected = || self.text.error(&place, format!("`{key}` must be tables: [{key}.NAME]"));
        let DeValue::Table(tables) = value.into_inner() else { return Err(expected()) };
        let mut found = Vec::new();
        for (name, value) in tables {
            let place = name.span();
            let DeValue::Table(table) = value.into_inner() else { return Err(expected()) };
            let name = name.get_ref().to_string();
            found.push(Keys { text: self.text, of: format!("{key}.{name}"), name, place, table });
        }
        found.sort_by_key(|keys| keys.place.start);
        Ok(found)
    }

    /// A mistake that concerns the table as a whole.
    pub fn error(&self, message: impl fmt::Display) -> JobError {
        let of = if self.of.is_empty() { String::new() } else { format!("[{}] ", self.of) };
        self.text.error(&self.place, format!("{of}{message}"))
    }

    /// A mistake in the value of a key, which may have been taken out.
    pub fn error_at(&self, key: &str, message: impl fmt::Display) -> JobError {
        let path = [self.of.split_once('.').map_or_else(Vec::new, |(tables, name)| vec![tables, name]), vec![key]];
        self.text.error_in(&path.concat(), None, &self.place, self.error(message).message)
    }

    /// Where the table stands.
    pub fn place(&self) -> Range<usize> {
        self.place.clone()
    }
}

/// A span of time as people write it: `10ms`, `5s`, `2h 30m`.
pub fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(D::Error::custom)
}

/// As [`duration`], for a key that may be missing; for use with `#[serde(default)]`.
pub fn optional_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// No span of time is longer, so that times can be added without care.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Reads a span of time that is longer than none.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected =
        || format!("`{text}` is no time span: expected a number and a unit, as in 10ms, 5s, 2m, 1h or 1h 30m");
    let span: jiff::SignedDuration = text.parse().map_err(|_| expected())?;
    let span = Duration::try_from(span).ok().filter(|span| *span >= Duration::from_millis(1)).ok_or_else(expected)?;
    if span > LONGEST { Err(format!("`{text}` is longer than a hundred years")) } else { Ok(span) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[expect(dead_code, reason = "only whether it can be read matters")]
        port: u16,
    }

    fn read(text: &str) -> Result<Example, JobError> {
        let text = Text::new(Path::new("a.toml"), text.to_owned());
        let mut all = Keys::of_file(&text)?;
        all.tables("source")?.remove(0).read()
    }

    #[test]
    fn mistakes_have_their_line_and_a_suggestion() {
        let error = read("[source.a]\nport = 1\n\nprot = 2\n").expect_err("it is unknown");
        assert_eq!(error.line, 4, "{error}");
        assert!(error.message.starts_with("[source.a] unknown field `prot`"), "{error}");
        assert!(error.message.ends_with("did you mean `port`?"), "{error}");
        assert_eq!(read("\n[source.a]\nport = \"x\"").expect_err("it is text").line, 3);
        assert_eq!(read("a = [").expect_err("it does not end").line, 1);
        assert!(read("[source.a]\nport = 1").is_ok());
    }

    #[test]
    fn a_mistake_in_a_text_has_the_line_that_it_is_in() {
        let text = "\n[view.a]\nsql = 'x'\n[view.b]\nsql = \"\"\"\nx\ny\"\"\"\n[view.c]\nsql = '''x\ny'''\n";
        let text = Text::new(Path::new("a.toml"), text.to_owned());
        let line = |name, line| text.error_in(&["view", name, "sql"], line, &(1..1), "").line;
        assert_eq!([line("a", None), line("a", Some(7)), line("d", Some(7))], [3, 3, 2]);
        assert_eq!([line("b", None), line("b", Some(1)), line("b", Some(2)), line("b", Some(7))], [5, 6, 7, 7]);
        assert_eq!([line("c", Some(1)), line("c", Some(2))], [9, 10]);
    }

    #[test]
    fn spans_of_time() {
        assert_eq!(parse_duration("10ms"), Ok(Duration::from_millis(10)));
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "5", "-1s", "0s", "soon", "1us", "2562047788015h"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
