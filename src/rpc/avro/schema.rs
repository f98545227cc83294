//! What a peer with another protocol text writes: its types, compiled to something that finds our fields in its bytes.
//!
//! As Avro's resolution has it, fields are found by name, others are skipped, and a value has to be of our type, or of
//! a union that holds it. Only what says how many bytes a value takes is read of the types: not their defaults, aliases
//! and logical types, whose meaning a general library works out at a price that a stranger would set.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::{Map, Value};
use thiserror::Error;

use super::datum::{DatumError, Reader};
use super::events::EventReader;

/// Values within values that a peer may write.
const MAX_DEPTH: usize = 32;
/// How often a protocol may mention a type. Flume's does ten times.
const MAX_TYPES: usize = 4096;

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
    /// It mentions more types than any protocol.
    #[error("the protocol has more than {MAX_TYPES} types")]
    TooManyTypes,
    /// A type that is none, or lacks what its kind must have.
    #[error("the protocol has a type whose {0} is missing or wrong")]
    Type(&'static str),
    /// A name that stands for no type.
    #[error("the protocol has no type {0}")]
    Unknown(String),
    /// A name that stands for two types.
    #[error("the protocol has more than one type {0}")]
    Twice(String),
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
        // The reader gives up at 128 levels, so that nothing below has to.
        let protocol: Value = serde_json::from_str(protocol)?;
        let namespace = protocol.get("namespace").and_then(Value::as_str).unwrap_or_default();
        let mut compiler = Compiler::default();
        for schema in protocol.get("types").and_then(Value::as_array).into_iter().flatten() {
            compiler.compile(schema, namespace)?;
        }
        let messages = protocol.get("messages").and_then(Value::as_object).ok_or(SchemaError::Missing("messages"))?;
        let requests = messages.iter().map(|(name, message)| {
            let parameters = message.get("request").ok_or(SchemaError::Missing("request"))?;
            // A request is a record of its parameters.
            let fields = compiler.fields(parameters, namespace)?;
            Ok((name.clone(), compiler.add(Node::Record(fields))))
        });
        let messages = requests.collect::<Result<_, SchemaError>>()?;
        Ok(Self { nodes: compiler.finish()?, messages })
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
    /// Reads a schema's text.
    pub fn parse(schema: &str) -> Result<Self, SchemaError> {
        let mut compiler = Compiler::default();
        let root = compiler.compile(&serde_json::from_str(schema)?, "")?;
        Ok(Self { types: ClientSchema { nodes: compiler.finish()?, messages: HashMap::new() }, root })
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
    /// The numbers of named types, and whether they have come yet: they are known from when they are first mentioned.
    named: HashMap<String, (usize, bool)>,
    mentioned: usize,
}

impl Compiler {
    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn named(&mut self, name: String) -> &mut (usize, bool) {
        let nodes = &mut self.nodes;
        self.named.entry(name).or_insert_with(|| {
            nodes.push(Node::Null);
            (nodes.len() - 1, false)
        })
    }

    fn define(&mut self, name: String, node: Node) -> Result<usize, SchemaError> {
        let (number, defined) = self.named(name.clone());
        if std::mem::replace(defined, true) {
            return Err(SchemaError::Twice(name));
        }
        let number = *number;
        self.nodes[number] = node;
        Ok(number)
    }

    /// The number of a type that is mentioned within a namespace.
    fn compile(&mut self, schema: &Value, namespace: &str) -> Result<usize, SchemaError> {
        self.mentioned += 1;
        if self.mentioned > MAX_TYPES {
            return Err(SchemaError::TooManyTypes);
        }
        match schema {
            Value::String(name) => Ok(match primitive(name) {
                Some(node) => self.add(node),
                None => self.named(full_name(name, namespace)).0,
            }),
            Value::Array(branches) => {
                let branches =
                    branches.iter().map(|branch| self.compile(branch, namespace)).collect::<Result<_, _>>()?;
                Ok(self.add(Node::Union(branches)))
            }
            Value::Object(schema) => self.compile_object(schema, namespace),
            _ => Err(SchemaError::Type("type")),
        }
    }

    fn compile_object(&mut self, schema: &Map<String, Value>, namespace: &str) -> Result<usize, SchemaError> {
        let member = |name: &'static str| schema.get(name).ok_or(SchemaError::Type(name));
        let kind = member("type")?;
        match kind.as_str() {
            Some("array") => {
                let items = self.compile(member("items")?, namespace)?;
                Ok(self.add(Node::Array(items)))
            }
            Some("map") => {
                let values = self.compile(member("values")?, namespace)?;
                Ok(self.add(Node::Map(values)))
            }
            Some("record" | "error" | "enum" | "fixed") => {
                let name = member("name")?.as_str().ok_or(SchemaError::Type("name"))?;
                let name = full_name(name, schema.get("namespace").and_then(Value::as_str).unwrap_or(namespace));
                let node = match kind.as_str() {
                    Some("enum") => Node::Long,
                    Some("fixed") => {
                        let size = member("size")?.as_u64().and_then(|size| usize::try_from(size).ok());
                        Node::Fixed(size.ok_or(SchemaError::Type("size"))?)
                    }
                    _ => {
                        let namespace = name.rsplit_once('.').map_or("", |(namespace, _)| namespace);
                        Node::Record(self.fields(member("fields")?, namespace)?)
                    }
                };
                self.define(name, node)
            }
            // A type with attributes of its own.
            _ => self.compile(kind, namespace),
        }
    }

    fn fields(&mut self, fields: &Value, namespace: &str) -> Result<Vec<(String, usize)>, SchemaError> {
        let fields = fields.as_array().ok_or(SchemaError::Type("fields"))?.iter().map(|field| {
            let name = field.get("name").and_then(Value::as_str).ok_or(SchemaError::Type("name"))?;
            let schema = field.get("type").ok_or(SchemaError::Type("type"))?;
            Ok((name.to_owned(), self.compile(schema, namespace)?))
        });
        fields.collect()
    }

    /// Leaves out the fields whose values take no bytes. Nobody here wants them, and with types of such types a few bytes
    /// could stand for more of them than can be skipped in a lifetime.
    fn finish(mut self) -> Result<Vec<Node>, SchemaError> {
        if let Some((name, _)) = self.named.into_iter().find(|(_, (_, defined))| !defined) {
            return Err(SchemaError::Unknown(name));
        }
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
        Ok(self.nodes)
    }
}

fn primitive(name: &str) -> Option<Node> {
    Some(match name {
        "null" => Node::Null,
        "boolean" => Node::Boolean,
        "int" | "long" => Node::Long,
        "float" => Node::Fixed(4),
        "double" => Node::Fixed(8),
        "bytes" | "string" => Node::Bytes,
        _ => return None,
    })
}

/// A name without dots is one of the namespace that it stands in.
fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
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
        let mut events = EventReader::new(&message, 100);
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
        let requests = |parameter: &str| format!(r#"{{"messages":{{"m":{{"request":[{parameter}]}}}}}}"#);
        for (parameter, error) in [
            (r#"{"name":"a","type":"nowhere"}"#, "the protocol has no type nowhere"),
            (r#"{"name":"a"}"#, "the protocol has a type whose type is missing or wrong"),
            (r#"{"name":"a","type":{"type":"fixed","name":"F","size":-1}}"#, "whose size is missing or wrong"),
            (r#"{"name":"a","type":{"type":"record","name":"R"}}"#, "whose fields is missing or wrong"),
            (
                r#"{"name":"a","type":{"type":"enum","name":"n.E"}},{"name":"b","type":{"type":"enum","name":"n.E"}}"#,
                "more than one type n.E",
            ),
        ] {
            let refused = ClientSchema::parse(&requests(parameter)).expect_err(parameter).to_string();
            assert!(refused.contains(error), "{refused}");
        }
    }

    #[test]
    fn names_are_those_of_their_namespaces() {
        // The first Inner is n.Inner, the second m.Inner, and the third is named in full from within another namespace.
        let text = r#"{"namespace":"n","types":[
            {"type":"fixed","name":"Inner","size":1},
            {"type":"record","name":"m.Outer","fields":[
                {"name":"own","type":{"type":"fixed","name":"Inner","size":2}},
                {"name":"again","type":"Inner"},
                {"name":"other","type":"n.Inner"}]}],
            "messages":{"appendBatch":{"request":[
                {"name":"outer","type":"m.Outer"},{"name":"inner","type":"Inner"},{"name":"n","type":"long"}]}}}"#;
        let schema = ClientSchema::parse(text).expect("a protocol");
        let mut reader = Reader::new(&[2, 2, 2, 2, 1, 1, 8]);
        assert_eq!(schema.parameter("appendBatch", "n", &mut reader, |typed, reader| typed.long(reader)), Ok(4));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn texts_that_are_made_to_do_harm() {
        let with = |types: &str, parameter: &str| {
            format!(
                r#"{{"types":[{types}],"messages":{{"append":{{"request":[{{"name":"event","type":{parameter}}}]}}}}}}"#
            )
        };
        let record = |name: &str, fields: &str| format!(r#"{{"type":"record","name":"{name}","fields":[{fields}]}}"#);
        // Defaults that need each other.
        let r = record(
            "R",
            r#"{"name":"a","type":[{"type":"record","name":"S","fields":[{"name":"b","type":"R","default":{}}]},
            {"type":"map","values":"int"}],"default":{}}"#,
        );
        assert!(ClientSchema::parse(&with(&r, r#""R""#)).is_ok());
        // Each default twice that of the type before: more of them than a computer can go through.
        let mut types = record("T0", r#"{"name":"a","type":"int","default":0}"#);
        for n in 1..60 {
            let of = n - 1;
            let field = |name| format!(r#"{{"name":"{name}","type":"T{of}","default":{{}}}}"#);
            types += &format!(",{}", record(&format!("T{n}"), &format!("{},{}", field("a"), field("b"))));
        }
        assert!(ClientSchema::parse(&with(&types, r#""T59""#)).is_ok());
        // A name around a type that has one.
        let named_twice = format!(r#"{{"name":"X","type":{}}}"#, record("Y", ""));
        assert!(ClientSchema::parse(&with("", &named_twice)).is_ok());
        // Many aliases, many types, and types in types.
        let aliases = vec![r#""a""#; 10_000].join(",");
        let aliased = format!(r#"{{"type":"record","name":"A","aliases":[{aliases}],"fields":[]}}"#);
        assert!(ClientSchema::parse(&with(&aliased, r#""A""#)).is_ok());
        let union = format!("[{}]", vec![r#""int""#; MAX_TYPES].join(","));
        assert!(matches!(ClientSchema::parse(&with("", &union)), Err(SchemaError::TooManyTypes)));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(ClientSchema::parse(&with("", &deep)), Err(SchemaError::Json(_))));
    }
}
