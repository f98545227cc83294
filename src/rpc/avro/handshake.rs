//! Avro's handshake: how client and server agree on what they speak.

use bytes::Bytes;

use super::datum::{DatumError, Reader, put_bytes, put_long};

/// The MD5 of a protocol's text.
pub type Hash = [u8; 16];

/// What the client says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeRequest {
    /// What the client speaks.
    pub client_hash: Hash,
    /// Its text, when the server is thought not to know it.
    pub client_protocol: Option<String>,
    /// What the client believes the server to speak.
    pub server_hash: Hash,
}

impl HandshakeRequest {
    /// Reads it from the start of a message.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DatumError> {
        let client_hash = hash(reader)?;
        let client_protocol = optional(reader, |reader| Ok(reader.string()?.into_owned()))?;
        let server_hash = hash(reader)?;
        optional(reader, Reader::skip_text_map)?;
        Ok(Self { client_hash, client_protocol, server_hash })
    }

    /// Writes it as Java does, with metadata that is an empty map.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.client_hash);
        put_optional(out, self.client_protocol.as_deref(), put_bytes);
        out.extend_from_slice(&self.server_hash);
        put_optional(out, Some(()), |out, ()| out.push(0));
    }
}

/// How well client and server know each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// They do.
    Both,
    /// The server knows the client, which takes the server for another.
    Client,
    /// The server does not know the client: it needs the text, and the call was not executed.
    None,
}

/// What the server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeResponse {
    /// How they match.
    pub matched: Match,
    /// The server's text and hash, unless the client knows them.
    pub server: Option<(String, Hash)>,
}

impl HandshakeResponse {
    /// Reads it from the start of an answer.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DatumError> {
        let matched = [Match::Both, Match::Client, Match::None][reader.index(3)?];
        let protocol = optional(reader, |reader| Ok(reader.string()?.into_owned()))?;
        let server_hash = optional(reader, hash)?;
        optional(reader, Reader::skip_text_map)?;
        Ok(Self { matched, server: protocol.zip(server_hash) })
    }

    /// Writes it as Java does, without metadata.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_long(out, self.matched as i64);
        put_optional(out, self.server.as_ref(), |out, (text, _)| put_bytes(out, text));
        put_optional(out, self.server.as_ref(), |out, (_, hash)| out.extend_from_slice(hash));
        put_optional(out, None::<()>, |_, ()| {});
    }
}

fn hash(reader: &mut Reader<'_>) -> Result<Hash, DatumError> {
    let range = reader.take(size_of::<Hash>())?;
    Ok(reader.slice(range).try_into().unwrap_or_default())
}

/// A union of null and something.
fn optional<'a, T>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, DatumError>,
) -> Result<Option<T>, DatumError> {
    match reader.index(2)? {
        0 => Ok(None),
        _ => read(reader).map(Some),
    }
}

fn put_optional<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    put_long(out, i64::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

/// Reads the metadata of a call, which nobody here uses.
pub fn skip_metadata(reader: &mut Reader<'_>) -> Result<(), DatumError> {
    reader.skip_text_map()
}

/// A whole answer's result or error, behind the handshake.
pub enum Outcome {
    /// The result's datum.
    Result(Bytes),
    /// What went wrong at the server, in its words.
    Error(String),
}

impl Outcome {
    /// Reads metadata, flag and error; the result stays as it is.
    pub fn read(message: &Bytes, reader: &mut Reader<'_>) -> Result<Self, DatumError> {
        skip_metadata(reader)?;
        if !reader.boolean()? {
            return Ok(Self::Result(message.slice(reader.position()..)));
        }
        // The protocols here declare no errors: the union has the text alone.
        reader.index(1)?;
        Ok(Self::Error(reader.string()?.into_owned()))
    }
}

/// An error as a result: branch and text.
pub fn put_error(out: &mut Vec<u8>, text: &str) {
    put_long(out, 0);
    put_bytes(out, text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(client_hash: Hash, server_hash: Hash, client_protocol: Option<String>, server: Option<String>, matched in 0usize..3) {
            let request = HandshakeRequest { client_hash, client_protocol, server_hash };
            let mut bytes = Vec::new();
            request.put(&mut bytes);
            prop_assert_eq!(HandshakeRequest::read(&mut Reader::new(&bytes)), Ok(request));

            let matched = [Match::Both, Match::Client, Match::None][matched];
            let response = HandshakeResponse { matched, server: server.map(|text| (text, server_hash)) };
            bytes.clear();
            response.put(&mut bytes);
            prop_assert_eq!(HandshakeResponse::read(&mut Reader::new(&bytes)), Ok(response));
        }

        #[test]
        fn any_bytes_are_a_handshake_or_an_error(bytes: Vec<u8>) {
            HandshakeRequest::read(&mut Reader::new(&bytes)).ok();
            HandshakeResponse::read(&mut Reader::new(&bytes)).ok();
        }
    }
}
