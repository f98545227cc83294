//! Channel selectors: which of a source's channels an event goes to.

mod replicating;

use crate::config::{ComponentType, Props, resolve_type};
use crate::event::Batch;

/// Where the parts of a batch go, by the number of the channel in the source's list.
#[derive(Debug, Default)]
pub struct Routes {
    /// These must all be committed.
    pub required: Vec<(usize, Batch)>,
    /// These are tried, without waiting.
    pub optional: Vec<(usize, Batch)>,
    /// How many events belong in no channel.
    pub unrouted: usize,
}

/// Decides the channels of a batch.
pub trait Selector: Send + Sync {
    /// Splits a batch by channel; a channel occurs at most once in each list.
    fn select(&self, batch: Batch) -> Routes;

    /// Whether a channel is ever required.
    fn requires(&self, channel: usize) -> bool;
}

/// Reads a selector's configuration for a source with these channels; `None` when it has errors.
pub type SelectorBuilder = fn(&mut Props<'_>, channels: &[String]) -> Option<Box<dyn Selector>>;

/// All selector types that the agent has.
pub const TYPES: &[ComponentType<SelectorBuilder>] = &[replicating::TYPE];

/// Flume's selectors that this version does not have.
const OTHERS: &[&str] = &["multiplexing", "load_balancing"];

/// Reads `selector.type` and the keys of the selector.
pub fn from_props(props: &mut Props<'_>, channels: &[String]) -> Option<Box<dyn Selector>> {
    let text = props.text("selector.type").unwrap_or("replicating");
    match resolve_type(TYPES, text) {
        Some(found) => (found.build)(props, channels),
        None => {
            // The keys of a selector that is not known are nobody's fault.
            props.family("selector");
            let flumes =
                OTHERS.iter().any(|other| other.eq_ignore_ascii_case(text)) || text.starts_with("org.apache.flume.");
            if flumes {
                props.error(
                    "selector.type",
                    "a selector of this version: it does not have this one of Flume's yet",
                    "",
                );
            } else {
                props.error_nearest("selector.type", "a selector type: replicating", &["replicating"]);
            }
            None
        }
    }
}
