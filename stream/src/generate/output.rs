//! Where made lines go: standard output, a file, or the other end of a connection.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tracing::{info, warn};

/// How long to wait before a server is tried again.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Standard,
    /// The end of a file.
    File(PathBuf),
    /// A server.
    Connect(String),
    /// Clients, one after the other.
    Listen(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = |address: &str| match address.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(address.to_owned()),
            _ => Err(format!("`{address}` is no HOST:PORT")),
        };
        if text == "-" {
            Ok(Self::Standard)
        } else if let Some(rest) = text.strip_prefix("tcp://") {
            address(rest).map(Self::Connect)
        } else if let Some(rest) = text.strip_prefix("tcp-listen://") {
            address(rest).map(Self::Listen)
        } else if text.is_empty() || text.contains("://") {
            Err("expected a file, -, tcp://HOST:PORT or tcp-listen://HOST:PORT".to_owned())
        } else {
            Ok(Self::File(text.into()))
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard => f.write_str("standard output"),
            Self::File(path) => path.display().fmt(f),
            Self::Connect(address) => write!(f, "tcp://{address}"),
            Self::Listen(address) => write!(f, "tcp-listen://{address}"),
        }
    }
}

/// An open target.
pub struct Output {
    kind: Kind,
    peer: Option<TcpStream>,
}

enum Kind {
    Here(Box<dyn Write + Send>),
    Connect(String),
    Listen(TcpListener),
}

impl Output {
    /// Opens a target; peers are waited for later.
    pub async fn open(target: &Target) -> io::Result<Self> {
        let kind = match target {
            Target::Standard => Kind::Here(Box::new(io::stdout())),
            Target::File(path) => Kind::Here(Box::new(File::options().create(true).append(true).open(path)?)),
            Target::Connect(address) => Kind::Connect(address.clone()),
            Target::Listen(address) => {
                let listener = TcpListener::bind(address).await?;
                info!("listening on {}", listener.local_addr()?);
                Kind::Listen(listener)
            }
        };
        Ok(Self { kind, peer: None })
    }

    /// Waits until somebody takes lines.
    pub async fn ready(&mut self) -> io::Result<()> {
        if self.peer.is_some() {
            return Ok(());
        }
        let mut has_complained = false;
        let peer = match &self.kind {
            Kind::Here(_) => return Ok(()),
            Kind::Connect(address) => loop {
                match TcpStream::connect(address).await {
                    Ok(peer) => break peer,
                    Err(error) => {
                        if !has_complained {
                            warn!("cannot connect to {address}: {error}; trying again");
                        }
                        has_complained = true;
                        sleep(BETWEEN_TRIES).await;
                    }
                }
            },
            Kind::Listen(listener) => listener.accept().await?.0,
        };
        if let Ok(address) = peer.peer_addr() {
            info!("connected to {address}");
        }
        self.peer = Some(peer);
        Ok(())
    }

    /// Writes lines. A peer that goes away meanwhile is no error: the next one gets them all.
    pub async fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if let Kind::Here(here) = &mut self.kind {
            here.write_all(lines)?;
            return here.flush();
        }
        loop {
            self.ready().await?;
            let Some(peer) = &mut self.peer else { continue };
            match peer.write_all(lines).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    info!("the connection is gone: {error}");
                    self.peer = None;
                }
            }
        }
    }

    /// Ends the connection, if there is one, so that the peer has got everything.
    pub async fn close(&mut self) -> io::Result<()> {
        match &mut self.peer {
            Some(peer) => peer.shutdown().await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_apart() {
        assert_eq!("-".parse(), Ok(Target::Standard));
        assert_eq!("a/b.log".parse(), Ok(Target::File("a/b.log".into())));
        assert_eq!("tcp://localhost:9999".parse(), Ok(Target::Connect("localhost:9999".into())));
        assert_eq!("tcp-listen://[::]:0".parse(), Ok(Target::Listen("[::]:0".into())));
        for wrong in ["", "udp://h:1", "tcp://localhost", "tcp://:1", "tcp-listen://h:x"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
