//! The load-balancing processor: each batch goes to another sink, in turn or by chance.
//!
//! Keys: `processor.selector` (`round_robin`, or `random`), `processor.backoff` (false), `processor.selector.maxTimeOut`
//! (30000 ms). A sink that fails is passed over for this batch; with `backoff` it also rests for two seconds, and for twice
//! as long each time that it fails within an hour after the last rest, up to the limit.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::{ProcessorBuilder, SinkProcessor, rest};
use crate::config::{ComponentType, Props};
use crate::logging::Limited;

/// How the type is registered.
pub const TYPE: ComponentType<ProcessorBuilder> = ComponentType {
    aliases: &["load_balance"],
    class: "org.apache.flume.sink.LoadBalancingSinkProcessor",
    build: |props, sinks| Some(Box::new(LoadBalance::from_props(props, sinks)?)),
};

const MAX_TIMEOUT_MS: i64 = 30_000;
/// Failures that are further apart than the last rest and this do not count as one after the other.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

#[derive(Default)]
struct Member {
    name: String,
    failures: u32,
    /// When it failed the last time, and for how long it rests.
    rests: Option<(Instant, Duration)>,
}

impl Member {
    fn rests_until(&self) -> Option<Instant> {
        self.rests.map(|(since, rest)| since + rest)
    }
}

enum Order {
    /// The place of the next batch's first sink among those that do not rest.
    RoundRobin(usize),
    Random,
}

struct LoadBalance {
    members: Vec<Member>,
    order: Order,
    /// How long a rest may be, if there is any.
    max_rest: Option<Duration>,
    /// The sinks that have failed with this batch, and how many there were before.
    tried: Vec<usize>,
    at_first: usize,
    complaints: Limited,
}

impl LoadBalance {
    fn from_props(props: &mut Props<'_>, sinks: &[String]) -> Option<Self> {
        let key = "processor.selector";
        let order = match props.text(key).unwrap_or("round_robin").to_ascii_lowercase().as_str() {
            "round_robin" => Some(Order::RoundRobin(0)),
            "random" => Some(Order::Random),
            _ => {
                props.error_nearest(key, "round_robin or random", &["round_robin", "random"]);
                None
            }
        };
        let backoff = props.or("processor.backoff", false);
        let max = props.or("processor.selector.maxTimeOut", MAX_TIMEOUT_MS);
        // Flume takes 0 for the default.
        let max = u64::try_from(if max == 0 { MAX_TIMEOUT_MS } else { max }).unwrap_or(0);
        if sinks.len() == 1 {
            props.warning("sinks", "a single sink: there is nothing to balance");
        }
        let members = sinks.iter().map(|name| Member { name: name.clone(), ..Member::default() }).collect();
        props.finish(Self::new(members, order?, backoff.then(|| Duration::from_millis(max))))
    }

    fn new(members: Vec<Member>, order: Order, max_rest: Option<Duration>) -> Self {
        Self { members, order, max_rest, tried: Vec::new(), at_first: 0, complaints: Limited::default() }
    }

    /// Ends the round of one batch.
    fn next_round(&mut self) {
        self.tried.clear();
        if let Order::RoundRobin(head) = &mut self.order {
            *head = if *head + 1 < self.at_first { *head + 1 } else { 0 };
        }
    }
}

impl SinkProcessor for LoadBalance {
    fn candidates(&mut self, now: Instant) -> Vec<usize> {
        let awake = |number: &usize| self.members[*number].rests_until().is_none_or(|until| until <= now);
        let mut numbers: Vec<usize> = (0..self.members.len()).filter(awake).collect();
        if self.tried.is_empty() {
            self.at_first = numbers.len();
        }
        match &mut self.order {
            Order::RoundRobin(head) => {
                if *head >= numbers.len() {
                    *head = 0;
                }
                numbers.rotate_left(*head);
            }
            Order::Random => fastrand::shuffle(&mut numbers),
        }
        numbers.retain(|number| !self.tried.contains(number));
        numbers
    }

    fn next_change(&self, now: Instant) -> Option<Instant> {
        self.members.iter().filter_map(Member::rests_until).filter(|until| *until > now).min()
    }

    fn delivered(&mut self, _sink: usize) {
        self.next_round();
    }

    fn failed(&mut self, sink: usize, error: &str, now: Instant) -> bool {
        let member = &mut self.members[sink];
        if let Some(others) = self.complaints.permit() {
            let name = &member.name;
            warn!("Sink failed to consume event. Attempting next sink if available. Sink {name}: {error}{others}");
        }
        self.tried.push(sink);
        if let Some(limit) = self.max_rest {
            let again = member.rests.is_some_and(|(since, rest)| now < since + rest + FORGOTTEN_AFTER);
            member.failures = if again { member.failures + 1 } else { 1 };
            member.rests = Some((now, rest(member.failures, limit)));
        }
        let more = !self.candidates(now).is_empty();
        if !more {
            self.next_round();
        }
        more
    }

    fn all_failed(&self) -> &'static str {
        "All configured sinks have failed"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(sinks: usize, order: Order, max_rest: Option<u64>) -> LoadBalance {
        let members = (0..sinks).map(|_| Member::default()).collect();
        LoadBalance::new(members, order, max_rest.map(Duration::from_secs))
    }

    #[test]
    fn in_turn_and_past_those_that_fail() {
        let mut group = group(3, Order::RoundRobin(0), None);
        let now = Instant::now();
        for turn in [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]] {
            assert_eq!(group.candidates(now), turn);
            assert_eq!(group.candidates(now), turn, "to be asked twice changes nothing");
            group.delivered(turn[0]);
        }
        assert!(group.failed(1, "away", now));
        assert_eq!(group.candidates(now), [2, 0]);
        group.delivered(2);
        assert_eq!(group.candidates(now), [2, 0, 1], "the turn goes on as if it had not failed");
        assert!(group.failed(2, "away", now) && group.failed(0, "away", now) && !group.failed(1, "away", now));
        assert_eq!(group.candidates(now), [0, 1, 2], "a new round");
        assert_eq!(group.next_change(now), None);
    }

    #[test]
    fn with_back_off_a_sink_that_fails_rests() {
        let mut group = group(3, Order::RoundRobin(0), Some(5));
        let mut now = Instant::now();
        assert!(group.failed(0, "away", now));
        assert_eq!(group.candidates(now), [1, 2]);
        group.delivered(1);
        for turn in [[1, 2], [2, 1], [1, 2]] {
            assert_eq!(group.candidates(now).len(), 2);
            assert!(group.candidates(now).iter().all(|sink| turn.contains(sink)));
            let first = group.candidates(now)[0];
            group.delivered(first);
        }
        for seconds in [4, 5, 5] {
            now = group.next_change(now).expect("an end of the rest");
            assert_eq!(group.candidates(now).len(), 3);
            group.failed(0, "away", now);
            assert_eq!(group.next_change(now), Some(now + Duration::from_secs(seconds)));
            group.delivered(1);
        }
        now += Duration::from_secs(3700);
        group.failed(0, "away", now);
        assert_eq!(group.next_change(now), Some(now + Duration::from_secs(2)), "long ago is forgotten");
        assert!(group.failed(1, "away", now) && !group.failed(2, "away", now));
        assert!(group.candidates(now).is_empty());
    }

    #[test]
    fn by_chance_everybody_has_a_turn() {
        let mut group = group(3, Order::Random, None);
        let now = Instant::now();
        let mut firsts = [0; 3];
        for _ in 0..1000 {
            let mut order = group.candidates(now);
            firsts[order[0]] += 1;
            group.delivered(order[0]);
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2]);
        }
        assert!(firsts.iter().all(|count| *count > 200), "{firsts:?}");
    }
}
