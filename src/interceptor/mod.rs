//! Interceptors: what happens to events between a source and its channels.
//!
//! An interceptor works in place on the whole batch. A chain is made when the source is; a source without
//! interceptors has an empty one, which costs nothing.

mod r#static;
mod timestamp;

use crate::config::{ComponentType, Props};
use crate::event::Batch;

/// Changes, adds or removes events or their headers.
pub trait Interceptor: Send + Sync {
    /// Works on one batch. Events that it removes are not passed on, and still count as accepted.
    fn intercept(&self, batch: &mut Batch);
}

/// Reads an interceptor's configuration; `None` when it has errors, which the properties have noted.
pub type InterceptorBuilder = fn(&mut Props<'_>, prefix: &str) -> Option<Box<dyn Interceptor>>;

/// All interceptor types that the agent has.
pub const TYPES: &[ComponentType<InterceptorBuilder>] = &[timestamp::TYPE, r#static::TYPE];

/// Flume's interceptors that this version does not have.
const OTHERS: &[&str] = &["host", "remove_header", "regex_filter", "regex_extractor", "search_replace"];

/// The interceptors of a source, in their order.
#[derive(Default)]
pub struct Chain(Vec<Box<dyn Interceptor>>);

impl Chain {
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
                None if is_flumes(text) => {
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
        complete.then_some(Self(chain))
    }

    /// Sends a batch through all of them.
    pub fn intercept(&self, batch: &mut Batch) {
        for interceptor in &self.0 {
            interceptor.intercept(batch);
        }
    }
}

fn is_flumes(text: &str) -> bool {
    OTHERS.iter().any(|other| other.eq_ignore_ascii_case(text)) || text.starts_with("org.apache.flume.")
}
