//! Channel selectors: which of a source's channels an event goes to.

mod load_balancing;
mod multiplexing;
mod replicating;

use crate::config::{ComponentType, Props, nearest, resolve_type};
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
pub const TYPES: &[ComponentType<SelectorBuilder>] = &[replicating::TYPE, multiplexing::TYPE, load_balancing::TYPE];

/// Reads `selector.type` and the keys of the selector.
pub fn from_props(props: &mut Props<'_>, channels: &[String]) -> Option<Box<dyn Selector>> {
    let text = props.text("selector.type").unwrap_or("replicating");
    let Some(found) = resolve_type(TYPES, text) else {
        // The keys of a selector that is not known are nobody's fault.
        props.family("selector");
        let known: Vec<&str> = TYPES.iter().flat_map(|known| known.aliases).copied().collect();
        props.error_nearest("selector.type", &format!("a selector type: {}", known.join(", ")), &known);
        return None;
    };
    (found.build)(props, channels)
}

/// The numbers of the channels that a key names; `None` when one of them is not the source's.
fn channel_list(props: &Props<'_>, key: &str, channels: &[String]) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    let mut complete = true;
    for name in props.text(key).unwrap_or_default().split_ascii_whitespace() {
        match channels.iter().position(|channel| channel == name) {
            Some(number) if numbers.contains(&number) => {}
            Some(number) => numbers.push(number),
            None => {
                let near = nearest(name, channels.iter().map(String::as_str));
                let help = match near {
                    Some(near) => format!("; did you mean \"{near}\"?"),
                    None if name.contains(',') => "; separate names with blanks, not commas".to_owned(),
                    None => String::new(),
                };
                let expected = format!("channels of the source: {name} is not one of {}{help}", channels.join(", "));
                props.error(key, &expected, &format!("Selector channel not found: {name}"));
                complete = false;
            }
        }
    }
    complete.then_some(numbers)
}
