//! Interceptors: what happens to events between a source and its channels.
//!
//! An interceptor works in place on the whole batch. A chain is made when the source is; a source without
//! interceptors has an empty one, which costs nothing.

mod host;
mod joda;
mod regex_extractor;
mod regex_filter;
mod remove_header;
mod search_replace;
mod r#static;
mod timestamp;
mod uuid;

use crate::config::{ComponentType, Props};
use crate::event::{Batch, EventRef};
use crate::java_regex::JavaRegex;

/// One interceptor, by what it does.
pub enum Interceptor {
    /// Changes events.
    Edits(Box<dyn Edit>),
    /// Takes events out.
    Filters(Box<dyn Filter>),
}

/// Changes events or their headers, in place.
pub trait Edit: Send + Sync {
    /// Works on one batch.
    fn edit(&self, batch: &mut Batch);
}

/// Decides which events go on. The others still count as accepted.
pub trait Filter: Send + Sync {
    /// Whether an event goes on.
    fn keeps(&self, event: EventRef<'_>) -> bool;
}

/// Reads an interceptor's configuration; `None` when it has errors, which the properties have noted.
pub type InterceptorBuilder = fn(&mut Props<'_>, prefix: &str) -> Option<Interceptor>;

/// All interceptor types that the agent has.
pub const TYPES: &[ComponentType<InterceptorBuilder>] = &[
    timestamp::TYPE,
    host::TYPE,
    r#static::TYPE,
    remove_header::TYPE,
    uuid::TYPE,
    regex_filter::TYPE,
    regex_extractor::TYPE,
    search_replace::TYPE,
];

/// The interceptors of a source, in their order.
#[derive(Default)]
pub struct Chain(Vec<Interceptor>);

impl Chain {
    /// A chain of these.
    pub fn new(interceptors: Vec<Interceptor>) -> Self {
        Self(interceptors)
    }

    /// Reads `interceptors` and the keys of each.
    pub fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let mut chain = Vec::new();
        let mut complete = true;
        let names = props.text("interceptors").unwrap_or_default();
        for name in names.split_ascii_whitespace() {
            let prefix = format!("interceptors.{name}");
            let key = format!("{prefix}.type");
            let Some(text) = props.text(&key) else {
                props.error(&key, "an interceptor type", &format!("Interceptor.Type not specified for {name}"));
                complete = false;
                continue;
            };
            match crate::config::resolve_type(TYPES, text) {
                Some(found) => match (found.build)(props, &prefix) {
                    Some(interceptor) => chain.push(interceptor),
                    None => complete = false,
                },
                None if text.starts_with("org.apache.flume.") => {
                    props.family(&prefix);
                    props.error(&key, "an interceptor of this version: it does not have this one of Flume's yet", "");
                    complete = false;
                }
                None => {
                    props.family(&prefix);
                    let known: Vec<&str> = TYPES.iter().flat_map(|known| known.aliases).copied().collect();
                    props.error_nearest(&key, &format!("an interceptor type: {}", known.join(", ")), &known);
                    complete = false;
                }
            }
        }
        complete.then(|| Self::new(chain))
    }

    /// Sends a batch through all of them.
    pub fn intercept(&self, batch: &mut Batch) {
        for interceptor in &self.0 {
            match interceptor {
                Interceptor::Edits(edit) => edit.edit(batch),
                Interceptor::Filters(filter) => batch.retain(|event| filter.keeps(event)),
            }
        }
    }

    /// The same, and tells the places that the events left had among all; nothing when none is gone.
    pub fn intercept_noting(&self, batch: &mut Batch) -> Vec<u32> {
        let events = batch.len();
        let mut places: Vec<u32> = Vec::new();
        for interceptor in &self.0 {
            match interceptor {
                Interceptor::Edits(edit) => edit.edit(batch),
                Interceptor::Filters(filter) => {
                    let before = if places.is_empty() { (0..batch.len() as u32).collect() } else { places };
                    let mut before = before.into_iter();
                    places = Vec::with_capacity(before.len());
                    batch.retain(|event| {
                        let place = before.next().filter(|_| filter.keeps(event));
                        places.extend(place);
                        place.is_some()
                    });
                }
            }
        }
        if batch.len() == events { Vec::new() } else { places }
    }
}

/// A key whose value is a regular expression, when it is there and right.
fn regex(props: &Props<'_>, key: &str) -> Option<JavaRegex> {
    let read = JavaRegex::new(props.text(key)?);
    read.inspect_err(|error| props.error(key, &format!("a Java regular expression: {error}"), "")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    struct Without(&'static [u8]);

    impl Filter for Without {
        fn keeps(&self, event: EventRef<'_>) -> bool {
            !self.0.contains(&event.body()[0])
        }
    }

    fn chain(filters: &[&'static [u8]]) -> Chain {
        Chain::new(filters.iter().map(|out| Interceptor::Filters(Box::new(Without(out)))).collect())
    }

    #[test]
    fn the_places_of_what_several_filters_leave() {
        let batch: Batch = ["a", "b", "c", "d", "e"].into_iter().map(Event::new).collect();
        for (filters, places) in [
            (&[&b""[..]][..], &[][..]),
            (&[b"a", b"d"], &[1, 2, 4]),
            (&[b"", b"ce"], &[0, 1, 3]),
            (&[b"abcde", b"a"], &[]),
        ] {
            let mut noted = batch.clone();
            assert_eq!(chain(filters).intercept_noting(&mut noted), places, "{filters:?}");
            let mut plain = batch.clone();
            chain(filters).intercept(&mut plain);
            assert_eq!(noted, plain);
        }
    }
}
