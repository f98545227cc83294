//! Keystores and truststores: JKS, PKCS12 and PEM files. What a file is, its first bytes say: a keytool writes PKCS12
//! into files called `.jks`, and `keystore-type` is left over from when it did not.

use std::fs::File;
use std::io::{self, Read};

use p12_keystore::{KeyStore, KeyStoreEntry, Pkcs12ImportPolicy};
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;

use super::der::SEQUENCE;
use super::jks;
use crate::java;

/// A store of all the CAs that there are is less than one MiB.
const MAX_BYTES: u64 = 8 << 20;
const JCEKS_MAGIC: [u8; 4] = [0xCE; 4];

/// What is wrong with a keystore or truststore.
#[derive(Debug, Error)]
pub enum StoreError {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// It is a directory, a device or the like.
    #[error("not a file")]
    NotAFile,
    /// It is longer than any store should be.
    #[error("longer than {} MiB", MAX_BYTES >> 20)]
    TooLong,
    /// It is none of the formats.
    #[error("neither JKS nor PKCS12 nor PEM")]
    UnknownFormat,
    /// It is JCEKS, which only Java reads.
    #[error("a JCEKS store; keytool -importkeystore -srcstoretype JCEKS -deststoretype PKCS12 makes PKCS12 of it")]
    Jceks,
    /// The password is not its own.
    #[error("the password is wrong, or the file was changed without it")]
    WrongPassword,
    /// It begins as it should, but cannot be read to its end.
    #[error("damaged: {0}")]
    Damaged(String),
    /// It is protected in a way that is not known.
    #[error("protected with an algorithm that is not supported")]
    UnknownProtection,
    /// The key in a PEM file is encrypted.
    #[error("its private key is encrypted; in a PEM file it must not be (openssl pkey decrypts it)")]
    EncryptedPem,
}

/// The content of a store.
#[derive(Debug, Default)]
pub struct Store {
    /// Its keys, in the order in which Java tries them.
    pub keys: Vec<Key>,
    /// The certificates that it trusts: those that stand alone, and the own certificate of each key.
    pub trusted: Vec<CertificateDer<'static>>,
}

/// A private key with its certificates.
#[derive(Debug)]
pub struct Key {
    /// What the store calls it.
    pub alias: String,
    /// Its certificates, its own first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key, unless the store's password does not open it.
    pub key: Option<PrivateKeyDer<'static>>,
}

/// A store that is read but not opened.
#[derive(Debug)]
pub struct Sealed {
    bytes: Vec<u8>,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Jks,
    Pkcs12,
    Pem,
}

impl Sealed {
    /// Reads a store's file and finds out its format.
    pub fn read(path: &str) -> Result<Self, StoreError> {
        // Asked before it is opened, since opening a pipe would wait for its other end.
        if !std::fs::metadata(path)?.is_file() {
            return Err(StoreError::NotAFile);
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(StoreError::TooLong);
        }
        Self::new(bytes)
    }

    fn new(bytes: Vec<u8>) -> Result<Self, StoreError> {
        let format = match bytes.as_slice() {
            start if start.starts_with(&jks::MAGIC) => Format::Jks,
            start if start.starts_with(&JCEKS_MAGIC) => return Err(StoreError::Jceks),
            start if start.starts_with(&[SEQUENCE]) => Format::Pkcs12,
            text if memchr::memmem::find(text, b"-----BEGIN ").is_some() => Format::Pem,
            _ => return Err(StoreError::UnknownFormat),
        };
        Ok(Self { bytes, format })
    }

    /// Whether keys in it are protected by a password.
    pub fn has_password(&self) -> bool {
        self.format != Format::Pem
    }

    /// Opens it. Without a password, only a PKCS12 store that was written without one opens.
    pub fn open(&self, password: Option<&str>) -> Result<Store, StoreError> {
        let mut store = match self.format {
            Format::Jks => open_jks(&self.bytes, password),
            Format::Pkcs12 => open_pkcs12(&self.bytes, password.unwrap_or_default()),
            Format::Pem => open_pem(&self.bytes),
        }?;
        let keys = std::mem::take(&mut store.keys);
        let aliases: Vec<String> = keys.iter().map(|key| key.alias.to_lowercase()).collect();
        let named = aliases.iter().map(String::as_str).zip(keys);
        store.keys = java::hash_map_order(named).into_iter().map(|(_, key)| key).collect();
        Ok(store)
    }
}

fn owned(certificate: &[u8]) -> CertificateDer<'static> {
    certificate.to_vec().into()
}

fn open_jks(bytes: &[u8], password: Option<&str>) -> Result<Store, StoreError> {
    let mut store = Store::default();
    for entry in jks::read(bytes, password)? {
        match entry.content {
            jks::Content::Trusted(certificate) => store.trusted.push(owned(certificate)),
            jks::Content::Key { sealed, chain } => {
                store.trusted.extend(chain.first().map(|own| owned(own)));
                let key = password.and_then(|password| jks::unseal(sealed, password));
                store.keys.push(Key {
                    alias: entry.alias,
                    chain: chain.into_iter().map(owned).collect(),
                    key: key.map(|pkcs8| PrivatePkcs8KeyDer::from(pkcs8).into()),
                });
            }
        }
    }
    Ok(store)
}

fn open_pkcs12(bytes: &[u8], password: &str) -> Result<Store, StoreError> {
    use p12_keystore::error::Error;

    let entries = KeyStore::from_pkcs12(bytes, password, Pkcs12ImportPolicy::Strict).map_err(|error| match error {
        // Where there is no digest to tell a wrong password, what is decrypted with it makes no sense.
        Error::MacError(_) | Error::UnpadError | Error::Pkcs5Error(_) => StoreError::WrongPassword,
        Error::UnsupportedEncryptionScheme | Error::UnsupportedMacAlgorithm => StoreError::UnknownProtection,
        error => StoreError::Damaged(error.to_string()),
    })?;
    let mut store = Store::default();
    for (alias, entry) in entries.entries() {
        match entry {
            KeyStoreEntry::Certificate(certificate) => store.trusted.push(owned(certificate.as_der())),
            KeyStoreEntry::PrivateKeyChain(chain) => {
                let certificates: Vec<_> = chain.certs().iter().map(|one| owned(one.as_der())).collect();
                store.trusted.extend(certificates.first().cloned());
                store.keys.push(Key {
                    alias: alias.clone(),
                    chain: certificates,
                    key: Some(PrivatePkcs8KeyDer::from(chain.key().as_der().to_vec()).into()),
                });
            }
            KeyStoreEntry::Secret(_) => {}
        }
    }
    Ok(store)
}

/// All certificates of a PEM file are trusted where it is a truststore, and are the key's where it is a keystore.
fn open_pem(bytes: &[u8]) -> Result<Store, StoreError> {
    let mut store = Store::default();
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        let (kind, der) = section.map_err(|error| StoreError::Damaged(error.to_string()))?;
        match kind {
            SectionKind::Certificate => store.trusted.push(der.into()),
            kind => keys.extend(PrivateKeyDer::from_pem(kind, der)),
        }
    }
    let has = |text: &str| memchr::memmem::find(bytes, text.as_bytes()).is_some();
    if has("-----BEGIN ENCRYPTED PRIVATE KEY-----") || has("Proc-Type: 4,ENCRYPTED") {
        return Err(StoreError::EncryptedPem);
    }
    let key = |(number, key)| Key { alias: format!("key {number}"), chain: store.trusted.clone(), key: Some(key) };
    store.keys = (1..).zip(keys).map(key).collect();
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(file: &str) -> Vec<u8> {
        std::fs::read(path(file)).expect(file)
    }

    fn path(file: &str) -> String {
        format!("{}/tests/tls/{file}", env!("CARGO_MANIFEST_DIR"))
    }

    fn open(file: &str, password: &str) -> Result<Store, StoreError> {
        Sealed::read(&path(file))?.open(Some(password))
    }

    #[test]
    fn every_format_gives_the_same_key_and_certificate() {
        let open = |file: &str| open(file, "changeit").expect(file);
        let rsa = open("rsa.jks");
        let key = |store: &Store| store.keys[0].key.as_ref().map(|key| key.secret_der().to_vec());
        for file in ["rsa.p12", "rsa-legacy.p12", "rsa-openssl.p12", "rsa.pem"] {
            let store = open(file);
            assert_eq!(store.keys[0].chain, rsa.keys[0].chain, "{file}");
            assert_eq!(key(&store), key(&rsa), "{file}");
        }
        let trusted = open("trust.jks").trusted;
        assert_eq!(trusted.len(), 2);
        for file in ["trust.p12", "trust-legacy.p12", "trust.pem"] {
            assert!(trusted.iter().all(|one| open(file).trusted.contains(one)), "{file}");
        }
        assert_eq!(open("chain.p12").keys[0].chain.len(), 2);
    }

    #[test]
    fn keys_come_in_javas_order() {
        let aliases = |keys: Vec<Key>| keys.into_iter().map(|key| key.alias).collect::<Vec<_>>();
        // As a HashMap has them: by hash code, not by name.
        assert_eq!(aliases(open("mixed.jks", "changeit").expect("readable").keys), ["server", "first"]);
    }

    #[test]
    fn says_what_is_wrong() {
        for file in ["rsa.jks", "rsa.p12", "rsa-legacy.p12", "trust.p12"] {
            assert!(matches!(open(file, "wrong"), Err(StoreError::WrongPassword)), "{file}");
        }
        assert!(matches!(open("encrypted.pem", "changeit"), Err(StoreError::EncryptedPem)));
        assert!(matches!(open("missing", ""), Err(StoreError::Unreadable(_))));
        assert!(matches!(open(".", ""), Err(StoreError::NotAFile)));
        assert!(matches!(Sealed::new(vec![0xCE; 40]), Err(StoreError::Jceks)));
        assert!(matches!(Sealed::new(Vec::new()), Err(StoreError::UnknownFormat)));
        let other_password = open("keypass.jks", "changeit").expect("the store itself opens");
        assert!(other_password.keys[0].key.is_none());
    }

    #[test]
    fn a_jks_truststore_needs_no_password() {
        let store = Sealed::read(&path("trust.jks")).and_then(|sealed| sealed.open(None)).expect("readable");
        assert_eq!(store.trusted.len(), 2);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = bytes("trust.jks");
        for length in 0..whole.len() {
            let opened = Sealed::new(whole[..length].to_vec()).and_then(|sealed| sealed.open(None));
            assert!(opened.is_err(), "{length}");
        }
        let whole = bytes("quick.p12");
        for length in 0..whole.len() {
            let opened = Sealed::new(whole[..length].to_vec()).and_then(|sealed| sealed.open(Some("changeit")));
            assert!(opened.is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn damage_never_panics(
            file in prop::sample::select(vec!["rsa.jks", "trust.jks", "quick.p12", "rsa.pem", "ec-sec1.pem"]),
            flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4),
            password in prop::option::of(Just("changeit")),
        ) {
            let mut bytes = bytes(file);
            for (at, flip) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
            }
            // Whatever comes of it: a store that opens has changed in its text or its names at most.
            Sealed::new(bytes).and_then(|sealed| sealed.open(password)).ok();
        }

        #[test]
        fn a_changed_jks_is_refused(at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut bytes = bytes("rsa.jks");
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(Sealed::new(bytes).and_then(|sealed| sealed.open(Some("changeit"))).is_err());
        }

        #[test]
        fn a_damaged_key_never_panics(sealed in prop::collection::vec(any::<u8>(), 0..120)) {
            prop_assert_eq!(jks::unseal(&sealed, "changeit"), None);
        }
    }
}
