//! Servers that sinks write to.

use std::fmt;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// How long a connection may take to be made.
pub const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take, where nothing long is asked.
pub const ANSWER: Duration = Duration::from_secs(30);

/// How long a statement of a batch may take at the server, and how long until its answer is not waited for any more.
pub const STATEMENT: Duration = Duration::from_secs(60);
pub const PATIENCE: Duration = Duration::from_secs(75);

/// How to reach a server, as a library reads it from a URL.
pub trait Reach: Sized {
    /// Reads a URL. Gives where that is, for messages, without a password.
    fn parse(url: &str) -> Result<(String, Self), String>;
}

/// What is wrong with a URL that asks for encryption.
pub const NOT_ENCRYPTED: &str = "it asks for an encrypted connection, and connections are not encrypted yet";

/// A server.
#[derive(Clone)]
pub struct Server<R> {
    /// Where it is, for messages.
    pub place: String,
    /// How to reach it.
    pub reach: R,
}

impl<R> fmt::Debug for Server<R> {
    /// Without a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl<'de, R: Reach> Deserialize<'de> for Server<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let url = String::deserialize(deserializer)?;
        let (place, reach) = R::parse(&url).map_err(|why| D::Error::custom(format!("`url`: {why}")))?;
        Ok(Self { place, reach })
    }
}
