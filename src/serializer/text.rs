//! The text serializers: `text` is the body and a line feed; `header_and_text` has the headers as a Java map and a
//! blank before it.
//!
//! Key: `appendNewline` (true).

use std::io::{self, Write as _};

use super::{EventSerializer, SerializerBuilder, SerializerConfig};
use crate::config::{ComponentType, Props};
use crate::event::Batch;

/// How the types are registered.
pub const TEXT: ComponentType<SerializerBuilder> = ComponentType {
    aliases: &["text"],
    class: "org.apache.flume.serialization.BodyTextEventSerializer$Builder",
    build: |props, prefix| Some(Box::new(Text::from_props(props, prefix, false))),
};

/// See [`TEXT`].
pub const HEADER_AND_TEXT: ComponentType<SerializerBuilder> = ComponentType {
    aliases: &["header_and_text"],
    class: "org.apache.flume.serialization.HeaderAndBodyTextEventSerializer$Builder",
    build: |props, prefix| Some(Box::new(Text::from_props(props, prefix, true))),
};

#[derive(Clone, Copy)]
struct Text {
    headers: bool,
    append_newline: bool,
}

impl Text {
    fn from_props(props: &mut Props<'_>, prefix: &str, headers: bool) -> Self {
        Self { headers, append_newline: props.or(&format!("{prefix}.appendNewline"), true) }
    }
}

impl SerializerConfig for Text {
    fn build(&self) -> Box<dyn EventSerializer> {
        Box::new(*self)
    }
}

impl EventSerializer for Text {
    fn write(&mut self, batch: &Batch, out: &mut Vec<u8>) -> io::Result<()> {
        out.reserve(batch.body_bytes() + batch.len());
        for event in batch.iter() {
            if self.headers {
                write!(out, "{} ", event.headers())?;
            }
            out.extend_from_slice(event.body());
            if self.append_newline {
                out.push(b'\n');
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn written(headers: bool, append_newline: bool) -> String {
        let batch = Batch::from_iter([Event::new("hello\r").with("zz", "v1").with("b", "v2"), Event::new("")]);
        let mut out = Vec::new();
        Text { headers, append_newline }.write(&batch, &mut out).expect("written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn as_flume_writes_them() {
        assert_eq!(written(false, true), "hello\r\n\n");
        assert_eq!(written(false, false), "hello\r");
        assert_eq!(written(true, true), "{zz=v1, b=v2} hello\r\n{} \n");
    }
}
