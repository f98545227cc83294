//! Which TLS versions and cipher suites are offered: all that rustls has, less what include and exclude lists leave out.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion, version};

use super::{EXCLUDE_CIPHER_SUITES, EXCLUDE_PROTOCOLS, INCLUDE_CIPHER_SUITES, INCLUDE_PROTOCOLS, Setting, SslKey};
use crate::config::{Props, nearest};

/// Java's names of the versions that rustls has.
const VERSIONS: [(&str, &SupportedProtocolVersion); 2] = [("TLSv1.2", &version::TLS12), ("TLSv1.3", &version::TLS13)];
/// Java's names of those that it does not have.
const OLD_VERSIONS: [&str; 5] = ["SSLv2Hello", "SSLv2", "SSLv3", "TLSv1", "TLSv1.1"];

/// What is offered.
#[derive(Debug)]
pub struct Policy {
    /// With the cipher suites.
    pub provider: Arc<CryptoProvider>,
    /// The versions.
    pub versions: Vec<&'static SupportedProtocolVersion>,
}

impl Policy {
    /// Reads the lists; `None` when they leave nothing, which is noted.
    pub fn read(props: &Props<'_>) -> Option<Self> {
        let filter = Filter::read(props, &INCLUDE_PROTOCOLS, &EXCLUDE_PROTOCOLS);
        let names = VERSIONS.map(|(name, _)| name);
        filter.warn(props, &names, |name| OLD_VERSIONS.contains(&name));
        let versions: Vec<_> =
            VERSIONS.iter().filter(|(name, _)| filter.allows(name)).map(|(_, version)| *version).collect();
        if versions.is_empty() {
            filter.nothing_left(props, &names.join(" or "));
            return None;
        }

        let mut provider = ring::default_provider();
        let filter = Filter::read(props, &INCLUDE_CIPHER_SUITES, &EXCLUDE_CIPHER_SUITES);
        let names: Vec<String> = provider.cipher_suites.iter().map(java_name).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        filter.warn(props, &names, |name| name.starts_with("TLS_") || name.starts_with("SSL_"));
        provider.cipher_suites.retain(|suite| versions.contains(&suite.version()));
        let of_versions: Vec<String> = provider.cipher_suites.iter().map(java_name).collect();
        provider.cipher_suites.retain(|suite| filter.allows(&java_name(suite)));
        if provider.cipher_suites.is_empty() {
            filter.nothing_left(props, &of_versions.join(", "));
            return None;
        }
        Some(Self { provider: Arc::new(provider), versions })
    }
}

/// The name that the standards and Java give a cipher suite; rustls marks those of TLS 1.3.
fn java_name(suite: &SupportedCipherSuite) -> String {
    suite.suite().as_str().unwrap_or_default().replacen("TLS13_", "TLS_", 1)
}

/// An include and an exclude list.
struct Filter {
    include: List,
    exclude: List,
}

/// A list and where it stands.
struct List {
    key: &'static str,
    from: String,
    names: Vec<String>,
}

impl List {
    fn read(props: &Props<'_>, key: &SslKey) -> Self {
        let Setting { text, from } = key.setting(props).unwrap_or_default();
        // Spaces in a component's key, commas in a global property; either is clear in both.
        let names = text.split([' ', ',', '\t']).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Self { key: key.key, from, names }
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|listed| listed == name)
    }
}

impl Filter {
    fn read(props: &Props<'_>, include: &SslKey, exclude: &SslKey) -> Self {
        Self { include: List::read(props, include), exclude: List::read(props, exclude) }
    }

    fn allows(&self, name: &str) -> bool {
        (self.include.names.is_empty() || self.include.has(name)) && !self.exclude.has(name)
    }

    /// Warns of names that are not known. Those that are well known elsewhere may be excluded without a word, since
    /// they are not there.
    fn warn(&self, props: &Props<'_>, known: &[&str], known_elsewhere: impl Fn(&str) -> bool) {
        for (list, may_be_absent) in [(&self.include, false), (&self.exclude, true)] {
            let fine = |name: &str| known.contains(&name) || may_be_absent && known_elsewhere(name);
            let names: Vec<&str> = list.names.iter().map(String::as_str).filter(|name| !fine(name)).collect();
            if names.is_empty() {
                continue;
            }
            let names = names.join(", ");
            let hint = match nearest(&names, known.iter().copied()).filter(|_| !known_elsewhere(&names)) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("there are {}", known.join(", ")),
            };
            props.warning(list.key, &format!("{names}: not supported, ignored{}; {hint}", list.from));
        }
    }

    fn nothing_left(&self, props: &Props<'_>, candidates: &str) {
        let list = if self.include.names.is_empty() { &self.exclude } else { &self.include };
        let (include, exclude) = (self.include.key, self.exclude.key);
        let expected = format!("{include} and {exclude} to leave at least one of {candidates}{}", list.from);
        props.error(list.key, &expected, "");
    }
}
