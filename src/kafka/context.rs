//! What librdkafka has to say, in the agent's log and at a bounded rate.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use tracing::{debug, error, info, warn};

use super::Words;
use crate::logging::Limited;

/// The binding tells some errors twice.
const TWICE: Duration = Duration::from_secs(1);

/// A connection that a broker closes no later than this has not been at rest.
const YOUNG: u64 = 2000;

/// Between two lines about such connections.
const CLOSED_AGAIN: Duration = Duration::from_secs(30);

/// One client's voice.
#[derive(Debug)]
pub struct Voice {
    /// Whose client it is: `Sink k1`.
    owner: String,
    /// As whom it logs in, to be told when that is refused.
    login: String,
    complaints: Limited,
    fatal: AtomicBool,
    last: Mutex<Option<(Instant, String)>>,
    /// When a line was about a connection that was closed.
    closed: Mutex<Option<Instant>>,
}

impl Voice {
    /// The client of a component, for example `Sink k1`.
    pub fn new(owner: &str, config: &ClientConfig) -> Self {
        Self {
            owner: owner.to_owned(),
            login: login(config),
            complaints: Limited::default(),
            fatal: AtomicBool::new(false),
            last: Mutex::default(),
            closed: Mutex::default(),
        }
    }

    /// Whether the client has said that it cannot go on and must be made anew.
    pub fn is_fatal(&self) -> bool {
        self.fatal.load(Ordering::Relaxed)
    }

    /// Brokers close connections that rest; that is no news. One that closes new ones speaks another protocol.
    fn say_closed(&self, message: &str, since_connected: Option<u64>) {
        if since_connected.is_some_and(|ms| ms > YOUNG) {
            return;
        }
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if closed.is_none_or(|last| last.elapsed() >= CLOSED_AGAIN) {
            *closed = Some(Instant::now());
            let hint = "does the broker expect TLS or SASL (security.protocol)?";
            warn!("{}: Kafka client: {message}; a new connection was closed: {hint}", self.owner);
        }
    }
}

impl ClientContext for Voice {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if matches!(level, RDKafkaLogLevel::Debug) {
            return debug!("{}: Kafka client: {facility}: {message}", self.owner);
        }
        if facility == "FAIL" && message.contains(": Disconnected") {
            return self.say_closed(message, time_in_state(message));
        }
        let Some(others) = self.complaints.permit() else { return };
        let owner = &self.owner;
        match level {
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => info!("{owner}: Kafka client: {message}{others}"),
            RDKafkaLogLevel::Warning => warn!("{owner}: Kafka client: {message}{others}"),
            _ => error!("{owner}: Kafka client: {message}{others}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal) => self.fatal.store(true, Ordering::Relaxed),
            Some(code) if is_logged(code) => return,
            _ => {}
        }
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.as_ref().is_some_and(|(when, what)| when.elapsed() < TWICE && what == reason) {
                return;
            }
            *last = Some((Instant::now(), reason.to_owned()));
        }
        if let Some(others) = self.complaints.permit() {
            let refused = error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication);
            let login = if refused { &self.login } else { "" };
            error!("{}: Kafka client: {}: {reason}{login}{others}", self.owner, Words(&error));
        }
    }
}

/// Whether librdkafka logs what stands behind such an error: with the address, and not once a second.
pub fn is_logged(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown)
}

/// The milliseconds in `... (after 323ms in state UP, 33 identical error(s) suppressed)`.
fn time_in_state(message: &str) -> Option<u64> {
    let (_, after) = message.rsplit_once("(after ")?;
    after.split_once("ms in state ")?.0.parse().ok()
}

fn login(config: &ClientConfig) -> String {
    let mechanism = config.get("sasl.mechanism").or_else(|| config.get("sasl.mechanisms"));
    match (config.get("sasl.username"), mechanism) {
        (Some(user), Some(mechanism)) => format!(" (user {user}, mechanism {mechanism})"),
        (None, Some(mechanism)) => format!(" (mechanism {mechanism})"),
        (_, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_that_did_not_last_are_told_when_they_are_closed() {
        let voice = Voice::new("Sink k1", &ClientConfig::new());
        let closed_after = |ms| {
            let message = format!("b1:9092/bootstrap: Disconnected: closed by peer (after {ms}ms in state UP, 3 more)");
            voice.log(RDKafkaLogLevel::Warning, "FAIL", &message);
            voice.closed.lock().expect("nobody panics").is_some()
        };
        assert!(!closed_after(600_123), "it was at rest");
        assert!(closed_after(323));
    }
}
