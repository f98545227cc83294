//! What is wrong, or worth knowing, about a configuration.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// Where a property stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The file or URI as it was given.
    pub file: Arc<str>,
    /// The line on which the property begins, from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is lost or ignored.
    Note,
    /// Something is ignored or replaced by a default.
    Warning,
    /// Something does not run.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One finding: where, what stands there, what was expected, and what may have been meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where it stands.
    #[serde(flatten)]
    pub origin: Option<Origin>,
    /// The whole key.
    pub key: Option<String>,
    /// The value; passwords are masked.
    pub value: Option<String>,
    /// What is wrong and what was expected.
    pub message: String,
    /// What may have been meant, or what to do.
    pub help: Option<String>,
    /// What Flume logs in this case, to the letter.
    pub flume: Option<String>,
}

impl Finding {
    fn new(severity: Severity, message: impl Into<String>) -> Self {
        Self { severity, origin: None, key: None, value: None, message: message.into(), help: None, flume: None }
    }

    /// Something does not run.
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(Severity::Error, message)
    }

    /// Something is ignored or replaced by a default.
    pub fn warning(message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, message)
    }

    /// Worth knowing.
    pub fn note(message: impl Into<String>) -> Self {
        Self::new(Severity::Note, message)
    }

    /// Adds the property that it is about.
    #[must_use]
    pub fn at(self, key: impl Into<String>, value: &str, origin: &Origin) -> Self {
        let key = key.into();
        let value = if is_secret(&key) { "********".to_owned() } else { value.to_owned() };
        Self { value: Some(value), key: Some(key), origin: Some(origin.clone()), ..self }
    }

    /// Adds the key that it is about, and the place where the key should stand.
    #[must_use]
    pub fn missing(self, key: impl Into<String>, origin: Option<&Origin>) -> Self {
        Self { key: Some(key.into()), origin: origin.cloned(), ..self }
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Adds "did you mean", when one of the candidates is near.
    #[must_use]
    pub fn nearest<'a>(self, wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(wrong, candidates) {
            Some(near) => self.help(format!("did you mean \"{near}\"?")),
            None => self,
        }
    }

    /// Adds what Flume logs in this case.
    #[must_use]
    pub fn as_flume(self, text: impl Into<String>) -> Self {
        Self { flume: Some(text.into()), ..self }
    }

    /// The text on one line, for a log: Flume's words first, where it has some.
    pub fn log_line(&self) -> String {
        let mut text = match &self.flume {
            Some(flume) => format!("{flume} ({self})"),
            None => self.to_string(),
        };
        if let Some(help) = &self.help {
            text.push_str("; ");
            text.push_str(help);
        }
        text
    }
}

/// `FILE:LINE: SEVERITY: KEY = "VALUE": MESSAGE`, without what is not known.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        write!(f, "{}: ", self.severity)?;
        match (&self.key, &self.value) {
            (Some(key), Some(value)) => write!(f, "{key} = \"{}\": ", value.escape_debug())?,
            (Some(key), None) => write!(f, "{key}: ")?,
            _ => {}
        }
        f.write_str(&self.message)
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "passwd", "secret", "credential", "token"].iter().any(|word| key.contains(word))
}

/// The candidate that is most like `wrong`, when it is like enough to be a slip of the finger.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let fold = |text: &str| text.to_lowercase().replace(['-', '_', '.'], "");
    let wrong_folded = fold(wrong);
    candidates
        .into_iter()
        .filter(|candidate| *candidate != wrong)
        .map(|candidate| (strsim::damerau_levenshtein(&wrong_folded, &fold(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.chars().count().min(wrong.chars().count()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_what_and_what_was_expected() {
        let origin = Origin { file: "example.conf".into(), line: 5 };
        let finding = Finding::error("expected a port between 0 and 65535").at("a1.sources.r1.port", "4444x", &origin);
        assert_eq!(
            finding.to_string(),
            "example.conf:5: error: a1.sources.r1.port = \"4444x\": expected a port between 0 and 65535"
        );
    }

    #[test]
    fn passwords_are_masked() {
        let origin = Origin { file: "f".into(), line: 1 };
        let finding = Finding::warning("unknown key").at("a1.sources.r1.keystore-password", "hunter2", &origin);
        assert!(!finding.to_string().contains("hunter2"));
    }

    #[test]
    fn finds_slips_of_the_finger_only() {
        let keys = ["bind", "port", "max-line-length", "ack-every-event"];
        assert_eq!(nearest("prot", keys), Some("port"));
        assert_eq!(nearest("maxLineLength", keys), Some("max-line-length"));
        assert_eq!(nearest("Port", keys), Some("port"));
        assert_eq!(nearest("whatever", keys), None);
    }
}
