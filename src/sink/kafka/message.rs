//! How an event becomes a message.

use std::borrow::Cow;

use rdkafka::message::{Header, OwnedHeaders};
use tracing::warn;

use crate::escape::Template;
use crate::event::Headers;
use crate::java::{parse_int, parse_long};
use crate::kafka::{TOPIC_NAME, is_in_topic_name, is_topic_name};
use crate::logging::Limited;

/// The keys that say so.
#[derive(Clone)]
pub struct MessageConfig {
    pub topic: Topic,
    /// The header that names another topic.
    pub topic_header: Option<String>,
    pub partition: Option<i32>,
    pub partition_header: Option<String>,
    pub timestamp_header: Option<String>,
    /// Headers of events, and what they are called in messages.
    pub headers: Vec<(String, String)>,
    pub whole_event: bool,
}

#[derive(Clone)]
pub enum Topic {
    /// A name that topics may have.
    Fixed(String),
    Escaped(Template),
}

impl Topic {
    /// Reads a topic. An error says what was expected.
    pub fn read(text: &str, with_escapes: bool) -> Result<Self, String> {
        if is_topic_name(text) {
            return Ok(Self::Fixed(text.to_owned()));
        }
        if !with_escapes {
            return Err(TOPIC_NAME.to_owned());
        }
        let template = Template::new(text).map_err(|why| format!("a topic, perhaps with escapes; {why}"))?;
        match template.constant() {
            Some(name) if is_topic_name(name) => Ok(Self::Fixed(name.to_owned())),
            None if template.literals().all(is_in_topic_name) => Ok(Self::Escaped(template)),
            _ => Err(format!("{TOPIC_NAME}; or one with escapes, such as %{{header}}")),
        }
    }
}

/// What an event's headers say about its message.
pub struct Envelope<'a> {
    pub topic: Cow<'a, str>,
    pub partition: Option<i32>,
    pub timestamp: Option<i64>,
    pub headers: Option<OwnedHeaders>,
}

impl MessageConfig {
    /// The topic. An error says why there is none.
    pub fn topic<'a>(&'a self, headers: &'a Headers) -> Result<Cow<'a, str>, String> {
        let named = self.topic_header.as_deref().and_then(|header| headers.get(header));
        let topic = match (named, &self.topic) {
            (Some(topic), _) => topic.into(),
            (None, Topic::Fixed(topic)) => return Ok(topic.into()),
            (None, Topic::Escaped(template)) => template.expand(headers)?,
        };
        if is_topic_name(&topic) { Ok(topic) } else { Err(format!("{topic:?} is no name of a topic")) }
    }

    /// The number of the partition, if one is named. An error says why there is none of such a number.
    pub fn partition(&self, headers: &Headers) -> Result<Option<i32>, String> {
        let text = self.partition_header.as_deref().and_then(|header| headers.get(header));
        match text.map(|text| (text, parse_int(text))) {
            None => Ok(self.partition),
            Some((_, Some(partition))) if partition >= 0 => Ok(Some(partition)),
            Some((text, Some(_))) => Err(format!("Invalid partition: {text}")),
            Some((text, None)) => Err(format!("Non integer partition id specified: {text:?}")),
        }
    }

    /// Reads the headers. An error says why the event can never become a message.
    pub fn envelope<'a>(&'a self, headers: &'a Headers, complaints: &Limited) -> Result<Envelope<'a>, String> {
        let topic = self.topic(headers)?;
        let partition = self.partition(headers)?;
        let time = self.timestamp_header.as_deref().and_then(|header| headers.get(header));
        let timestamp = time.and_then(|text| {
            let time = parse_long(text).filter(|time| *time >= 0);
            if let (None, Some(others)) = (time, complaints.permit().filter(|_| time.is_none())) {
                let header = self.timestamp_header.as_deref().unwrap_or_default();
                warn!("Invalid timestamp in header {header} - {text}{others}");
            }
            time
        });
        let mut own = None;
        for (name, kafka_name) in &self.headers {
            if let Some(value) = headers.get(name) {
                let headers = own.take().unwrap_or_else(OwnedHeaders::new);
                own = Some(headers.insert(Header { key: kafka_name, value: Some(value) }));
            }
        }
        Ok(Envelope { topic, partition, timestamp, headers: own })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_event_can_make_the_name_of_a_topic_is_refused() {
        for name in ["t", "Web_1.2-x", "%{host}", "logs-%{host}-%Y", "%%", "%[localhost]"] {
            assert!(Topic::read(name, true).is_ok(), "{name}");
        }
        for name in ["", "my topic", ".", "a/%{host}", "%{host} %Y", "%y-%{", "%[planet]", &"t".repeat(250)] {
            assert!(Topic::read(name, true).is_err(), "{name}");
        }
        assert!(Topic::read("%{host}", false).is_err(), "no header may name it");
    }
}
