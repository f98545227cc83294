//! `keepFields`: which fields stay in the body of an event.

use super::message::Parts;
use crate::config::Props;

/// What of its head a body keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeepFields {
    /// Nothing.
    None,
    /// Everything: the body is the message as it came.
    All,
    /// Some fields, put before the body.
    Some(Fields),
}

/// Fields that a body keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    priority: bool,
    version: bool,
    timestamp: bool,
    hostname: bool,
}

impl KeepFields {
    /// Reads the key.
    pub fn from_props(props: &Props<'_>) -> Self {
        let text = props.or("keepFields", "none".to_owned());
        let keep = Self::read(&text);
        if keep == Self::Some(Fields::default()) {
            let message = "expected none, all, or some of priority, version, timestamp and hostname; nothing is kept";
            props.warning("keepFields", message);
        }
        keep
    }

    /// Flume's rule: a list has the fields whose names occur in it, however they are separated.
    pub fn read(text: &str) -> Self {
        let text = text.trim().to_lowercase();
        match text.as_str() {
            "none" | "false" => Self::None,
            "all" | "true" => Self::All,
            list => Self::Some(Fields {
                priority: list.contains("priority"),
                version: list.contains("version"),
                timestamp: list.contains("timestamp"),
                hostname: list.contains("hostname"),
            }),
        }
    }
}

impl Fields {
    /// Writes the fields of a message that are to be kept, and its body. A stamp or host that is missing is the word
    /// `null`, as in Flume.
    pub fn write(self, out: &mut Vec<u8>, message: &[u8], parts: &Parts) {
        if self.priority {
            out.push(b'<');
            out.extend_from_slice(&message[parts.priority.clone()]);
            out.push(b'>');
        }
        let mut field = |text: &[u8]| {
            out.extend_from_slice(text);
            out.push(b' ');
        };
        if let Some(version) = parts.version.clone().filter(|_| self.version) {
            field(&message[version]);
        }
        for (kept, part) in [(self.timestamp, &parts.stamp), (self.hostname, &parts.host)] {
            if kept {
                field(part.as_ref().map_or(b"null", |part| &message[part.clone()]));
            }
        }
        out.extend_from_slice(&message[parts.body..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::syslog::message::{Dialect, Shape};

    fn kept(keep: &str, message: &str) -> String {
        let KeepFields::Some(fields) = KeepFields::read(keep) else { panic!("{keep} is a list") };
        let Shape::Whole(parts) = Dialect::Pattern.read(message.as_bytes()) else { panic!("{message} has parts") };
        let mut out = Vec::new();
        fields.write(&mut out, message.as_bytes(), &parts);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn values() {
        for none in ["none", " FALSE "] {
            assert_eq!(KeepFields::read(none), KeepFields::None);
        }
        for all in ["all", "True"] {
            assert_eq!(KeepFields::read(all), KeepFields::All);
        }
        assert_eq!(KeepFields::read("host"), KeepFields::Some(Fields::default()));
    }

    #[test]
    fn fields_come_in_the_order_of_the_standards() {
        let message = "<34>1 2003-10-11T22:14:15.003Z host text";
        assert_eq!(kept("hostname, Timestamp VERSION;priority", message), message);
        assert_eq!(kept("priority hostname", message), "<34>host text");
        assert_eq!(kept("timestamp hostname version", "<34>- - text"), "null null text");
        assert_eq!(kept("version", "<34>Nov  1 22:14:15 host text"), "text");
    }
}
