//! Events and batches: what moves through an agent.
//!
//! An event is a set of text headers and a body of bytes. Everything moves in [`Batch`]es, which own the bytes;
//! [`EventRef`] is a view of one event in a batch, and [`Event`] an owned one, for building and for tests.

mod batch;
mod headers;

pub use batch::{Batch, BufferId, EventRef, HeadersId, NO_HEADERS};
pub use headers::Headers;

use bytes::Bytes;

/// One event that owns its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The headers, in the order in which they were set.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
}

impl Event {
    /// An event without headers.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self { headers: Headers::default(), body: body.into() }
    }

    /// The same event with one more header.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.headers.set(key, value);
        self
    }
}
