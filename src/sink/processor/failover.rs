//! The failover processor: the sink with the highest priority that works gets everything.
//!
//! Keys: `processor.priority.SINK` (higher ones first; without one, -1, -2 and so on in the order of the list),
//! `processor.maxpenalty` (30000 ms). A sink that fails rests for two seconds, and for twice as long each time that it
//! fails again, up to that limit. The first batch after its rest is its trial.
//!
//! Of two sinks with the same priority Flume leaves one out; here the one that is listed later comes later.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{ProcessorBuilder, SinkProcessor, rest};
use crate::config::{ComponentType, FromText as _, Props, nearest};

/// How the type is registered.
pub const TYPE: ComponentType<ProcessorBuilder> = ComponentType {
    aliases: &["failover"],
    class: "org.apache.flume.sink.FailoverSinkProcessor",
    build: |props, sinks| Some(Box::new(Failover::from_props(props, sinks)?)),
};

const MAX_PENALTY_MS: i32 = 30_000;

#[derive(Debug)]
struct Member {
    name: String,
    priority: i32,
    failures: u32,
    /// When its rest is over; none: it works.
    retry_at: Option<Instant>,
}

struct Failover {
    members: Vec<Member>,
    max_penalty: Duration,
}

impl Failover {
    fn from_props(props: &mut Props<'_>, sinks: &[String]) -> Option<Self> {
        let mut next = 0;
        let mut members: Vec<Member> = Vec::new();
        for name in sinks {
            let key = format!("processor.priority.{name}");
            let given = props.text(&key).and_then(i32::from_text);
            let priority = given.unwrap_or_else(|| {
                next -= 1;
                props.lenient(&key, next, |_| true, "a whole number", "")
            });
            if let Some(same) = members.iter().find(|member| member.priority == priority) {
                let message = format!("the priority of {} too, which comes first", same.name);
                props.warning(&key, &message);
            }
            members.push(Member { name: name.clone(), priority, failures: 0, retry_at: None });
        }
        for (name, _) in props.family("processor.priority") {
            if !sinks.iter().any(|sink| sink == name) {
                let near = nearest(name, sinks.iter().map(String::as_str));
                let meant = near.map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
                props.warning(&format!("processor.priority.{name}"), &format!("{name} is not in the group{meant}"));
            }
        }
        let key = "processor.maxpenalty";
        let flume = format!("{} is not a valid value for maxpenalty", props.text(key).unwrap_or_default());
        let max = props.lenient(key, MAX_PENALTY_MS, |ms| *ms >= 0, "a number of milliseconds", &flume);
        props.finish(Self { members, max_penalty: Duration::from_millis(max.max(0) as u64) })
    }

    /// The sink that works and has the highest priority.
    fn active(&self) -> Option<usize> {
        let works = |number: &usize| self.members[*number].retry_at.is_none();
        (0..self.members.len()).rev().filter(works).max_by_key(|number| self.members[*number].priority)
    }
}

impl SinkProcessor for Failover {
    fn candidates(&mut self, now: Instant) -> Vec<usize> {
        let rested = |(number, member): (usize, &Member)| Some((member.retry_at.filter(|at| *at <= now)?, number));
        let mut rested: Vec<_> = self.members.iter().enumerate().filter_map(rested).collect();
        rested.sort_unstable();
        rested.into_iter().map(|(_, number)| number).chain(self.active()).collect()
    }

    fn next_change(&self, now: Instant) -> Option<Instant> {
        self.members.iter().filter_map(|member| member.retry_at).filter(|at| *at > now).min()
    }

    fn delivered(&mut self, sink: usize) {
        let member = &mut self.members[sink];
        if member.retry_at.take().is_some() {
            member.failures = 0;
            debug!("Sink {} was recovered from the fail list", member.name);
        }
    }

    fn failed(&mut self, sink: usize, error: &str, now: Instant) -> bool {
        let member = &mut self.members[sink];
        match member.retry_at {
            None => warn!("Sink {} failed and has been sent to failover list: {error}", member.name),
            Some(_) => debug!("Sink {} failed again: {error}", member.name),
        }
        member.failures += 1;
        member.retry_at = Some(now + rest(member.failures, self.max_penalty));
        !self.candidates(now).is_empty()
    }

    fn all_failed(&self) -> &'static str {
        "All sinks failed to process, nothing left to failover to"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(priorities: &[i32], max_penalty: u64) -> Failover {
        let member = |(number, priority): (usize, &i32)| Member {
            name: format!("k{number}"),
            priority: *priority,
            failures: 0,
            retry_at: None,
        };
        let members = priorities.iter().enumerate().map(member).collect();
        Failover { members, max_penalty: Duration::from_secs(max_penalty) }
    }

    #[test]
    fn the_highest_priority_that_works() {
        let mut group = group(&[5, 10, 10, 1], 30);
        let now = Instant::now();
        assert_eq!(group.candidates(now), [1]);
        assert!(group.failed(1, "away", now));
        assert_eq!(group.candidates(now), [2], "the same priority, listed later");
        assert!(group.failed(2, "away", now));
        assert_eq!(group.candidates(now), [0]);
        assert!(group.failed(0, "away", now));
        assert!(!group.failed(3, "away", now));
        assert!(group.candidates(now).is_empty());
        assert_eq!(group.next_change(now), Some(now + Duration::from_secs(2)));
    }

    #[test]
    fn a_rest_is_longer_each_time_up_to_the_limit_and_ends_with_a_trial() {
        let mut group = group(&[1, 2], 10);
        let mut now = Instant::now();
        for seconds in [2, 4, 8, 10, 10] {
            group.failed(1, "away", now);
            assert_eq!(group.candidates(now), [0]);
            let next = group.next_change(now).expect("an end of the rest");
            assert_eq!(next - now, Duration::from_secs(seconds));
            now = next;
            assert_eq!(group.candidates(now), [1, 0], "the trial comes first");
        }
        group.delivered(1);
        assert_eq!(group.candidates(now), [1]);
        group.failed(1, "away", now);
        assert_eq!(group.next_change(now), Some(now + Duration::from_secs(2)), "it begins anew");
    }
}
