//! How an event becomes a message.

use std::borrow::Cow;

use rdkafka::message::{Header, OwnedHeaders};
use tracing::warn;

use crate::escape::Template;
use crate::event::Headers;
use crate::java::{parse_int, parse_long};
use crate::kafka::is_topic_name;
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
