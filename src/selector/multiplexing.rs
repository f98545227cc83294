//! The multiplexing selector: the value of a header decides.
//!
//! Keys: `selector.header` (`flume.selector.header`), `selector.mapping.VALUE` (the channels of a value),
//! `selector.optional.VALUE` (channels of a value whose failures do not matter), `selector.default` (the channels of all
//! other events, those without the header among them). Without a default these go nowhere, and are counted.
//!
//! Names are separated by any blanks; Flume takes each single one for a separator and fails on two.

use std::collections::HashMap;

use super::{Routes, Selector, SelectorBuilder, channel_list};
use crate::config::{ComponentType, Props};
use crate::event::{Batch, Headers};

/// How the type is registered.
pub const TYPE: ComponentType<SelectorBuilder> = ComponentType {
    aliases: &["multiplexing"],
    class: "org.apache.flume.channel.MultiplexingChannelSelector",
    build: |props, channels| Some(Box::new(Multiplexing::from_props(props, channels)?)),
};

const HEADER: &str = "flume.selector.header";

/// The channels of one value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Route {
    required: Vec<usize>,
    optional: Vec<usize>,
}

struct Multiplexing {
    header: String,
    /// The number of each value's route.
    values: HashMap<String, usize>,
    /// The first one is the default.
    routes: Vec<Route>,
    channels: usize,
}

/// The number of the default route.
const DEFAULT: usize = 0;

impl Multiplexing {
    fn from_props(props: &mut Props<'_>, channels: &[String]) -> Option<Self> {
        let header = props.or("selector.header", HEADER.to_owned());
        let default = match props.text("selector.default") {
            Some(_) => channel_list(props, "selector.default", channels),
            None => {
                let message = "missing: events with none of the mapped values are dropped";
                props.warning("selector.default", message);
                Some(Vec::new())
            }
        };
        let lists = |family: &str| -> Vec<(String, Option<Vec<usize>>)> {
            let values: Vec<String> = props.family(family).iter().map(|(value, _)| (*value).to_owned()).collect();
            let list = |value: String| {
                let list = channel_list(props, &format!("{family}.{value}"), channels);
                (value, list)
            };
            values.into_iter().map(list).collect()
        };
        let mappings = lists("selector.mapping");
        let optionals = lists("selector.optional");
        if mappings.is_empty() {
            props.warning("selector.mapping", "missing: all events go to the default channels");
        }
        let default = Route { required: default?, optional: Vec::new() };
        let mut routes: HashMap<String, Route> = HashMap::new();
        for (value, required) in mappings {
            routes.insert(value, Route { required: required?, optional: Vec::new() });
        }
        for (value, optional) in optionals {
            let route = routes.entry(value).or_insert_with(|| default.clone());
            route.optional = optional?.into_iter().filter(|channel| !route.required.contains(channel)).collect();
        }
        props.finish(Self::new(header, default, routes, channels.len()))
    }

    fn new(header: String, default: Route, values: HashMap<String, Route>, channels: usize) -> Self {
        let mut routes = vec![default];
        let number = |(value, route)| {
            routes.push(route);
            (value, routes.len() - 1)
        };
        Self { header, values: values.into_iter().map(number).collect(), routes, channels }
    }

    /// The number of the route of events with these headers.
    fn route(&self, headers: &Headers) -> usize {
        headers.get(&self.header).and_then(|value| self.values.get(value)).copied().unwrap_or(DEFAULT)
    }
}

impl Selector for Multiplexing {
    fn select(&self, batch: Batch) -> Routes {
        // A set of headers is looked up once, however many events share it.
        let sets: Vec<usize> = batch.header_sets().iter().map(|headers| self.route(headers)).collect();
        let route_of = |set: Option<usize>| set.map_or(DEFAULT, |set| sets[set]);
        let mut events = vec![0; self.routes.len()];
        for event in batch.iter() {
            events[route_of(event.header_set())] += 1;
        }
        let goes = |pick: fn(&Route) -> &Vec<usize>, channel: usize| -> Vec<bool> {
            self.routes.iter().map(|route| pick(route).contains(&channel)).collect()
        };
        let parts = |pick: fn(&Route) -> &Vec<usize>| -> Vec<(usize, Batch)> {
            let part = |channel| {
                let goes = goes(pick, channel);
                let count: usize = events.iter().zip(&goes).filter(|(_, goes)| **goes).map(|(events, _)| events).sum();
                match count {
                    0 => None,
                    count if count == batch.len() => Some((channel, batch.clone())),
                    _ => Some((channel, batch.filter(|event| goes[route_of(event.header_set())]))),
                }
            };
            (0..self.channels).filter_map(part).collect()
        };
        let is_nowhere = |route: &Route| route.required.is_empty() && route.optional.is_empty();
        let unrouted = self.routes.iter().zip(&events).filter(|(route, _)| is_nowhere(route)).map(|(_, events)| events);
        Routes {
            required: parts(|route| &route.required),
            optional: parts(|route| &route.optional),
            unrouted: unrouted.sum(),
        }
    }

    fn requires(&self, channel: usize) -> bool {
        self.routes.iter().any(|route| route.required.contains(&channel))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Event;

    fn selector(default: &[usize], values: &[(&str, &[usize], &[usize])]) -> Multiplexing {
        let route =
            |required: &[usize], optional: &[usize]| Route { required: required.into(), optional: optional.into() };
        let values = values.iter().map(|(value, required, optional)| ((*value).to_owned(), route(required, optional)));
        Multiplexing::new("state".to_owned(), route(default, &[]), values.collect(), 3)
    }

    fn bodies(parts: &[(usize, Batch)]) -> Vec<(usize, String)> {
        let body =
            |batch: &Batch| batch.iter().map(|event| String::from_utf8_lossy(event.body()).into_owned()).collect();
        parts.iter().map(|(channel, batch)| (*channel, body(batch))).collect()
    }

    #[test]
    fn values_go_to_their_channels_and_the_rest_to_the_default() {
        let selector = selector(&[2], &[("CZ", &[0], &[]), ("US", &[0, 1], &[2])]);
        let batch = Batch::from_iter([
            Event::new("a").with("state", "CZ"),
            Event::new("b"),
            Event::new("c").with("state", "US"),
            Event::new("d").with("state", "cz"),
            Event::new("e").with("state", " "),
            Event::new("f").with("other", "US"),
            Event::new("g").with("state", "CZ"),
        ]);
        let routes = selector.select(batch);
        assert_eq!(bodies(&routes.required), [(0, "acg".into()), (1, "c".into()), (2, "bdef".into())]);
        assert_eq!(bodies(&routes.optional), [(2, "c".into())]);
        assert_eq!(routes.unrouted, 0);
        assert!((0..3).all(|channel| selector.requires(channel)));
    }

    #[test]
    fn what_belongs_nowhere_is_counted() {
        let selector = selector(&[], &[("CZ", &[1], &[]), ("US", &[], &[2])]);
        let states = ["CZ", "FR", "US", "FR"];
        let routes = selector.select(states.iter().map(|state| Event::new(*state).with("state", state)).collect());
        assert_eq!(bodies(&routes.required), [(1, "CZ".into())]);
        assert_eq!(bodies(&routes.optional), [(2, "US".into())]);
        assert_eq!(routes.unrouted, 2);
        assert!(!selector.requires(0) && selector.requires(1) && !selector.requires(2));
    }

    proptest! {
        #[test]
        fn every_event_is_where_its_value_says_and_in_order(
            mapped in prop::collection::vec(prop::collection::vec(0usize..3, 0..3), 4),
            values in prop::collection::vec(0usize..6, 0..20),
        ) {
            let names = ["v0", "v1", "v2"];
            let values_of: Vec<(&str, &[usize], &[usize])> =
                names.iter().zip(&mapped[1..]).map(|(name, channels)| (*name, &channels[..], &[][..])).collect();
            let selector = selector(&mapped[0], &values_of);
            let events = values.iter().enumerate().map(|(n, value)| Event::new(format!("{n} ")).with("state", &format!("v{value}")));
            let routes = selector.select(events.collect());
            for channel in 0..3 {
                let belongs = |value: &usize| mapped.get(value + 1).filter(|_| *value < 3).unwrap_or(&mapped[0]).contains(&channel);
                let numbered = values.iter().enumerate().filter(|(_, value)| belongs(value));
                let expected: String = numbered.map(|(n, _)| format!("{n} ")).collect();
                let found = bodies(&routes.required).into_iter().find(|(number, _)| *number == channel);
                prop_assert_eq!(found.map(|(_, bodies)| bodies).unwrap_or_default(), expected);
            }
        }
    }
}
