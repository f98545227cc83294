//! Java's own keystore format, JKS: named entries, and a digest that the password goes into.

use sha1::{Digest, Sha1};

use super::der::{self, OCTET_STRING, OID, SEQUENCE};
use super::store::StoreError;

/// How a JKS file begins.
pub const MAGIC: [u8; 4] = [0xFE, 0xED, 0xFE, 0xED];
const KEY_TAG: u32 = 1;
const TRUSTED_TAG: u32 = 2;
/// What Java puts between the password and the content when it makes the digest.
const WHITENER: &[u8] = b"Mighty Aphrodite";
/// Bytes of the digest at the end of a store.
pub const DIGEST_LENGTH: usize = 20;
/// 1.3.6.1.4.1.42.2.17.1.1, Sun's protection of keys.
const KEY_PROTECTION: &[u8] = &[0x2B, 6, 1, 4, 1, 0x2A, 2, 0x11, 1, 1];

/// An entry of a store.
pub struct Entry<'a> {
    /// What it is called.
    pub alias: String,
    /// What it holds.
    pub content: Content<'a>,
}

/// What an entry holds. Certificates are DER.
pub enum Content<'a> {
    /// A key that [`unseal`] opens, and its certificates, its own first.
    Key {
        /// The protected key.
        sealed: &'a [u8],
        /// Its certificates.
        chain: Vec<&'a [u8]>,
    },
    /// A certificate that is trusted.
    Trusted(&'a [u8]),
}

/// Reads a store. Without a password it is not checked whether somebody has changed it, as in Java.
pub fn read<'a>(data: &'a [u8], password: Option<&str>) -> Result<Vec<Entry<'a>>, StoreError> {
    let damaged = || StoreError::Damaged("it is not a whole JKS file".to_owned());
    let (body, digest) = data.split_last_chunk::<DIGEST_LENGTH>().ok_or_else(damaged)?;
    let entries = Reader(body).entries().ok_or_else(damaged)?;
    if password.is_some_and(|password| self::digest(password, body) != *digest) {
        return Err(StoreError::WrongPassword);
    }
    Ok(entries)
}

/// What stands at the end of a store with this password.
pub fn digest(password: &str, body: &[u8]) -> [u8; DIGEST_LENGTH] {
    Sha1::new().chain_update(utf16(password)).chain_update(WHITENER).chain_update(body).finalize().into()
}

/// Opens a key, which gives PKCS#8, when the password is its own.
pub fn unseal(mut sealed: &[u8], password: &str) -> Option<Vec<u8>> {
    let mut info = der::take(&mut sealed, SEQUENCE)?;
    let mut algorithm = der::take(&mut info, SEQUENCE)?;
    if der::take(&mut algorithm, OID)? != KEY_PROTECTION {
        return None;
    }
    let (salt, rest) = der::take(&mut info, OCTET_STRING)?.split_first_chunk::<DIGEST_LENGTH>()?;
    let (hidden, digest) = rest.split_last_chunk::<DIGEST_LENGTH>()?;
    let password = utf16(password);
    let hash = |text: &[u8]| -> [u8; DIGEST_LENGTH] {
        Sha1::new().chain_update(&password).chain_update(text).finalize().into()
    };
    let mut stream = *salt;
    let mut key = hidden.to_vec();
    for block in key.chunks_mut(DIGEST_LENGTH) {
        stream = hash(&stream);
        block.iter_mut().zip(stream).for_each(|(byte, mask)| *byte ^= mask);
    }
    (hash(&key) == *digest).then_some(key)
}

/// A password as it goes into digests: UTF-16, the high byte first.
fn utf16(password: &str) -> Vec<u8> {
    password.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// Reads what Java writes, from the front.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn entries(mut self) -> Option<Vec<Entry<'a>>> {
        if self.array()? != MAGIC {
            return None;
        }
        let version = self.u32()?;
        if !(1..=2).contains(&version) {
            return None;
        }
        // No room is made for what is only claimed: every entry takes bytes that must be there.
        let entries = (0..self.u32()?).map(|_| self.entry(version)).collect::<Option<_>>()?;
        self.0.is_empty().then_some(entries)
    }

    fn entry(&mut self, version: u32) -> Option<Entry<'a>> {
        let tag = self.u32()?;
        let alias = self.text()?;
        let _created: [u8; 8] = self.array()?;
        let content = match tag {
            KEY_TAG => {
                let sealed = self.sized()?;
                let chain = (0..self.u32()?).map(|_| self.certificate(version)).collect::<Option<_>>()?;
                Content::Key { sealed, chain }
            }
            TRUSTED_TAG => Content::Trusted(self.certificate(version)?),
            _ => return None,
        };
        Some(Entry { alias, content })
    }

    /// A certificate of a store of this version.
    pub fn certificate(&mut self, version: u32) -> Option<&'a [u8]> {
        if version == 2 {
            // The certificate's type; there is none but X.509.
            self.text()?;
        }
        self.sized()
    }

    /// A text behind its length, two bytes.
    pub fn text(&mut self) -> Option<String> {
        let length = self.u16()?;
        self.bytes(length).map(|text| String::from_utf8_lossy(text).into_owned())
    }

    /// Bytes behind their number, four bytes.
    pub fn sized(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?.try_into().ok()?;
        self.bytes(length)
    }

    /// So many bytes.
    pub fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// As many bytes as the array has.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    /// A number of two bytes.
    pub fn u16(&mut self) -> Option<usize> {
        self.array().map(u16::from_be_bytes).map(usize::from)
    }

    /// A number of four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
}
