//! The replicating selector: every event goes to every channel.
//!
//! Key: `selector.optional`, the channels whose failures do not matter. A name there that is not a channel of the
//! source is named and ignored here; Flume fails at run time with a null pointer, after delivering.

use super::{Routes, Selector, SelectorBuilder};
use crate::config::{ComponentType, Props, nearest};
use crate::event::Batch;

/// How the type is registered.
pub const TYPE: ComponentType<SelectorBuilder> = ComponentType {
    aliases: &["replicating"],
    class: "org.apache.flume.channel.ReplicatingChannelSelector",
    build: |props, channels| Some(Box::new(Replicating::from_props(props, channels)?)),
};

struct Replicating {
    required: Vec<usize>,
    optional: Vec<usize>,
}

impl Replicating {
    fn from_props(props: &mut Props<'_>, channels: &[String]) -> Option<Self> {
        let mut optional = Vec::new();
        for name in props.text("selector.optional").unwrap_or_default().split_ascii_whitespace() {
            match channels.iter().position(|channel| channel == name) {
                Some(number) => optional.push(number),
                None => {
                    let near = nearest(name, channels.iter().map(String::as_str));
                    let meant = near.map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
                    let message = format!("{name} is not one of the source's channels and is ignored{meant}");
                    props.warning("selector.optional", &message);
                }
            }
        }
        let required = (0..channels.len()).filter(|number| !optional.contains(number)).collect();
        Some(Self { required, optional })
    }
}

impl Selector for Replicating {
    fn select(&self, batch: Batch) -> Routes {
        let optional = self.optional.iter().map(|channel| (*channel, batch.clone())).collect();
        let mut required = Vec::with_capacity(self.required.len());
        if let Some((last, others)) = self.required.split_last() {
            required.extend(others.iter().map(|channel| (*channel, batch.clone())));
            required.push((*last, batch));
        }
        Routes { required, optional, unrouted: 0 }
    }

    fn requires(&self, channel: usize) -> bool {
        self.required.contains(&channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn required_and_optional() {
        let selector = Replicating { required: vec![0, 2], optional: vec![1] };
        let batch = Batch::from_iter([Event::new("a")]);
        let routes = selector.select(batch.clone());
        assert_eq!(routes.required, [(0, batch.clone()), (2, batch.clone())]);
        assert_eq!(routes.optional, [(1, batch)]);
    }
}
