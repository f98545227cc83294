//! How a client judges a server's certificate, as Java does for Flume: by the truststore, and by the name only for https.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::key::PublicKey;

/// Accepts servers that somebody trusted has vouched for, or all.
#[derive(Debug)]
pub struct Verifier {
    trust: Trust,
    /// Whether the server's name must be in its certificate.
    by_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Whom to trust.
#[derive(Debug)]
pub enum Trust {
    /// Everybody.
    All,
    /// Whoever has a certificate that is signed by one of these.
    SignedBy(RootCertStore),
    /// As well as whoever has one of these, which then may be expired or of X.509 version 1.
    Listed(RootCertStore, Vec<CertificateDer<'static>>),
}

impl Trust {
    /// Trust in the certificates of a truststore.
    pub fn listed(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        Self::Listed(roots, certificates)
    }
}

impl Verifier {
    /// A verifier that knows the provider's signature algorithms.
    pub fn new(trust: Trust, provider: &CryptoProvider) -> Arc<Self> {
        Arc::new(Self { trust, by_name: false, algorithms: provider.signature_verification_algorithms })
    }

    /// One that looks at the server's name, too.
    pub fn of_names(trust: Trust, provider: &CryptoProvider) -> Arc<Self> {
        Arc::new(Self { trust, by_name: true, algorithms: provider.signature_verification_algorithms })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.by_name {
            verify_server_name(&ParsedCertificate::try_from(own)?, name)?;
        }
        let roots = match &self.trust {
            Trust::All => return Ok(ServerCertVerified::assertion()),
            Trust::Listed(_, listed) if listed.contains(own) => return Ok(ServerCertVerified::assertion()),
            Trust::SignedBy(roots) | Trust::Listed(roots, _) => roots,
        };
        let certificate = ParsedCertificate::try_from(own)?;
        verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, self.algorithms.all)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match ParsedCertificate::try_from(certificate) {
            Ok(_) => verify_tls12_signature(message, certificate, signature, &self.algorithms),
            Err(_) => verify_with_key(message, certificate, signature, &self.algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match ParsedCertificate::try_from(certificate) {
            Ok(_) => verify_tls13_signature(message, certificate, signature, &self.algorithms),
            Err(_) => verify_with_key(message, certificate, signature, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Checks a handshake's signature with the key of a certificate that webpki does not read as a server's, which are
/// those of X.509 version 1.
fn verify_with_key(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let public = PublicKey::of(certificate)?;
    let (algorithm, bits) = public.parts().ok_or(CertificateError::BadEncoding)?;
    let of_scheme = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signature.scheme);
    let valid = of_scheme
        .flat_map(|(_, algorithms)| algorithms.iter())
        .filter(|candidate| *candidate.public_key_alg_id() == *algorithm)
        .any(|candidate| candidate.verify_signature(bits, message, signature.signature()).is_ok());
    if valid { Ok(HandshakeSignatureValid::assertion()) } else { Err(CertificateError::BadSignature.into()) }
}
