//! Handshakes, and their failures in an operator's words.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, PeerIncompatible, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// How long a client may take for its handshake.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(20);

/// The server's side: takes over connections that clients have opened.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl Acceptor {
    pub(super) fn new(config: ServerConfig) -> Self {
        Self(Arc::new(config).into())
    }

    /// Shakes hands with a client, which has 20 seconds for it.
    ///
    /// # Errors
    /// The connection's, and [`io::ErrorKind::InvalidData`] where the two do not come to terms; the text says why.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<server::TlsStream<S>> {
        self.accept_within(ACCEPT_TIMEOUT, stream).await
    }

    pub(super) async fn accept_within<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        timeout: Duration,
        stream: S,
    ) -> io::Result<server::TlsStream<S>> {
        match tokio::time::timeout(timeout, self.0.accept(stream)).await {
            Ok(done) => done.map_err(explain),
            Err(_) => {
                let seconds = timeout.as_secs();
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no TLS handshake within {seconds} s")))
            }
        }
    }
}

/// The client's side: secures connections to servers.
#[derive(Clone)]
pub struct Connector(TlsConnector);

impl Connector {
    pub(super) fn new(config: ClientConfig) -> Self {
        Self(Arc::new(config).into())
    }

    /// Shakes hands with a server. It is told the name that it is asked for, but need not have a certificate for it.
    /// How long this may take is for the caller to say, who has the connection's timeout.
    ///
    /// # Errors
    /// The connection's, and [`io::ErrorKind::InvalidData`] where the two do not come to terms; the text says why.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        stream: S,
    ) -> io::Result<client::TlsStream<S>> {
        // A name that is none to TLS is not sent, as an address is not.
        let name = ServerName::try_from(host.to_owned())
            .unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()));
        self.0.connect(name, stream).await.map_err(explain)
    }
}

/// Says what a failed handshake means.
fn explain(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    let text = match cause {
        Some(cause) => meaning(cause),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the peer closed the connection during the TLS handshake; it may not speak TLS".to_owned()
        }
        None => format!("the connection failed during the TLS handshake: {error}"),
    };
    io::Error::new(error.kind(), text)
}

fn meaning(error: &Error) -> String {
    match error {
        Error::InvalidMessage(message) => format!("the peer does not speak TLS ({message:?})"),
        Error::InvalidCertificate(problem) => {
            let why = match problem {
                CertificateError::UnknownIssuer => "nobody in the truststore has signed it".to_owned(),
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "it is not valid yet".to_owned()
                }
                problem => problem.to_string(),
            };
            format!("the server's certificate is not trusted: {why}")
        }
        Error::PeerIncompatible(what) => match what {
            PeerIncompatible::NoCipherSuitesInCommon => "no cipher suite in common with the peer".to_owned(),
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled => "no TLS version in common with the peer".to_owned(),
            what => format!("the peer's TLS does not fit: {what:?}"),
        },
        Error::AlertReceived(alert) => {
            let why = match alert {
                AlertDescription::ProtocolVersion => "it has no TLS version in common",
                AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
                    "it has nothing in common, such as a cipher suite"
                }
                AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA => "it does not trust the certificate",
                _ => "it ended the handshake",
            };
            format!("the peer refused: {why} (alert {alert:?})")
        }
        Error::General(what) => what.clone(),
        other => other.to_string(),
    }
}
