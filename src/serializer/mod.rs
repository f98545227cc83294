//! Event serializers: how events become the bytes of a file. Shared by all sinks that write files.

mod avro_event;
mod text;

use std::io;

pub use avro_event::container as avro_container;

use crate::config::{ComponentType, Props, resolve_type};
use crate::event::Batch;

/// A serializer's configuration.
pub trait SerializerConfig: Send + Sync {
    /// Makes a serializer for one new file.
    fn build(&self) -> Box<dyn EventSerializer>;
}

/// Writes the events of one file.
pub trait EventSerializer: Send {
    /// What stands at the front of the file.
    fn begin(&mut self, _out: &mut Vec<u8>) -> io::Result<()> {
        Ok(())
    }
    /// A batch; the file can be read up to here afterwards.
    fn write(&mut self, batch: &Batch, out: &mut Vec<u8>) -> io::Result<()>;
}

/// Reads a serializer's configuration from the keys below a prefix; `None` when it has errors.
pub type SerializerBuilder = fn(&mut Props<'_>, prefix: &str) -> Option<Box<dyn SerializerConfig>>;

/// All serializer types that the agent has.
pub const TYPES: &[ComponentType<SerializerBuilder>] = &[text::TEXT, text::HEADER_AND_TEXT, avro_event::TYPE];

/// Reads the type at `prefix` (default TEXT) and the keys below it.
pub fn from_props(props: &mut Props<'_>, prefix: &str) -> Option<Box<dyn SerializerConfig>> {
    let text = props.text(prefix).unwrap_or("TEXT");
    match resolve_type(TYPES, text) {
        Some(found) => (found.build)(props, prefix),
        None => {
            props.family(prefix);
            let known: Vec<&str> = TYPES.iter().flat_map(|known| known.aliases).copied().collect();
            props.error_nearest(prefix, &format!("a serializer: {}", known.join(", ")), &known);
            None
        }
    }
}
