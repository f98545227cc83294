//! The load-balancing selector: every event goes to one channel, in turn or by chance.
//!
//! Key: `selector.policy` (`round_robin`, or `random`). Flume 1.10 has it, and refuses every configuration with it.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Routes, Selector, SelectorBuilder};
use crate::config::{ComponentType, Props};
use crate::event::Batch;

/// How the type is registered.
pub const TYPE: ComponentType<SelectorBuilder> = ComponentType {
    aliases: &["load_balancing"],
    class: "org.apache.flume.channel.LoadBalancingChannelSelector",
    build: |props, channels| Some(Box::new(LoadBalancing::from_props(props, channels.len())?)),
};

enum Policy {
    /// The number of the channel of the next event.
    RoundRobin(AtomicUsize),
    Random,
}

struct LoadBalancing {
    policy: Policy,
    channels: usize,
}

impl LoadBalancing {
    fn from_props(props: &mut Props<'_>, channels: usize) -> Option<Self> {
        let text = props.text("selector.policy").unwrap_or("round_robin");
        let policy = match text.to_ascii_lowercase().as_str() {
            "round_robin" => Policy::RoundRobin(AtomicUsize::new(0)),
            "random" => Policy::Random,
            _ => {
                props.error_nearest("selector.policy", "round_robin or random", &["round_robin", "random"]);
                return None;
            }
        };
        props.finish(Self { policy, channels })
    }

    /// The channel of each of so many events.
    fn picks(&self, events: usize) -> Vec<usize> {
        match &self.policy {
            Policy::RoundRobin(next) => {
                let first = next.fetch_add(events, Ordering::Relaxed);
                (0..events).map(|n| first.wrapping_add(n) % self.channels).collect()
            }
            Policy::Random => (0..events).map(|_| fastrand::usize(..self.channels)).collect(),
        }
    }
}

impl Selector for LoadBalancing {
    fn select(&self, batch: Batch) -> Routes {
        if self.channels == 1 {
            return Routes { required: vec![(0, batch)], ..Routes::default() };
        }
        let picks = self.picks(batch.len());
        let part = |channel| {
            let mut picks = picks.iter();
            let part = batch.filter(|_| picks.next() == Some(&channel));
            (!part.is_empty()).then_some((channel, part))
        };
        Routes { required: (0..self.channels).filter_map(part).collect(), ..Routes::default() }
    }

    fn requires(&self, _channel: usize) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn numbers(numbers: std::ops::Range<usize>) -> Batch {
        numbers.map(|n| Event::new(n.to_string())).collect()
    }

    fn picked(routes: &Routes) -> Vec<(usize, Vec<String>)> {
        let body = |batch: &Batch| batch.iter().map(|e| String::from_utf8_lossy(e.body()).into_owned()).collect();
        routes.required.iter().map(|(channel, batch)| (*channel, body(batch))).collect()
    }

    #[test]
    fn in_turn_across_batches() {
        let selector = LoadBalancing { policy: Policy::RoundRobin(AtomicUsize::new(0)), channels: 3 };
        let all = |channels: &[(usize, &[&str])]| -> Vec<(usize, Vec<String>)> {
            channels.iter().map(|(n, bodies)| (*n, bodies.iter().map(|body| (*body).to_owned()).collect())).collect()
        };
        assert_eq!(picked(&selector.select(numbers(0..4))), all(&[(0, &["0", "3"]), (1, &["1"]), (2, &["2"])]));
        assert_eq!(picked(&selector.select(numbers(4..5))), all(&[(1, &["4"])]));
        assert_eq!(picked(&selector.select(numbers(5..7))), all(&[(0, &["6"]), (2, &["5"])]));
    }

    #[test]
    fn by_chance_every_event_has_one_channel() {
        let selector = LoadBalancing { policy: Policy::Random, channels: 2 };
        let routes = selector.select(numbers(0..1000));
        let mut seen: Vec<usize> =
            picked(&routes).into_iter().flat_map(|(_, bodies)| bodies).filter_map(|n| n.parse().ok()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
        assert_eq!(routes.required.len(), 2, "a thousand events are not all on one side");
    }
}
