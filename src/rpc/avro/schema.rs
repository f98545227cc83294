//! What a peer with another protocol text writes: its types, compiled to something that finds our fields in its bytes.
//!
//! As Avro's resolution has it, fields are found by name, others are skipped, and a value has to be of our type, or of
//! a union that holds it.

use std::collections::HashMap;
use std::ops::Range;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, UuidSchema};
use serde_json::{Value, json};
use thiserror::Error;

use super::datum::{DatumError, Reader};
use super::events::EventReader;

/// Values within values that a peer may write.
const MAX_DEPTH: usize = 32;

/// Why a peer's protocol text is of no use.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// It is longer than any protocol.
    #[error("the protocol has {0} bytes")]
    TooLong(usize),
    /// It is not JSON.
    #[error("the protocol is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It has no such member, or one of another kind.
    #[error("the protocol has no {0}")]
    Missing(&'static str),
    /// A type in it is wrong.
    #[error("the protocol's types are wrong: {0}")]
    Types(Box<apache_avro::Error>),
}

/// One type; others are named by their number.
#[derive(Debug)]
enum Node {
    Null,
    Boolean,
    /// `int`, `long` and enums.
    Long,
    /// Bytes of a length that the type says: numbers with a point, and `fixed`.
    Fixed(usize),
    /// `bytes` and `string`.
    Bytes,
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record(Vec<(String, usize)>),
}

/// The messages of a client, with the types of their parameters.
#[derive(Debug)]
pub struct ClientSchema {
    nodes: Vec<Node>,
    messages: HashMap<String, usize>,
}

impl ClientSchema {
    /// Reads a protocol's text.
    pub fn parse(protocol: &str) -> Result<Self, SchemaError> {
        let protocol: Value = serde_json::from_str(protocol)?;
        let namespace = protocol.get("namespace").and_then(Value::as_str).unwrap_or_default();
        let in_namespace = |mut schema: Value| {
            if let Some(schema) = schema.as_object_mut() {
                schema.entry("namespace").or_insert_with(|| namespace.into());
            }
            schema.to_string()
        };
        let types = protocol.get("types").and_then(Value::as_array).into_iter().flatten().cloned();
        let messages = protocol.get("messages").and_then(Value::as_object).ok_or(SchemaError::Missing("messages"))?;
        // A request is a record of its parameters.
        let requests = messages.iter().enumerate().map(|(number, (_, message))| {
            let fields = message.get("request").ok_or(SchemaError::Missing("request"))?;
            Ok(json!({ "type": "record", "name": format!("request_{number}"), "fields": fields }))
        });
        let requests = requests.collect::<Result<Vec<_>, SchemaError>>()?;
        let schemas = Schema::parse_list(types.chain(requests).map(in_namespace))
            .map_err(|error| SchemaError::Types(Box::new(error)))?;
        let mut compiler = Compiler::default();
        let numbers: Vec<usize> = schemas.iter().map(|schema| compiler.compile(schema)).collect();
        let first = numbers.len() - messages.len();
        let messages = messages.keys().cloned().zip(numbers[first..].iter().copied()).collect();
        Ok(Self { nodes: compiler.finish(), messages })
    }

    /// Whether the client knows a message.
    pub fn knows(&self, message: &str) -> bool {
        self.messages.contains_key(message)
    }

    /// Reads the one parameter of a message that matters here, wherever the client has put it, and calls `read` with
    /// its type.
    pub fn parameter<T>(
        &self,
        message: &str,
        name: &str,
        reader: &mut Reader<'_>,
        mut read: impl FnMut(Typed<'_>, &mut Reader<'_>) -> Result<T, DatumError>,
    ) -> Result<T, DatumError> {
        let request = self.messages.get(message).ok_or(DatumError::Type)?;
        let mut found = None;
        Typed { schema: self, node: *request }.fields(reader, |field, typed, reader| {
            if field == name {
                found = Some(read(typed, reader)?);
                return Ok(true);
            }
            Ok(false)
        })?;
        found.ok_or(DatumError::Type)
    }
}

/// A type of its own, to find where its values end.
#[derive(Debug)]
pub struct DatumSchema {
    types: ClientSchema,
    root: usize,
}

impl DatumSchema {
    /// Compiles a type.
    pub fn new(schema: &Schema) -> Self {
        let mut compiler = Compiler::default();
        let root = compiler.compile(schema);
        Self { types: ClientSchema { nodes: compiler.finish(), messages: HashMap::new() }, root }
    }

    /// Goes over one value.
    pub fn skip(&self, reader: &mut Reader<'_>) -> Result<(), DatumError> {
        Typed { schema: &self.types, node: self.root }.skip(reader, MAX_DEPTH)
    }
}

/// A value to come, of a type of a client.
#[derive(Clone, Copy)]
pub struct Typed<'a> {
    schema: &'a ClientSchema,
    node: usize,
}

impl<'a> Typed<'a> {
    /// The type, within whatever unions.
    fn resolve(self, reader: &mut Reader<'_>) -> Result<&'a Node, DatumError> {
        let mut node = &self.schema.nodes[self.node];
        for _ in 0..MAX_DEPTH {
            match node {
                Node::Union(branches) => node = &self.schema.nodes[branches[reader.index(branches.len())?]],
                other => return Ok(other),
            }
        }
        Err(DatumError::TooDeep)
    }

    /// Goes through the fields of a record. Those that `wanted` does not read are skipped.
    fn fields(
        self,
        reader: &mut Reader<'_>,
        mut wanted: impl FnMut(&str, Typed<'a>, &mut Reader<'_>) -> Result<bool, DatumError>,
    ) -> Result<(), DatumError> {
        let Node::Record(fields) = self.resolve(reader)? else { return Err(DatumError::Type) };
        for (name, node) in fields {
            let field = Typed { node: *node, ..self };
            if !wanted(name, field, reader)? {
                field.skip(reader, MAX_DEPTH)?;
            }
        }
        Ok(())
    }

    /// Reads a whole number.
    pub fn long(self, reader: &mut Reader<'_>) -> Result<i64, DatumError> {
        match self.resolve(reader)? {
            Node::Long => reader.long(),
            _ => Err(DatumError::Type),
        }
    }

    /// Finds bytes or a text.
    pub fn bytes(self, reader: &mut Reader<'_>) -> Result<Range<usize>, DatumError> {
        match self.resolve(reader)? {
            Node::Bytes => reader.bytes(),
            _ => Err(DatumError::Type),
        }
    }

    /// Finds a map of texts.
    fn text_map(self, reader: &mut Reader<'_>) -> Result<Range<usize>, DatumError> {
        match self.resolve(reader)? {
            Node::Map(values) if matches!(self.schema.nodes[*values], Node::Bytes) => {
                let start = reader.position();
                reader.skip_text_map()?;
                Ok(start..reader.position())
            }
            _ => Err(DatumError::Type),
        }
    }

    /// Reads an event.
    pub fn event(self, events: &mut EventReader, reader: &mut Reader<'_>) -> Result<(), DatumError> {
        let (mut headers, mut body) = (None, None);
        self.fields(reader, |field, typed, reader| {
            match field {
                "headers" => headers = Some(typed.text_map(reader)?),
                "body" => body = Some(typed.bytes(reader)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let (headers, body) = headers.zip(body).ok_or(DatumError::Type)?;
        events.push(reader, headers, body)
    }

    /// Reads an array of events.
    pub fn events(self, events: &mut EventReader, reader: &mut Reader<'_>) -> Result<(), DatumError> {
        let Node::Array(items) = self.resolve(reader)? else { return Err(DatumError::Type) };
        let item = Typed { node: *items, ..self };
        items_of(reader, |reader| item.event(events, reader))
    }

    fn skip(self, reader: &mut Reader<'_>, depth: usize) -> Result<(), DatumError> {
        let depth = depth.checked_sub(1).ok_or(DatumError::TooDeep)?;
        let of = |node: usize| Typed { node, ..self };
        match &self.schema.nodes[self.node] {
            Node::Null => Ok(()),
            Node::Boolean => reader.boolean().map(drop),
            Node::Long => reader.long().map(drop),
            Node::Fixed(len) => reader.take(*len).map(drop),
            Node::Bytes => reader.bytes().map(drop),
            Node::Array(items) => items_of(reader, |reader| of(*items).skip(reader, depth)),
            Node::Map(values) => items_of(reader, |reader| {
                reader.bytes()?;
                of(*values).skip(reader, depth)
            }),
            Node::Union(branches) => of(branches[reader.index(branches.len())?]).skip(reader, depth),
            Node::Record(fields) => fields.iter().try_for_each(|(_, field)| of(*field).skip(reader, depth)),
        }
    }
}

/// Reads the items of an array or map. A claim of many items that take no bytes is not believed.
fn items_of(
    reader: &mut Reader<'_>,
    mut item: impl FnMut(&mut Reader<'_>) -> Result<(), DatumError>,
) -> Result<(), DatumError> {
    loop {
        match reader.block()? {
            0 => return Ok(()),
            count if count > reader.remaining() as u64 => return Err(DatumError::Truncated),
            count => {
                for _ in 0..count {
                    let before = reader.position();
                    item(reader)?;
                    if reader.position() == before {
                        // Items without bytes: the others of the block are the same.
                        break;
                    }
                }
            }
        }
    }
}

#[derive(Default)]
struct Compiler {
    nodes: Vec<Node>,
    named: HashMap<String, usize>,
}

impl Compiler {
    /// The number of a named type. It is known from when it is first mentioned, whether or not it has come yet.
    fn number_of(&mut self, name: String) -> usize {
        *self.named.entry(name).or_insert_with(|| {
            self.nodes.push(Node::Null);
            self.nodes.len() - 1
        })
    }

    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn name(&mut self, name: &apache_avro::schema::Name, node: Node) -> usize {
        let number = self.number_of(name.fullname(None));
        self.nodes[number] = node;
        number
    }

    /// Leaves out the fields whose values take no bytes. Nobody here wants them, and with types of such types a few bytes
    /// could stand for more of them than can be skipped in a lifetime.
    fn finish(mut self) -> Vec<Node> {
        let mut takes_bytes = vec![false; self.nodes.len()];
        loop {
            let mut changed = false;
            for (number, node) in self.nodes.iter().enumerate() {
                let takes = match node {
                    Node::Null => false,
                    Node::Fixed(len) => *len > 0,
                    Node::Record(fields) => fields.iter().any(|(_, field)| takes_bytes[*field]),
                    _ => true,
                };
                changed |= takes != takes_bytes[number];
                takes_bytes[number] = takes;
            }
            if !changed {
                break;
            }
        }
        for node in &mut self.nodes {
            if let Node::Record(fields) = node {
                fields.retain(|(_, field)| takes_bytes[*field]);
            }
        }
        self.nodes
    }

    fn compile(&mut self, schema: &Schema) -> usize {
        let node = match schema {
            Schema::Null => Node::Null,
            Schema::Boolean => Node::Boolean,
            Schema::Int | Schema::Long | Schema::Date | Schema::TimeMillis | Schema::TimeMicros => Node::Long,
            Schema::TimestampMillis | Schema::TimestampMicros | Schema::TimestampNanos => Node::Long,
            Schema::LocalTimestampMillis | Schema::LocalTimestampMicros | Schema::LocalTimestampNanos => Node::Long,
            Schema::Float => Node::Fixed(4),
            Schema::Double => Node::Fixed(8),
            Schema::Bytes | Schema::String | Schema::BigDecimal => Node::Bytes,
            Schema::Uuid(UuidSchema::Bytes | UuidSchema::String) => Node::Bytes,
            Schema::Array(array) => Node::Array(self.compile(&array.items)),
            Schema::Map(map) => Node::Map(self.compile(&map.types)),
            Schema::Union(union) => Node::Union(union.variants().iter().map(|branch| self.compile(branch)).collect()),
            Schema::Enum(schema) => return self.name(&schema.name, Node::Long),
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                return self.name(&fixed.name, Node::Fixed(fixed.size));
            }
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Node::Bytes,
                InnerDecimalSchema::Fixed(fixed) => return self.name(&fixed.name, Node::Fixed(fixed.size)),
            },
            Schema::Record(record) => {
                let fields = record.fields.iter().map(|field| (field.name.clone(), self.compile(&field.schema)));
                let fields = fields.collect();
                return self.name(&record.name, Node::Record(fields));
            }
            Schema::Ref { name } => return self.number_of(name.fullname(None)),
        };
        self.add(node)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::datum::{put_bytes, put_long};
    use super::*;
    use crate::event::{Batch, Event};

    /// A client whose events have more fields, in another order, and whose request has another parameter first.
    const NEWER: &str = r#"{"protocol":"P","namespace":"n","types":[
        {"type":"enum","name":"Priority","symbols":["LOW","HIGH"]},
        {"type":"record","name":"AvroFlumeEvent","fields":[
            {"name":"priority","type":"Priority"},
            {"name":"body","type":["null","bytes"]},
            {"name":"extra","type":{"type":"array","items":["null","double",{"type":"map","values":"long"}]}},
            {"name":"headers","type":{"type":"map","values":{"type":"string","avro.java.string":"String"}}},
            {"name":"parent","type":["null","AvroFlumeEvent"]}]}],
        "messages":{"appendBatch":{"request":[{"name":"id","type":"long"},{"name":"events","type":{"type":"array","items":"AvroFlumeEvent"}}],"response":"null"}}}"#;

    fn read(schema: &ClientSchema, bytes: &[u8]) -> Result<Batch, DatumError> {
        let message = Bytes::copy_from_slice(bytes);
        let mut events = EventReader::new(&message);
        let mut reader = Reader::new(&message);
        schema.parameter("appendBatch", "events", &mut reader, |typed, reader| typed.events(&mut events, reader))?;
        Ok(events.finish())
    }

    fn newer_event(out: &mut Vec<u8>, body: &str, parent: bool) {
        put_long(out, 1);
        put_long(out, 1);
        put_bytes(out, body);
        // Two extras: a double and a map of one entry.
        put_long(out, 2);
        put_long(out, 1);
        out.extend_from_slice(&1.5f64.to_le_bytes());
        put_long(out, 2);
        put_long(out, 1);
        put_bytes(out, "k");
        put_long(out, 300);
        out.extend_from_slice(&[0, 0]);
        put_long(out, 1);
        put_bytes(out, "host");
        put_bytes(out, "web1");
        out.push(0);
        put_long(out, parent.into());
        if parent {
            newer_event(out, "parent", false);
        }
    }

    #[test]
    fn fields_are_found_by_name_and_others_are_skipped() {
        let schema = ClientSchema::parse(NEWER).expect("a protocol");
        let mut bytes = Vec::new();
        put_long(&mut bytes, 77);
        put_long(&mut bytes, 2);
        newer_event(&mut bytes, "one", true);
        newer_event(&mut bytes, "two", false);
        bytes.push(0);
        let expected: Batch = ["one", "two"].into_iter().map(|body| Event::new(body).with("host", "web1")).collect();
        assert_eq!(read(&schema, &bytes), Ok(expected));
        for end in 0..bytes.len() {
            assert!(read(&schema, &bytes[..end]).is_err(), "{end} bytes");
        }
    }

    #[test]
    fn a_body_that_is_none_is_an_error() {
        let text = NEWER.replace(r#"["null","bytes"]"#, r#""long""#);
        let schema = ClientSchema::parse(&text).expect("a protocol");
        let bytes = [0, 2, 0, 2, 0];
        assert_eq!(read(&schema, &bytes), Err(DatumError::Type));
    }

    #[test]
    fn items_without_bytes_are_not_counted_for_ever() {
        let text = NEWER.replace(r#"["null","double",{"type":"map","values":"long"}]"#, r#""null""#);
        let schema = ClientSchema::parse(&text).expect("a protocol");
        // An id, one event, its priority, its empty body, and more extras than there are bytes.
        let mut bytes = vec![0, 2, 0, 2, 0];
        put_long(&mut bytes, i64::MAX);
        assert_eq!(read(&schema, &bytes), Err(DatumError::Truncated));
    }

    #[test]
    fn a_type_within_itself_ends() {
        let schema = ClientSchema::parse(NEWER).expect("a protocol");
        let mut bytes = vec![0, 2];
        for _ in 0..100 {
            // Priority, no body, no extras, no headers, and a parent.
            bytes.extend_from_slice(&[0, 0, 0, 0, 2]);
        }
        assert!(read(&schema, &bytes).is_err());
    }

    #[test]
    fn types_without_bytes_take_no_time() {
        // Each type has the one before it twice: a tree of half a billion nulls, and not a byte of it in the message.
        let mut types = r#"{"type":"record","name":"T0","fields":[]},"#.to_owned();
        for n in 1..30 {
            let of = n - 1;
            let fields = format!(r#"[{{"name":"a","type":"T{of}"}},{{"name":"b","type":"T{of}"}}]"#);
            types += &format!(r#"{{"type":"record","name":"T{n}","fields":{fields}}},"#);
        }
        let text = NEWER.replace(r#""types":["#, &format!(r#""types":[{types}"#));
        let text = text.replace(r#"["null","double",{"type":"map","values":"long"}]"#, r#""T29""#);
        let schema = ClientSchema::parse(&text).expect("a protocol");
        let bytes = [0, 2, 0, 2, 0, 2, 0, 0, 0, 0];
        assert_eq!(read(&schema, &bytes).map(|batch| batch.len()), Ok(1));
    }

    #[test]
    fn texts_that_are_no_protocol() {
        assert!(matches!(ClientSchema::parse("x"), Err(SchemaError::Json(_))));
        assert!(matches!(ClientSchema::parse("{}"), Err(SchemaError::Missing("messages"))));
        let unknown = r#"{"messages":{"m":{"request":[{"name":"a","type":"nowhere"}]}}}"#;
        assert!(matches!(ClientSchema::parse(unknown), Err(SchemaError::Types(_))));
    }
}
