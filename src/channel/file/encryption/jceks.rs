//! The secret keys of a JCEKS keystore, Java's container for them.
//!
//! It is laid out as [JKS](crate::tls::jks) is. A secret key in it is a serialized Java object that holds another one,
//! encrypted with a password (PBEWithMD5AndTripleDES); that one holds the key.

use std::rc::Rc;

use des::TdesEde3;
use des::cipher::block_padding::Pkcs7;
use des::cipher::{BlockModeDecrypt, KeyIvInit};
use md5::{Digest, Md5};

use crate::tls::der::{self, INTEGER, OCTET_STRING, SEQUENCE};
use crate::tls::jks::{self, Reader};

/// How a JCEKS file begins.
const MAGIC: [u8; 4] = [0xCE; 4];
const PRIVATE_KEY_TAG: u32 = 1;
const TRUSTED_TAG: u32 = 2;
const SECRET_KEY_TAG: u32 = 3;
const SALT: usize = 8;
/// Far more than any Java does, so that a damaged number takes no days.
const MAX_ITERATIONS: u64 = 10_000_000;

/// A secret key that [`unseal`] opens.
#[derive(Debug, PartialEq, Eq)]
pub struct Sealed {
    salt: [u8; SALT],
    iterations: u64,
    content: Vec<u8>,
}

/// What is wrong with a keystore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is no JCEKS file, or not a whole one.
    Damaged,
    /// The password is not its own, or the file was changed.
    WrongPassword,
}

/// The secret keys of a store by their aliases, which are in lower case.
pub fn read(data: &[u8], password: &str) -> Result<Vec<(String, Sealed)>, Fault> {
    let (body, digest) = data.split_last_chunk::<{ jks::DIGEST_LENGTH }>().ok_or(Fault::Damaged)?;
    if jks::digest(password, body) != *digest {
        return Err(if data.starts_with(&MAGIC) { Fault::WrongPassword } else { Fault::Damaged });
    }
    entries(body).ok_or(Fault::Damaged)
}

/// What [`read`] finds, whatever the digest says.
pub(super) fn entries(body: &[u8]) -> Option<Vec<(String, Sealed)>> {
    let mut reader = Reader(body);
    if reader.array()? != MAGIC {
        return None;
    }
    let version = reader.u32()?;
    let mut keys = Vec::new();
    for _ in 0..reader.u32()? {
        let tag = reader.u32()?;
        let alias = reader.text()?.to_lowercase();
        let _created: [u8; 8] = reader.array()?;
        match tag {
            PRIVATE_KEY_TAG => {
                reader.sized()?;
                for _ in 0..reader.u32()? {
                    reader.certificate(version)?;
                }
            }
            TRUSTED_TAG => drop(reader.certificate(version)?),
            SECRET_KEY_TAG => {
                let object = Stream::new(&mut reader)?.object()?;
                // One that is protected in another way is none that Flume made.
                keys.extend(sealed(&object).map(|sealed| (alias, sealed)));
            }
            _ => return None,
        }
    }
    Some(keys)
}

fn sealed(object: &Object) -> Option<Sealed> {
    if object.text("sealAlg")? != "PBEWithMD5AndTripleDES" {
        return None;
    }
    let mut parameters = object.bytes("encodedParams")?;
    let mut parameters = der::take(&mut parameters, SEQUENCE)?;
    let salt = der::take(&mut parameters, OCTET_STRING)?.try_into().ok()?;
    let iterations = der::take(&mut parameters, INTEGER)?;
    let iterations = iterations.iter().fold(0u64, |number, byte| number.wrapping_shl(8) | u64::from(*byte));
    Some(Sealed { salt, iterations, content: object.bytes("encryptedContent")?.to_vec() })
}

/// Opens a key, when the password is its own.
pub fn unseal(Sealed { salt, iterations, content }: &Sealed, password: &str) -> Option<Vec<u8>> {
    if *iterations > MAX_ITERATIONS {
        return None;
    }
    let mut derived = Vec::with_capacity(32);
    for half in salt.chunks(SALT / 2) {
        let mut hash = half.to_vec();
        for _ in 0..*iterations {
            hash = Md5::new().chain_update(&hash).chain_update(password).finalize().to_vec();
        }
        derived.extend(hash);
    }
    let (key, start) = derived.split_at_checked(24)?;
    let decryptor = cbc::Decryptor::<TdesEde3>::new_from_slices(key, start).ok()?;
    let mut content = content.clone();
    let plain = decryptor.decrypt_padded::<Pkcs7>(&mut content).ok()?;
    let key = Stream::new(&mut Reader(plain))?.object()?;
    // As a SecretKeySpec or a KeyRep.
    key.bytes("key").or_else(|| key.bytes("encoded")).map(<[u8]>::to_vec)
}

/// How deep objects may lie in each other.
const MAX_DEPTH: u8 = 8;

/// The little of Java's serialization that keys are written with.
struct Stream<'r, 'a> {
    reader: &'r mut Reader<'a>,
    /// What later parts of the stream refer to by its number.
    handles: Vec<Handle>,
    depth: u8,
}

#[derive(Clone)]
enum Handle {
    Class(Rc<Class>),
    Text(String),
    Other,
}

struct Class {
    flags: u8,
    /// Type and name.
    fields: Vec<(u8, String)>,
    parent: Option<Rc<Class>>,
}

struct Object(Vec<(String, Value)>);

enum Value {
    Text(String),
    Bytes(Vec<u8>),
    Other,
}

impl Object {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|(field, value)| match value {
            Value::Text(text) if field == name => Some(text.as_str()),
            _ => None,
        })
    }

    fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find_map(|(field, value)| match value {
            Value::Bytes(bytes) if field == name => Some(bytes.as_slice()),
            _ => None,
        })
    }
}

const START: [u8; 4] = [0xAC, 0xED, 0, 5];
const NULL: u8 = 0x70;
const REFERENCE: u8 = 0x71;
const CLASS: u8 = 0x72;
const OBJECT: u8 = 0x73;
const STRING: u8 = 0x74;
const ARRAY: u8 = 0x75;
const END: u8 = 0x78;
const ENUM: u8 = 0x7E;
const FIRST_HANDLE: u32 = 0x7E_0000;
/// A class that is serialized field by field, and nothing else.
const SERIALIZABLE: u8 = 2;
const IS_ENUM: u8 = 0x10;

impl<'r, 'a> Stream<'r, 'a> {
    fn new(reader: &'r mut Reader<'a>) -> Option<Self> {
        (reader.array()? == START).then_some(Self { reader, handles: Vec::new(), depth: 0 })
    }

    fn byte(&mut self) -> Option<u8> {
        self.reader.array().map(|[byte]| byte)
    }

    /// The object that the stream is.
    fn object(&mut self) -> Option<Object> {
        (self.byte()? == OBJECT).then(|| self.fields())?
    }

    /// An object behind its tag: what its classes say, the uppermost one first.
    fn fields(&mut self) -> Option<Object> {
        let class = self.class()?;
        self.handles.push(Handle::Other);
        let mut classes: Vec<_> = std::iter::successors(class.as_deref(), |class| class.parent.as_deref()).collect();
        let mut fields = Vec::new();
        while let Some(class) = classes.pop() {
            if class.flags != SERIALIZABLE {
                return None;
            }
            for (kind, name) in &class.fields {
                fields.push((name.clone(), self.value(*kind)?));
            }
        }
        Some(Object(fields))
    }

    fn class(&mut self) -> Option<Option<Rc<Class>>> {
        match self.byte()? {
            NULL => Some(None),
            REFERENCE => match self.referred()? {
                Handle::Class(class) => Some(Some(class)),
                _ => None,
            },
            CLASS => self.deeper(Self::new_class).map(Some),
            _ => None,
        }
    }

    fn new_class(&mut self) -> Option<Rc<Class>> {
        self.reader.text()?;
        let _version: [u8; 8] = self.reader.array()?;
        let number = self.handles.len();
        self.handles.push(Handle::Other);
        let flags = self.byte()?;
        let mut fields = Vec::new();
        for _ in 0..self.reader.u16()? {
            let kind = self.byte()?;
            let name = self.reader.text()?;
            if matches!(kind, b'[' | b'L') {
                self.text()?;
            }
            fields.push((kind, name));
        }
        if self.byte()? != END {
            return None;
        }
        let class = Rc::new(Class { flags, fields, parent: self.class()? });
        self.handles[number] = Handle::Class(Rc::clone(&class));
        Some(class)
    }

    fn text(&mut self) -> Option<String> {
        match self.any()? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn value(&mut self, kind: u8) -> Option<Value> {
        let width = match kind {
            b'[' | b'L' => return self.any(),
            b'B' | b'Z' => 1,
            b'C' | b'S' => 2,
            b'I' | b'F' => 4,
            b'J' | b'D' => 8,
            _ => return None,
        };
        self.reader.bytes(width).map(|_| Value::Other)
    }

    fn any(&mut self) -> Option<Value> {
        match self.byte()? {
            NULL => Some(Value::Other),
            REFERENCE => match self.referred()? {
                Handle::Text(text) => Some(Value::Text(text)),
                _ => Some(Value::Other),
            },
            STRING => {
                let text = self.reader.text()?;
                self.handles.push(Handle::Text(text.clone()));
                Some(Value::Text(text))
            }
            ARRAY => {
                self.class()?;
                self.handles.push(Handle::Other);
                self.reader.sized().map(|bytes| Value::Bytes(bytes.to_vec()))
            }
            OBJECT => self.deeper(Self::fields).map(|_| Value::Other),
            ENUM => {
                self.class()?.filter(|class| class.flags & IS_ENUM != 0)?;
                self.handles.push(Handle::Other);
                self.deeper(Self::text).map(Value::Text)
            }
            _ => None,
        }
    }

    fn referred(&mut self) -> Option<Handle> {
        let number = self.reader.u32()?.checked_sub(FIRST_HANDLE)?;
        self.handles.get(number as usize).cloned()
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.depth == MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let outcome = read(self);
        self.depth -= 1;
        outcome
    }
}
