//! Addresses in a job file.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A host name or address, and a port: what a key of a job file connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The host; an IPv6 address is in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Address {
    /// Reads `host:port`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let address = Self::to_listen(text)?;
        if address.port == 0 { Err(format!("`{text}`: the port is a number from 1 to 65535")) } else { Ok(address) }
    }

    /// The same for an address to listen at, where port 0 lets the system choose one.
    pub fn to_listen(text: &str) -> Result<Self, String> {
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && !host.contains("://") => {
                let port = port.parse().map_err(|_| format!("`{text}`: the port is a number from 1 to 65535"))?;
                Ok(Self { host: host.to_owned(), port })
            }
            _ => Err(format!("`{text}` is no address: expected host:port")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Reads the address of a key that listens.
pub fn to_listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
    Address::to_listen(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        assert_eq!(Address::parse("[::1]:4").expect("it is one").to_string(), "[::1]:4");
        assert_eq!(Address::to_listen("host:0").expect("it is one").port, 0);
        for wrong in ["localhost", "localhost:x", ":1", "a:70000", "a:0", "tcp://a:1", "a:"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
