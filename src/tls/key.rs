//! Private keys and the public keys of certificates.

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, RootCertStore};

use super::der::{BIT_STRING, INTEGER, OCTET_STRING, OID, SEQUENCE, put, take};
use super::store::Key;

const DSA: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x38, 4, 1];
const RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 1];
const EC: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 2, 1];
/// Where an EC key may have its curve.
const CURVE: u8 = 0xA0;
/// Where it may have its public half.
const PUBLIC_HALF: u8 = 0xA1;

/// A certificate's public key.
pub struct PublicKey {
    info: Vec<u8>,
}

impl PublicKey {
    /// Finds it, in certificates of X.509 version 1 too, which webpki reads as trust anchors only.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let mut anchor = RootCertStore::empty();
        anchor.add(certificate.clone())?;
        let anchor = anchor.roots.pop().ok_or(CertificateError::BadEncoding)?;
        Ok(Self { info: anchor.subject_public_key_info.to_vec() })
    }

    /// Its algorithm and its bits.
    pub fn parts(&self) -> Option<(&[u8], &[u8])> {
        let mut info = self.info.as_slice();
        let algorithm = take(&mut info, SEQUENCE)?;
        let bits = take(&mut info, BIT_STRING)?;
        // Before the bits stands how many of the last byte are none.
        Some((algorithm, bits.strip_prefix(&[0])?))
    }
}

/// Makes a store's key ready to sign with, or says why it cannot be used.
pub fn certified(key: Key, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let Key { chain, key, .. } = key;
    let key = key.ok_or("it does not open with the keystore's password, which must be its own too")?;
    let own = chain.first().ok_or("it has no certificate")?;
    let public = PublicKey::of(own).map_err(|error| format!("its certificate is unreadable: {error}"))?;
    let kind = kind_of(&key);
    let key = with_public_half(&key, &public).unwrap_or(key);
    let key = provider.key_provider.load_private_key(key).map_err(|error| {
        let error = match error {
            Error::General(text) => text,
            other => other.to_string(),
        };
        format!("{kind} ({error}); RSA keys of 2048 bits and more, EC keys on P-256 and P-384, and Ed25519 keys can")
    })?;
    match key.public_key() {
        Some(info) if take(&mut info.as_ref(), SEQUENCE) != Some(public.info.as_slice()) => {
            Err("it is not the key of the first certificate".to_owned())
        }
        _ => Ok(CertifiedKey::new(chain, key)),
    }
}

/// The algorithm of a PKCS#8 key, its identifier and its parameters, and what follows.
fn algorithm<'a>(pkcs8: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8], &'a [u8])> {
    let mut key = take(pkcs8, SEQUENCE)?;
    take(&mut key, INTEGER)?;
    let whole = take(&mut key, SEQUENCE)?;
    Some((whole, take(&mut { whole }, OID)?, key))
}

/// What a key is, for a reader.
fn kind_of(key: &PrivateKeyDer<'_>) -> &'static str {
    match key {
        PrivateKeyDer::Pkcs1(_) => "an RSA key",
        PrivateKeyDer::Sec1(_) => "an EC key",
        key => match algorithm(&mut key.secret_der()) {
            Some((_, DSA, _)) => "a DSA key",
            Some((_, RSA, _)) => "an RSA key",
            Some((_, EC, _)) => "an EC key",
            _ => "a key of an unknown kind",
        },
    }
}

/// An EC key with its public half from the certificate, where it has none itself: Java writes none, and ring needs it.
/// (It also makes sure that the halves belong together.)
fn with_public_half(key: &PrivateKeyDer<'_>, public: &PublicKey) -> Option<PrivateKeyDer<'static>> {
    let PrivateKeyDer::Pkcs8(pkcs8) = key else { return None };
    let (algorithm, EC, mut rest) = algorithm(&mut pkcs8.secret_pkcs8_der())? else { return None };
    let mut halves = take(&mut take(&mut rest, OCTET_STRING)?, SEQUENCE)?;
    let version = take(&mut halves, INTEGER)?;
    let private = take(&mut halves, OCTET_STRING)?;
    // The curve may stand between the halves.
    take(&mut halves, CURVE);
    let (of, bits) = public.parts()?;
    if !halves.is_empty() || of != algorithm {
        return None;
    }
    let bits = put(BIT_STRING, &[&[0], bits].concat());
    let halves = [put(INTEGER, version), put(OCTET_STRING, private), put(PUBLIC_HALF, &bits)].concat();
    let key = [put(INTEGER, &[0]), put(SEQUENCE, algorithm), put(OCTET_STRING, &put(SEQUENCE, &halves))].concat();
    Some(PrivatePkcs8KeyDer::from(put(SEQUENCE, &key)).into())
}
