//! Encryption at rest, configured as Flume's users have it.
//!
//! `encryption.activeKey` names the key that is written with, `encryption.cipherProvider` is `AESCTRNOPADDING` and
//! `encryption.keyProvider` is `JCEKSFILE`: a keystore, below whose key there are `keyStoreFile`,
//! `keyStorePasswordFile`, `keys` (aliases, with blanks between them) and `keys.ALIAS.passwordFile` for a key that has
//! a password of its own. All keys of the store that open can be read with.

mod cipher;
mod jceks;
mod seal;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;

pub use cipher::{Counter, Key};
pub use seal::{Seal, unseal};

use self::jceks::Fault;
use crate::config::Props;

const CIPHER: &str = "AESCTRNOPADDING";
const CIPHER_CLASS: &str = "org.apache.flume.channel.file.encryption.AESCTRNoPaddingProvider";
const PROVIDER: &str = "JCEKSFILE";
const PROVIDER_CLASS: &str = "org.apache.flume.channel.file.encryption.JCEFileKeyProvider$Builder";
const KEY_STORE: &str = "encryption.keyProvider.keyStoreFile";
const STORE_PASSWORD: &str = "encryption.keyProvider.keyStorePasswordFile";
const KEYS: &str = "encryption.keyProvider.keys";
/// Far more than a keystore or a password has.
const MAX_BYTES: u64 = 8 << 20;

/// The keys of a channel. Clones share them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    active: Option<Arc<str>>,
    /// By their aliases in lower case.
    keys: Arc<BTreeMap<String, Key>>,
}

impl Keys {
    /// Reads the keys of the configuration and the keystore, and notes what is wrong. Without any there is no encryption.
    pub fn from_props(props: &Props<'_>) -> Self {
        let text = |key: &str| props.text(key).map(str::trim).filter(|text| !text.is_empty());
        let provider = text("encryption.keyProvider");
        let (active, cipher) = (text("encryption.activeKey"), text("encryption.cipherProvider"));
        for (key, value) in [("activeKey", active), ("cipherProvider", cipher)] {
            let full = format!("encryption.{key}");
            match (provider, value) {
                (Some(_), None) => {
                    let flume = format!("Encryption configuration problem: {key} is missing");
                    let expected = if key == "activeKey" { "the alias of the key to write with" } else { CIPHER };
                    props.error(&full, expected, &flume);
                }
                (None, Some(_)) => {
                    let flume =
                        format!("Encryption configuration problem: {key} is present while key provider name is not.");
                    props.error("encryption.keyProvider", &format!("{PROVIDER}, as there is {full}"), &flume);
                }
                _ => {}
            }
        }
        if cipher.is_some_and(|cipher| !cipher.eq_ignore_ascii_case(CIPHER) && cipher != CIPHER_CLASS) {
            props.error_nearest("encryption.cipherProvider", CIPHER, &[CIPHER]);
        }
        let Some(provider) = provider else { return Self::default() };
        if !provider.eq_ignore_ascii_case(PROVIDER) && provider != PROVIDER_CLASS {
            props.error_nearest("encryption.keyProvider", PROVIDER, &[PROVIDER]);
            return Self::default();
        }
        let keys = read_store(props).unwrap_or_default();
        if let Some(active) = active
            && !keys.is_empty()
            && !keys.contains_key(&active.to_lowercase())
        {
            let aliases: Vec<&str> = keys.keys().map(String::as_str).collect();
            props.error_nearest("encryption.activeKey", "the alias of an AES key of the keystore that opens", &aliases);
        }
        Self { active: active.map(Arc::from), keys: Arc::new(keys) }
    }

    /// These keys; the first one is written with.
    #[cfg(test)]
    pub fn of(keys: &[(&str, &[u8])]) -> Self {
        let active = keys.first().map(|(alias, _)| Arc::from(*alias));
        let key = |bytes: &[u8]| Key::new(bytes).expect("a length of AES");
        let keys: BTreeMap<_, _> = keys.iter().map(|(alias, bytes)| ((*alias).to_owned(), key(bytes))).collect();
        Self { active, keys: Arc::new(keys) }
    }

    /// The key with this alias.
    pub fn get(&self, alias: &str) -> Option<&Key> {
        self.keys.get(&alias.to_lowercase())
    }

    /// The key with this alias, or why `file` cannot be read without it.
    pub fn require(&self, alias: &str, file: impl std::fmt::Display) -> Result<&Key, String> {
        self.get(alias).ok_or_else(|| match self.keys.is_empty() {
            true => format!("{file} is encrypted with the key {alias}, and no encryption.keyProvider is configured"),
            false => format!("{file} is encrypted with the key {alias}, which the keystore does not have or give"),
        })
    }

    /// What is written with: the alias and the key.
    pub fn active(&self) -> Option<(&str, &Key)> {
        let alias = self.active.as_deref()?;
        Some((alias, self.get(alias)?))
    }
}

/// All keys that open; an empty store, or `None`, when that was noted as an error.
fn read_store(props: &Props<'_>) -> Option<BTreeMap<String, Key>> {
    let file = |key: &str, expected: &str, flume: &str| {
        let Some(path) = props.text(key).map(str::trim).filter(|path| !path.is_empty()) else {
            props.error(key, expected, flume);
            return None;
        };
        let content = read_file(path);
        if let Err(error) = &content {
            props.error(key, &format!("{expected}: {error}"), "");
        }
        content.ok()
    };
    let store = file(KEY_STORE, "a JCEKS keystore", "KeyStore file not specified");
    let password = file(STORE_PASSWORD, "a file with the keystore's password", "KeyStore password  file not specified");
    let listed: Vec<&str> = props.text(KEYS).unwrap_or_default().split_whitespace().collect();
    if listed.is_empty() {
        props.error(KEYS, "the aliases of the keys", "Keys available to KeyStore was not specified or empty");
    }
    let mut passwords = BTreeMap::new();
    for alias in listed {
        let key = format!("{KEYS}.{alias}.passwordFile");
        let own = match props.text(&key) {
            Some(_) => Some(file(&key, "a file with the key's password", "")?),
            None => None,
        };
        passwords.insert(alias.to_lowercase(), (alias, own));
    }
    let (store, password) = (store?, password?);
    let password = text(&password);
    let sealed = jceks::read(&store, &password).map_err(|fault| match fault {
        Fault::Damaged => props.error(KEY_STORE, "a JCEKS keystore (keytool -storetype JCEKS)", ""),
        Fault::WrongPassword => props.error(STORE_PASSWORD, "a file with the password of this keystore", ""),
    });
    let mut keys = BTreeMap::new();
    for (alias, sealed) in sealed.ok()? {
        let own = passwords.remove(&alias);
        let key_password = own.as_ref().and_then(|(_, own)| own.as_ref()).map_or(password.clone(), |own| text(own));
        match (jceks::unseal(&sealed, &key_password).and_then(|key| Key::new(&key)), own) {
            (Some(key), _) => drop(keys.insert(alias, key)),
            (None, Some((alias, Some(_)))) => {
                props.error(&format!("{KEYS}.{alias}.passwordFile"), "a file with the password of this AES key", "");
            }
            (None, Some((alias, None))) => {
                let message = format!("{alias} is no AES key, or has another password than the keystore");
                props.warning(KEYS, &message);
            }
            (None, None) => {}
        }
    }
    for (alias, _) in passwords.into_values() {
        props.warning(KEYS, &format!("the keystore has no secret key {alias}"));
    }
    Some(keys)
}

fn read_file(path: &str) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut content)?;
    Ok(content)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;
    use crate::config::{Finding, Globals};

    /// `key-0` (with a password of its own), `key-1` and `key-2` of 128, 256 and 192 bits, and what is none for AES.
    fn vector() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/filechannel-keys.jceks")
    }

    /// A configuration of the vector's store, with its passwords in a directory.
    fn config() -> (TempDir, String) {
        let home = tempfile::tempdir().expect("a directory");
        for (name, password) in [("store", "storepass\n"), ("key", " keypass ")] {
            std::fs::write(home.path().join(name), password).expect("written");
        }
        let text = format!(
            "encryption.activeKey = KEY-0\nencryption.cipherProvider = aesctrnopadding\nencryption.keyProvider = JCEKSFILE\n\
             {KEY_STORE} = {}\n{STORE_PASSWORD} = {home}/store\n{KEYS} = key-0 key-1\n{KEYS}.key-0.passwordFile = {home}/key\n",
            vector().display(),
            home = home.path().display()
        );
        (home, text)
    }

    fn read(text: &str) -> (Keys, Vec<Finding>) {
        let properties = crate::config::parse("a.conf", text.as_bytes(), &mut Vec::new());
        let entries = properties.into_iter().map(|property| (property.key.clone(), property)).collect();
        let globals = Globals::default();
        let props = Props::new("a1.channels.c1", &entries, None, &globals);
        (Keys::from_props(&props), props.into_findings())
    }

    #[test]
    fn keys_are_read_from_a_store_of_java() {
        let (_home, text) = config();
        let (keys, findings) = read(&text);
        assert_eq!(findings, []);
        let vector = 0x3882_cda7_bb8f_c2a2_d6a9_903f_1ae1_7b6d_u128.to_be_bytes();
        assert_eq!(keys.active(), Key::new(&vector).as_ref().map(|key| ("KEY-0", key)));
        let counting: Vec<u8> = (0..32).collect();
        assert_eq!(keys.get("key-1"), Key::new(&counting).as_ref());
        assert!(keys.get("key-2").is_some(), "it opens with the store's password");
        assert_eq!(keys.keys.keys().collect::<Vec<_>>(), ["key-0", "key-1", "key-2", "other"]);
    }

    #[test]
    fn what_is_wrong_is_said_as_flume_does() {
        let (_home, text) = config();
        let without = |key: &str| text.lines().filter(|line| !line.starts_with(key)).collect::<Vec<_>>().join("\n");
        let flume_says = |text: &str| {
            let (_, findings) = read(text);
            findings.into_iter().find_map(|finding| finding.flume).unwrap_or_default()
        };
        let missing = |key: &str| flume_says(&without(&format!("encryption.{key} ")));
        assert_eq!(missing("activeKey"), "Encryption configuration problem: activeKey is missing");
        assert_eq!(missing("cipherProvider"), "Encryption configuration problem: cipherProvider is missing");
        assert_eq!(
            missing("keyProvider"),
            "Encryption configuration problem: activeKey is present while key provider name is not."
        );
        assert_eq!(missing("keyProvider.keyStoreFile"), "KeyStore file not specified");
        assert_eq!(missing("keyProvider.keys"), "Keys available to KeyStore was not specified or empty");
    }

    #[test]
    fn wrong_passwords_and_missing_keys_are_errors() {
        let (home, text) = config();
        let expected = |text: &str| {
            let (_, findings) = read(text);
            format!("{:?}", findings.first().expect("a finding"))
        };
        assert!(expected(&text.replace("KEY-0", "key-9")).contains("the alias of an AES key of the keystore"));
        assert!(expected(&text.replace("/key\n", "/store\n")).contains("a file with the password of this AES key"));
        assert!(expected(&text.replace("/store\n", "/key\n")).contains("a file with the password of this keystore"));
        assert!(
            expected(&text.replace("/store\n", "/nothing\n")).contains("a file with the keystore's password: No such")
        );
        let no_store = text.replace(&vector().display().to_string(), &home.path().join("key").display().to_string());
        assert!(expected(&no_store).contains("a JCEKS keystore (keytool -storetype JCEKS)"));
    }

    proptest::proptest! {
        #[test]
        fn no_damaged_store_panics(at in 0usize..4000, bytes in proptest::collection::vec(proptest::num::u8::ANY, 1..20)) {
            let mut store = std::fs::read(vector()).expect("the vector");
            let end = (at + bytes.len()).min(store.len() - 20);
            if at < end {
                store[at..end].copy_from_slice(&bytes[..end - at]);
            }
            assert!(at >= end || jceks::read(&store, "storepass").is_err() || store == std::fs::read(vector()).expect("the vector"));
            jceks::entries(&store);
        }
    }
}
