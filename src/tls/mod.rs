//! TLS for sources and sinks, configured as Flume's users have it.
//!
//! | key | default | who | what |
//! |---|---|---|---|
//! | `ssl` | `false` | both | whether there is TLS at all |
//! | `keystore` | `javax.net.ssl.keyStore` | source | file with the private key and its certificates |
//! | `keystore-password` | `javax.net.ssl.keyStorePassword` | source | of the store and of its keys |
//! | `keystore-type` | `javax.net.ssl.keyStoreType` | source | not needed: the file says what it is |
//! | `trust-all-certs` | `false` | sink | whether every server is accepted |
//! | `truststore` | `javax.net.ssl.trustStore`, or else the machine's CAs | sink | file with trusted certificates |
//! | `truststore-password` | `javax.net.ssl.trustStorePassword` | sink | of the store |
//! | `truststore-type` | `javax.net.ssl.trustStoreType` | sink | not needed |
//! | `include-protocols` | `flume.ssl.include.protocols` | both | of `TLSv1.2` and `TLSv1.3`, those that are used; none: all |
//! | `exclude-protocols` | `flume.ssl.exclude.protocols` | both | those that are not |
//! | `include-cipher-suites` | `flume.ssl.include.cipherSuites` | both | cipher suites that are used; none: all |
//! | `exclude-cipher-suites` | `flume.ssl.exclude.cipherSuites` | both | those that are not |
//!
//! A default that is a system property stands for its environment variable too (`FLUME_SSL_KEYSTORE_PATH` and so on).
//! Lists are separated by spaces or commas, and what is excluded is excluded. Stores are JKS, PKCS12 or PEM; a PEM
//! keystore holds the certificates and the unencrypted key, and needs no password. Of several keys in a store, a client
//! gets the first that it can use. Clients present no certificate, and do not compare the server's name with its
//! certificate, but for [`https`].

use std::fmt::Display;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

pub(crate) mod der;
mod handshake;
pub(crate) mod jks;
mod key;
mod policy;
mod store;
mod verifier;

pub use handshake::{Acceptor, Connector};
pub use store::{Sealed, Store};

use crate::config::Props;
use policy::Policy;
use store::StoreError;
use verifier::{Trust, Verifier};

/// A key that a system property or an environment variable stands in for.
struct SslKey {
    key: &'static str,
    property: &'static str,
    variable: &'static str,
}

macro_rules! ssl_keys {
    ($($name:ident = $key:literal, $property:literal, $variable:literal;)*) => {
        $(const $name: SslKey = SslKey { key: $key, property: $property, variable: $variable };)*
    };
}

ssl_keys! {
    KEYSTORE = "keystore", "javax.net.ssl.keyStore", "FLUME_SSL_KEYSTORE_PATH";
    KEYSTORE_PASSWORD = "keystore-password", "javax.net.ssl.keyStorePassword", "FLUME_SSL_KEYSTORE_PASSWORD";
    KEYSTORE_TYPE = "keystore-type", "javax.net.ssl.keyStoreType", "FLUME_SSL_KEYSTORE_TYPE";
    TRUSTSTORE = "truststore", "javax.net.ssl.trustStore", "FLUME_SSL_TRUSTSTORE_PATH";
    TRUSTSTORE_PASSWORD = "truststore-password", "javax.net.ssl.trustStorePassword", "FLUME_SSL_TRUSTSTORE_PASSWORD";
    TRUSTSTORE_TYPE = "truststore-type", "javax.net.ssl.trustStoreType", "FLUME_SSL_TRUSTSTORE_TYPE";
    INCLUDE_PROTOCOLS = "include-protocols", "flume.ssl.include.protocols", "FLUME_SSL_INCLUDE_PROTOCOLS";
    EXCLUDE_PROTOCOLS = "exclude-protocols", "flume.ssl.exclude.protocols", "FLUME_SSL_EXCLUDE_PROTOCOLS";
    INCLUDE_CIPHER_SUITES =
        "include-cipher-suites", "flume.ssl.include.cipherSuites", "FLUME_SSL_INCLUDE_CIPHERSUITES";
    EXCLUDE_CIPHER_SUITES =
        "exclude-cipher-suites", "flume.ssl.exclude.cipherSuites", "FLUME_SSL_EXCLUDE_CIPHERSUITES";
}

const POLICY: [SslKey; 4] = [INCLUDE_PROTOCOLS, EXCLUDE_PROTOCOLS, INCLUDE_CIPHER_SUITES, EXCLUDE_CIPHER_SUITES];
const SERVER: [SslKey; 3] = [KEYSTORE, KEYSTORE_PASSWORD, KEYSTORE_TYPE];
const CLIENT: [SslKey; 3] = [TRUSTSTORE, TRUSTSTORE_PASSWORD, TRUSTSTORE_TYPE];

/// What a [`SslKey`] gives.
#[derive(Default)]
struct Setting {
    text: String,
    /// Where it stands when it is not with the component, to follow a message.
    from: String,
}

impl SslKey {
    fn setting(&self, props: &Props<'_>) -> Option<Setting> {
        if let Some(text) = props.text(self.key) {
            return Some(Setting { text: text.to_owned(), from: String::new() });
        }
        let text = props.globals().property_or_variable(self.property, self.variable)?;
        Some(Setting { text, from: format!(" (from {} or {})", self.property, self.variable) })
    }
}

/// The server's side of TLS. `None` when `ssl` is not true, or when something is wrong, which the properties have noted
/// (so that [`finish`](Props::finish) gives nothing).
pub fn acceptor(props: &Props<'_>) -> Option<Acceptor> {
    if !is_on(props, &SERVER) {
        return None;
    }
    let policy = Policy::read(props);
    let store = keystore(props);
    let (policy, (path, store)) = (policy?, store?);
    let keys = usable_keys(props, &path, store, &policy.provider)?;
    let config = ServerConfig::builder_with_provider(policy.provider)
        .with_protocol_versions(&policy.versions)
        .expect("a policy has versions, and cipher suites for them")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Keys(keys)));
    Some(Acceptor::new(config))
}

/// The client's side of TLS. `None` when `ssl` is not true, or when something is wrong, which the properties have noted
/// (so that [`finish`](Props::finish) gives nothing).
pub fn connector(props: &Props<'_>) -> Option<Connector> {
    let on = is_on(props, &CLIENT);
    let all = props.or("trust-all-certs", false);
    if !on {
        return None;
    }
    let policy = Policy::read(props);
    let trust = if all {
        props.warning("trust-all-certs", "every server is accepted, also one that only pretends to be the right one");
        Some(Trust::All)
    } else {
        match TRUSTSTORE.setting(props) {
            Some(path) => truststore(props, &path),
            None => machine_cas(props),
        }
    };
    let (policy, trust) = (policy?, trust?);
    let verifier = Verifier::new(trust, &policy.provider);
    Some(client(policy, verifier))
}

/// The client's side of TLS for an https address, as Java has it for Flume: the server's name must be in its certificate.
/// Keys: `truststore` and its password and type, by default the system properties; the four lists. `None` when something
/// is wrong, which the properties have noted.
pub fn https(props: &Props<'_>) -> Option<Connector> {
    let policy = Policy::read(props);
    let trust = TRUSTSTORE.setting(props).map_or_else(|| machine_cas(props), |path| truststore(props, &path));
    props.text(TRUSTSTORE_PASSWORD.key);
    props.text(TRUSTSTORE_TYPE.key);
    let (policy, trust) = (policy?, trust?);
    let verifier = Verifier::of_names(trust, &policy.provider);
    Some(client(policy, verifier))
}

fn client(policy: Policy, verifier: Arc<Verifier>) -> Connector {
    let config = ClientConfig::builder_with_provider(policy.provider)
        .with_protocol_versions(&policy.versions)
        .expect("a policy has versions, and cipher suites for them")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Connector::new(config)
}

/// Whether TLS is wanted. Asks for the other keys as well: where it is not wanted, they are known all the same.
fn is_on(props: &Props<'_>, stores: &[SslKey]) -> bool {
    for key in stores.iter().chain(&POLICY) {
        props.text(key.key);
    }
    props.or("ssl", false)
}

/// Opens the keystore, and gives its path too.
fn keystore(props: &Props<'_>) -> Option<(Setting, Store)> {
    let Some(path) = KEYSTORE.setting(props) else {
        let expected = "the path of a JKS, PKCS12 or PEM file with a private key";
        props.error(KEYSTORE.key, expected, "keystore must be specified when SSL is enabled");
        return None;
    };
    check_type(props, &KEYSTORE_TYPE);
    let password = KEYSTORE_PASSWORD.setting(props).map(|password| password.text);
    let sealed = Sealed::read(&path.text);
    if password.is_none() && sealed.as_ref().is_ok_and(Sealed::has_password) {
        let flume = "keystore-password must be specified when SSL is enabled";
        props.error(KEYSTORE_PASSWORD.key, "the keystore's password", flume);
        return None;
    }
    match sealed.and_then(|sealed| sealed.open(password.as_deref())) {
        Ok(store) => Some((path, store)),
        Err(problem) => {
            invalid_keystore(props, &path, problem);
            None
        }
    }
}

fn invalid_keystore(props: &Props<'_>, path: &Setting, problem: impl Display) {
    let Setting { text, from } = path;
    let expected = format!("a JKS, PKCS12 or PEM file with a private key, but {text}{from}: {problem}");
    let flume = format!("Source {} configured with invalid keystore: {text}", props.name());
    props.error(KEYSTORE.key, &expected, &flume);
}

/// The keys of a keystore that can be used. Those that cannot are named, and there must be one that can.
fn usable_keys(
    props: &Props<'_>,
    path: &Setting,
    store: Store,
    provider: &CryptoProvider,
) -> Option<Vec<Arc<CertifiedKey>>> {
    let mut usable = Vec::new();
    let mut problems = Vec::new();
    for key in store.keys {
        let alias = key.alias.clone();
        match key::certified(key, provider) {
            Ok(key) => usable.push(Arc::new(key)),
            Err(problem) => problems.push(format!("the key \"{alias}\" cannot be used: {problem}")),
        }
    }
    if usable.is_empty() {
        let problem = if problems.is_empty() { "it has no private key".to_owned() } else { problems.join("; ") };
        invalid_keystore(props, path, problem);
        return None;
    }
    for problem in problems {
        props.warning(KEYSTORE.key, &format!("{problem}{}", path.from));
    }
    Some(usable)
}

/// A server's keys: each client gets the first that it can check signatures of.
#[derive(Debug)]
struct Keys(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Keys {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(client.signature_schemes()).is_some();
        // Where none fits, rustls says why it does not.
        self.0.iter().find(fits).or(self.0.first()).cloned()
    }
}

/// Opens a truststore; without a password it is taken as it is.
fn truststore(props: &Props<'_>, path: &Setting) -> Option<Trust> {
    check_type(props, &TRUSTSTORE_TYPE);
    let password = TRUSTSTORE_PASSWORD.setting(props).map(|password| password.text);
    let opened = Sealed::read(&path.text).and_then(|sealed| sealed.open(password.as_deref()));
    let problem = match opened {
        Ok(store) if !store.trusted.is_empty() => return Some(Trust::listed(store.trusted)),
        Ok(_) => "it has no trusted certificate (openssl needs -jdktrust anyExtendedKeyUsage to write one, keytool \
                  -importcert does it of itself)"
            .to_owned(),
        Err(StoreError::WrongPassword) if password.is_none() => "it needs truststore-password".to_owned(),
        Err(problem) => problem.to_string(),
    };
    let Setting { text, from } = path;
    let expected = format!("a JKS, PKCS12 or PEM file with trusted certificates, but {text}{from}: {problem}");
    props.error(TRUSTSTORE.key, &expected, "Cannot create SSL channel");
    None
}

/// The CAs that the machine trusts.
fn machine_cas(props: &Props<'_>) -> Option<Trust> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let problems: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let problem = if problems.is_empty() { String::new() } else { format!(": {}", problems.join("; ")) };
        let expected = format!("the path of a truststore, since this machine has no CA certificates{problem}");
        props.error(TRUSTSTORE.key, &expected, "");
        return None;
    }
    Some(Trust::SignedBy(roots))
}

/// Says so where a store's type is one that no store here can have. Otherwise the file says what it is.
fn check_type(props: &Props<'_>, key: &SslKey) {
    let Some(Setting { text, from }) = key.setting(props) else { return };
    if !["JKS", "PKCS12", "PEM"].iter().any(|known| text.eq_ignore_ascii_case(known)) {
        let message = format!("{text} is not supported{from}; the file is read as JKS, PKCS12 or PEM, as it begins");
        props.warning(key.key, &message);
    }
}

#[cfg(test)]
mod tests;
