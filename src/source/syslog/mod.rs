//! The syslog sources: syslogtcp, multiport_syslogtcp and syslogudp.
//!
//! Over TCP a message ends at a line feed, over UDP also at the end of its datagram; empty ones are passed over. A
//! message of `eventSize` bytes is cut there, and what follows is a message of its own. RFC 3164 and RFC 5424 are both
//! read, by Flume's rules, of which it has two: syslogtcp and syslogudp match patterns, multiport_syslogtcp looks for
//! fields between blanks, and they name their headers differently.
//!
//! | header | syslogtcp, syslogudp | multiport_syslogtcp |
//! |---|---|---|
//! | `Facility`, `Severity` | of the priority; `0` without one | of the priority |
//! | `priority`, `version` | as they stand in the message | named `Priority` and `Version` |
//! | `timestamp` | milliseconds since 1970; stamps without a zone are local | without a zone UTC; for `-` now, for a date that is none `0` |
//! | `host` | unless it is `-` | |
//! | `flume.syslog.status` | `Invalid` for what begins with no priority, `Incomplete` for what was cut | `Invalid` for what has no host or no date |
//!
//! What cannot be read is an event all the same, its body the whole message. Nobody is answered: a full channel holds
//! the clients back, and nothing that has been read is dropped. When a connection ends in the middle of a message, that
//! is delivered, too.

mod events;
mod keep;
mod message;
mod stamp;
mod tcp;
mod udp;

pub use events::{Events, Frame, Rules};
pub use keep::{Fields, KeepFields};
pub use message::{Dialect, Parts, Shape};
pub use stamp::Clock;
pub use tcp::{MULTIPORT_TYPE, TCP_TYPE};
pub use udp::UDP_TYPE;

use std::net::IpAddr;

use smol_str::SmolStr;
use tracing::warn;

use super::ChannelProcessor;
use crate::config::Props;
use crate::net;

/// `clientIPHeader` and `clientHostnameHeader`: headers that say where an event came from.
#[derive(Clone, Debug, Default)]
struct ClientHeaders {
    ip: Option<SmolStr>,
    host_name: Option<SmolStr>,
}

impl ClientHeaders {
    fn from_props(props: &Props<'_>) -> Self {
        let name = |key| props.optional::<String>(key).map(SmolStr::from);
        Self { ip: name("clientIPHeader"), host_name: name("clientHostnameHeader") }
    }

    /// The headers of what comes from this client. Waits for the name service when a name is wanted.
    async fn of(&self, client: IpAddr) -> Vec<(SmolStr, SmolStr)> {
        let mut headers = Vec::new();
        if let Some(header) = &self.ip {
            headers.push((header.clone(), net::java_address(client).into()));
        }
        if let Some(header) = &self.host_name {
            headers.push((header.clone(), net::host_name(client).await.into()));
        }
        headers
    }
}

/// Says that formats of the user's own are not known, where there are any.
fn refuse_formats(props: &Props<'_>) {
    if let Some((key, _)) = props.family("format").first() {
        props.error(
            &format!("format.{key}"),
            "no formats beside RFC 3164 and RFC 5424, as others are not in this version",
            "",
        );
    }
}

/// Counts and tells of messages that are none.
fn complain_of_invalid(out: &ChannelProcessor, client: &dyn std::fmt::Display, messages: usize) {
    if messages == 0 {
        return;
    }
    out.counters().event_read_fail.add(messages as u64);
    if let Some(others) = out.may_complain() {
        let source = out.source();
        warn!("Event created from Invalid Syslog data. Source {source}, client {client}: {messages} of them{others}");
    }
}
