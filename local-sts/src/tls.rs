//! The server's certificate authority, its certificate, and the TLS configuration of both.
//!
//! Each server gets new ones, and the private keys stay in memory.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::NoServerSessionStorage;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Certificates are valid from this long ago, so that a client whose clock is behind still accepts
/// them.
const VALID_BEFORE: Duration = DAY.saturating_mul(30);

/// Certificates are valid for this long. Some platforms refuse server certificates with more than
/// 398 days.
const VALID_AFTER: Duration = DAY.saturating_mul(365);

/// A certificate authority and a TLS configuration whose certificate it signed.
pub(crate) struct Tls {
    pub(crate) ca_pem: String,
    pub(crate) config: Arc<ServerConfig>,
}

impl Tls {
    /// Makes an authority and a server certificate for exactly `names` (DNS names or IP addresses).
    /// If `expired`, the server's certificate expired an hour ago. With `resumption`, clients may
    /// resume a session instead of a full handshake.
    ///
    /// # Errors
    /// `InvalidInput` if a name is neither; otherwise what the cryptographic library reports.
    pub(crate) fn new(names: &[String], expired: bool, resumption: bool) -> io::Result<Self> {
        let now = SystemTime::now();

        let mut ca = CertificateParams::default();
        (ca.not_before, ca.not_after) = ((now - VALID_BEFORE).into(), (now + VALID_AFTER).into());
        ca.distinguished_name.push(DnType::CommonName, "local-sts test authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().map_err(io::Error::other)?)
            .map_err(io::Error::other)?;

        let mut leaf = CertificateParams::new(names)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("certificate name: {error}")))?;
        let end = if expired { now - Duration::from_secs(3600) } else { now + VALID_AFTER };
        (leaf.not_before, leaf.not_after) = ((now - VALID_BEFORE).into(), end.into());
        leaf.distinguished_name.push(DnType::CommonName, "local-sts");
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let leaf = leaf.signed_by(&key, &ca).map_err(io::Error::other)?;

        // The provider is named: a library must not set the process-wide default.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if resumption {
            // Tickets are kept by the client. The default, sessions that the server keeps, has room
            // for 256, which a storm of connections exceeds.
            config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(io::Error::other)?;
            // One per connection is enough, and short enough for the proxy to distinguish it from a
            // response.
            config.send_tls13_tickets = 1;
        } else {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }

        Ok(Self { ca_pem: ca.pem(), config: Arc::new(config) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_be_dns_names_or_addresses_and_nothing_else() {
        let tls = Tls::new(&["sts.amazonaws.com".to_owned(), "127.0.0.1".to_owned()], false, true).unwrap();
        assert!(tls.ca_pem.starts_with("-----BEGIN CERTIFICATE-----"));
        let error = Tls::new(&["st\u{00fc}ck".to_owned()], false, true).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
