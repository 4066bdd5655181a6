//! The root certificates that TLS trusts: the system's, and those of awsStsCAFile.

use super::certificates::{self, Facts};
use crate::denial::{Cause, Denial};
use once_cell::sync::OnceCell;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Maximum size of awsStsCAFile, in bytes.
const MAX_CA_FILE_LENGTH: u64 = 4 * 1024 * 1024;

/// Maximum length of a path, in bytes: PATH_MAX of Linux.
const MAX_PATH_LENGTH: usize = 4096;

/// While the system's roots are incomplete, at most one part in this many of the time is spent on
/// reading them again.
const READING_SHARE: u32 = 20;

/// The file in awsStsCAFile, read when the parameter was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaFile {
    path: String,
    roots: Vec<CertificateDer<'static>>,
}

impl CaFile {
    /// Reads a PEM file of root certificates.
    ///
    /// # Errors
    /// What the file must be and what is wrong with it, to stand after the parameter's name. A
    /// wrong certificate is identified by its position in the file and its subject.
    pub fn read(path: &str) -> Result<Self, String> {
        if path.len() > MAX_PATH_LENGTH || path.contains(char::is_control) || !path.starts_with('/') {
            return Err("must be the absolute path of a PEM file of CA certificates".to_owned());
        }
        let wrong = |why: String| format!("must be a PEM file of CA certificates, but {path} {why}");
        let pem = read_regular_file(path).map_err(wrong)?;
        let roots = ca_certificates(&pem, UnixTime::now()).map_err(wrong)?;
        Ok(Self { path: path.to_owned(), roots })
    }

    /// The path, as it was given.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The certificates, in the order of the file.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }
}

fn read_regular_file(path: &str) -> Result<Vec<u8>, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    // O_NONBLOCK, since a FIFO or a device could block the server for ever.
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(MAX_CA_FILE_LENGTH + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_CA_FILE_LENGTH {
        return Err("is larger than 4 MiB".to_owned());
    }
    Ok(bytes)
}

/// Reads the CA certificates of a PEM file.
///
/// The whole file must be text: certificates, and comments between them as `openssl x509 -text` and
/// the bundles of distributions have. So a certificate planted in a database file or a log is
/// refused.
fn ca_certificates(pem: &[u8], now: UnixTime) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = pem.strip_prefix("\u{feff}".as_bytes()).unwrap_or(pem);
    let text = std::str::from_utf8(pem).ok().filter(|text| {
        let is_binary = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
        !text.contains(is_binary)
    });
    let text = text.ok_or("is not a text file")?;
    let blocks = count_certificate_blocks(text)?;
    let roots: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| "is not valid PEM")?;
    if roots.len() != blocks {
        return Err("is not valid PEM".to_owned());
    }
    if roots.is_empty() {
        return Err("contains no certificate".to_owned());
    }
    let mut trusted = RootCertStore::empty();
    for (at, root) in roots.iter().enumerate() {
        let place = format!("its certificate {} of {}", at + 1, roots.len());
        let facts = Facts::read(root).ok_or_else(|| format!("is damaged: {place} is not an X.509 certificate"))?;
        if let Some(why) = facts.unfit_as_ca(now) {
            return Err(format!("cannot be used: {place} ({}) {why}", facts.subject));
        }
        trusted.add(root.clone()).map_err(|_| {
            format!("cannot be used: {place} ({}) is not accepted as a root certificate", facts.subject)
        })?;
    }
    Ok(roots)
}

/// Counts the certificates. Refuses any other PEM data, and an incomplete certificate.
fn count_certificate_blocks(text: &str) -> Result<usize, &'static str> {
    let (mut blocks, mut is_inside) = (0, false);
    for line in text.lines() {
        match line.trim_end() {
            "-----BEGIN CERTIFICATE-----" if !is_inside => {
                is_inside = true;
                blocks += 1;
            }
            "-----END CERTIFICATE-----" if is_inside => is_inside = false,
            line if line.contains("PRIVATE KEY-----") => {
                return Err("contains a private key; it must contain only certificates");
            }
            line if line.contains("-----BEGIN") || line.contains("-----END") => {
                return Err("contains PEM data other than whole certificates");
            }
            _ => {}
        }
    }
    if is_inside { Err("is truncated: its last certificate has no END line") } else { Ok(blocks) }
}

/// The system's root certificates.
#[derive(Debug)]
struct SystemRoots {
    complete: OnceCell<Arc<RootCertStore>>,
    incomplete: Mutex<Incomplete>,
}

/// The roots that were read while others could not be.
#[derive(Debug)]
struct Incomplete {
    roots: Arc<RootCertStore>,
    /// When to read again; none before the first time.
    retry_at: Option<Instant>,
}

/// The result of reading the system's roots once.
struct ReadRoots {
    roots: RootCertStore,
    is_complete: bool,
}

impl SystemRoots {
    fn new() -> Self {
        let incomplete = Incomplete { roots: Arc::new(RootCertStore::empty()), retry_at: None };
        Self { complete: OnceCell::new(), incomplete: Mutex::new(incomplete) }
    }

    /// The system's roots, where OpenSSL looks for them: SSL_CERT_FILE and SSL_CERT_DIR come first.
    /// Once all of them could be read, they are not read again.
    fn of_process() -> Arc<RootCertStore> {
        static ROOTS: OnceCell<SystemRoots> = OnceCell::new();
        ROOTS.get_or_init(SystemRoots::new).get(Instant::now, || {
            let found = rustls_native_certs::load_native_certs();
            let mut roots = RootCertStore::empty();
            // The system's store may contain certificates that rustls rejects; the others are used.
            roots.add_parsable_certificates(found.certs);
            // The library reports no error when there are no certificates at all.
            let is_complete = found.errors.is_empty() && !roots.is_empty();
            ReadRoots { roots, is_complete }
        })
    }

    /// The roots that `read` returns. While they are incomplete, perhaps for lack of file
    /// descriptors, they are read again, but not so often that a machine without roots spends its
    /// time on that.
    fn get(&self, now: impl Fn() -> Instant, read: impl FnOnce() -> ReadRoots) -> Arc<RootCertStore> {
        if let Some(roots) = self.complete.get() {
            return Arc::clone(roots);
        }
        let mut incomplete = lock(&self.incomplete);
        let began = now();
        // Another thread may have completed them in the meantime.
        if self.complete.get().is_none() && incomplete.retry_at.is_none_or(|at| at <= began) {
            let ReadRoots { roots, is_complete } = read();
            let ended = now();
            incomplete.retry_at = Some(ended + ended.saturating_duration_since(began) * READING_SHARE);
            // Fewer roots than before are a failure to read, not a change.
            if is_complete || roots.len() > incomplete.roots.len() {
                incomplete.roots = Arc::new(roots);
            }
            if is_complete {
                let _ = self.complete.set(Arc::clone(&incomplete.roots));
            }
        }
        Arc::clone(&incomplete.roots)
    }
}

/// A panic leaves the values behind these locks intact, since they are replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Verifies certificates with rustls, and adds messages for operators to its errors. The verdict is
/// always that of rustls.
///
/// It trusts the system's roots as far as they could be read, so later connections may trust more.
#[derive(Debug)]
pub struct Verifier {
    provider: Arc<CryptoProvider>,
    extra_roots: RootCertStore,
    current: Mutex<CurrentVerifier>,
}

/// The verifier of rustls with the system's roots that it was built from.
#[derive(Clone, Debug)]
struct CurrentVerifier {
    system: Arc<RootCertStore>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl Verifier {
    /// Trusts the system's roots and these.
    ///
    /// # Errors
    /// A denial if there are no root certificates at all.
    pub fn new(provider: Arc<CryptoProvider>, extra_roots: &[CertificateDer<'static>]) -> Result<Self, Denial> {
        let mut extra = RootCertStore::empty();
        extra.add_parsable_certificates(extra_roots.iter().cloned());
        let current = CurrentVerifier::new(SystemRoots::of_process(), &extra, &provider).map_err(|_| {
            Denial::new(
                Cause::UntrustedTls,
                "no root certificates are available to verify STS: install the system's ca-certificates or set \
                 awsStsCAFile",
            )
        })?;
        Ok(Self { provider, extra_roots: extra, current: Mutex::new(current) })
    }

    /// The verifier of rustls for these roots of the system, rebuilt if they have changed.
    fn current(&self, system: Arc<RootCertStore>) -> Arc<WebPkiServerVerifier> {
        let mut current = lock(&self.current);
        if !Arc::ptr_eq(&current.system, &system)
            && let Ok(rebuilt) = CurrentVerifier::new(system, &self.extra_roots, &self.provider)
        {
            *current = rebuilt;
        }
        Arc::clone(&current.verifier)
    }
}

impl CurrentVerifier {
    fn new(
        system: Arc<RootCertStore>,
        extra: &RootCertStore,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, rustls::client::VerifierBuilderError> {
        let roots = system.roots.iter().chain(&extra.roots).cloned().collect::<RootCertStore>();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build()?;
        Ok(Self { system, verifier })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.current(SystemRoots::of_process())
            .verify_server_cert(certificate, intermediates, name, ocsp_response, now)
            .map_err(|error| certificates::explain(error, certificate))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
            .map_err(certificates::explain_signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
            .map_err(certificates::explain_signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    use rustls::CertificateError;
    use std::cell::Cell;
    use std::time::Duration;

    fn ca(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn leaf(issuer: &CertifiedIssuer<'_, KeyPair>) -> CertificateDer<'static> {
        let params = CertificateParams::new(["sts.amazonaws.com".to_owned()]).unwrap();
        params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
    }

    fn now() -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(1_795_780_800))
    }

    #[test]
    fn a_bundle_with_comments_is_a_ca_file() {
        let (one, other) = (ca("one"), ca("other"));
        let text = |it: &CertifiedIssuer<'_, KeyPair>| it.pem().replace('\n', "\r\n");
        for (name, bundle, count) in [
            ("one", one.pem(), 1),
            ("no line feed at the end", one.pem().trim_end().to_owned(), 1),
            ("of Windows", format!("\u{feff}{}", text(&one)), 1),
            (
                "of a distribution",
                format!(
                    "# Bundle of CA Root Certificates\n\n\u{c9}xample\n=======\n{}\n# end\n{}",
                    one.pem(),
                    other.pem()
                ),
                2,
            ),
            (
                "of openssl x509 -text",
                format!("Certificate:\n    Data:\n\tVersion: 3 (0x2)\n        Issuer: CN = one\n{}", one.pem()),
                1,
            ),
        ] {
            let roots = ca_certificates(bundle.as_bytes(), now()).unwrap_or_else(|why| panic!("{name}: {why}"));
            assert_eq!(roots.len(), count, "{name}");
            assert_eq!(roots[0], *one.der(), "{name}");
        }
    }

    #[test]
    fn a_file_with_anything_but_ca_certificates_is_refused_with_the_wrong_certificate() {
        let good = ca("good").pem();
        let mut expired = CertificateParams::default();
        expired.distinguished_name.push(DnType::CommonName, "old");
        expired.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        expired.not_after = rcgen::date_time_ymd(2021, 1, 1);
        let expired = expired.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let server = CertificateParams::new(["db1.example.com".to_owned()]).unwrap();
        let server = server.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let key = KeyPair::generate().unwrap().serialize_pem();
        // A validator as WiredTiger stores it: text among the bytes of a BSON document.
        let planted = [b"\x00\x41\x00WT\x02$ne\x00\x10\x00\x00\x00\n", good.as_bytes(), b"\n\x00\x00"].concat();
        let in_a_log = format!("{{\"msg\":\"x\",\"attr\":\"{good}\"}}\n");
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
        let crl = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n".to_owned();
        let other_kind = "contains PEM data other than whole certificates";
        for (name, file, expected) in [
            ("an empty file", vec![], "contains no certificate"),
            ("text", b"hello\n".to_vec(), "contains no certificate"),
            ("a database file", planted, "is not a text file"),
            ("a log", in_a_log.into_bytes(), other_kind),
            ("escape sequences", format!("\u{1b}[0m\n{good}").into_bytes(), "is not a text file"),
            ("Latin-1", [b"\xe9\n", good.as_bytes()].concat(), "is not a text file"),
            ("UTF-16", good.encode_utf16().flat_map(u16::to_le_bytes).collect(), "is not a text file"),
            ("DER", ca("der").der().to_vec(), "is not a text file"),
            ("a private key", key.clone().into_bytes(), "contains a private key"),
            ("a private key after a certificate", format!("{good}{key}").into_bytes(), "contains a private key"),
            ("a CRL", format!("{good}{crl}").into_bytes(), other_kind),
            ("a block that is indented", good.replace("-----BEGIN", " -----BEGIN").into_bytes(), other_kind),
            (
                "an end without a beginning",
                good.replacen("-----BEGIN CERTIFICATE-----\n", "", 1).into_bytes(),
                other_kind,
            ),
            ("two beginnings", format!("-----BEGIN CERTIFICATE-----\n{good}").into_bytes(), other_kind),
            (
                "a file that is cut off",
                good.as_bytes()[..good.len() / 2].to_vec(),
                "its last certificate has no END line",
            ),
            ("bytes that are not base64", good.replacen("\nMII", "\n!!!", 1).into_bytes(), "is not valid PEM"),
            ("junk", damaged.clone().into_bytes(), "its certificate 1 of 1 is not an X.509 certificate"),
            (
                "junk second",
                format!("{good}{damaged}").into_bytes(),
                "its certificate 2 of 2 is not an X.509 certificate",
            ),
            (
                "an expired CA",
                format!("{good}{expired}").into_bytes(),
                "cannot be used: its certificate 2 of 2 (CN=old) expired on 2021-01-01 (this machine's clock says \
                 2026-11-27)",
            ),
            (
                "a server's certificate",
                format!("{server}{good}").into_bytes(),
                "its certificate 1 of 2 (CN=rcgen self signed cert) is not a CA certificate: its basic constraints lack \
                 CA:TRUE",
            ),
        ] {
            let why = ca_certificates(&file, now()).map(|_| ()).unwrap_err();
            assert!(why.contains(expected), "{name}: {why}");
        }
    }

    #[test]
    fn a_path_without_a_readable_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let long = std::fs::File::create(path("long.pem")).unwrap();
        long.set_len(MAX_CA_FILE_LENGTH + 1).unwrap();
        for (path, expected) in [
            (path("long.pem"), "is larger than 4 MiB"),
            (path(""), "is not a regular file"),
            ("/dev/zero".to_owned(), "is not a regular file"),
            (path("missing.pem"), "cannot be read: No such file"),
            ("relative.pem".to_owned(), "must be the absolute path"),
            ("/a\nb".to_owned(), "must be the absolute path"),
            (format!("/{}", "a".repeat(MAX_PATH_LENGTH)), "must be the absolute path"),
        ] {
            let why = CaFile::read(&path).unwrap_err();
            assert!(why.starts_with("must be ") && why.contains(expected), "{path}: {why}");
        }
        let (good, root) = (path("good.pem"), ca("good"));
        std::fs::write(&good, root.pem()).unwrap();
        let file = CaFile::read(&good).unwrap();
        assert_eq!((file.path(), file.roots()), (&*good, &[root.der().clone()][..]));
    }

    fn read_roots(roots: &[&CertifiedIssuer<'_, KeyPair>], is_complete: bool) -> ReadRoots {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().map(|root| root.der().clone()));
        ReadRoots { roots: store, is_complete }
    }

    /// Reading takes 10 ms here, so the roots are read again after 200 ms at the earliest.
    #[test]
    fn the_system_s_roots_are_read_again_until_they_are_complete_but_not_all_the_time() {
        let (one, other) = (ca("one"), ca("other"));
        let (system, began) = (SystemRoots::new(), Instant::now());
        let clock = Cell::new(began);
        let readings = Cell::new(0);
        let get = |at_ms: u64, result: ReadRoots| {
            clock.set(began + Duration::from_millis(at_ms));
            let read = || {
                readings.set(readings.get() + 1);
                clock.set(clock.get() + Duration::from_millis(10));
                result
            };
            system.get(|| clock.get(), read).len()
        };
        assert_eq!((get(0, read_roots(&[], false)), readings.get()), (0, 1));
        assert_eq!((get(209, read_roots(&[&one], false)), readings.get()), (0, 1), "read again too soon");
        assert_eq!((get(210, read_roots(&[&one], false)), readings.get()), (1, 2));
        assert_eq!((get(1000, read_roots(&[], false)), readings.get()), (1, 3), "what was read before is lost");
        assert_eq!((get(2000, read_roots(&[&one, &other], true)), readings.get()), (2, 4));
        assert_eq!((get(9000, read_roots(&[], false)), readings.get()), (2, 4), "read again though complete");
    }

    /// A verifier with only the file's roots at first trusts the system's once they could be read.
    #[test]
    fn a_verifier_trusts_roots_that_could_be_read_only_later() {
        let (file, system) = (ca("file"), ca("system"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut extra = RootCertStore::empty();
        extra.add(file.der().clone()).unwrap();
        let none = Arc::new(RootCertStore::empty());
        let current = CurrentVerifier::new(Arc::clone(&none), &extra, &provider).unwrap();
        let verifier = Verifier { provider, extra_roots: extra, current: Mutex::new(current) };
        let name = ServerName::try_from("sts.amazonaws.com").unwrap();
        let verify = |roots: &Arc<RootCertStore>, leaf: &CertificateDer<'_>| {
            verifier.current(Arc::clone(roots)).verify_server_cert(leaf, &[], &name, &[], now())
        };
        let (by_file, by_system) = (leaf(&file), leaf(&system));
        assert!(verify(&none, &by_file).is_ok());
        let error = verify(&none, &by_system).unwrap_err();
        assert_eq!(error, CertificateError::UnknownIssuer.into());
        let complete = Arc::new(read_roots(&[&system], true).roots);
        assert!(verify(&complete, &by_system).is_ok() && verify(&complete, &by_file).is_ok());
        assert!(verify(&complete, &leaf(&ca("another"))).is_err());
    }

    /// Each verdict is that of rustls with the same roots; only the messages of errors differ.
    #[test]
    fn the_verdict_is_that_of_rustls() {
        let (trusted, other) = (ca("trusted"), ca("other"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Verifier::new(Arc::clone(&provider), &[trusted.der().clone()]).unwrap();
        let mut roots = RootCertStore::clone(&SystemRoots::of_process());
        roots.add(trusted.der().clone()).unwrap();
        let plain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let good = leaf(&trusted);
        let cut = CertificateDer::from(good[..good.len() - 1].to_vec());
        let mut changed = good.to_vec();
        *changed.last_mut().unwrap() ^= 1;
        let changed = CertificateDer::from(changed);
        let (mut accepted, mut refused) = (0, 0);
        for certificate in [&good, &leaf(&other), other.der(), trusted.der(), &cut, &changed] {
            for name in ["sts.amazonaws.com", "sts.example.com"] {
                for now in [0, 1_795_780_800, 4_000_000_000_000] {
                    let (name, now) =
                        (ServerName::try_from(name).unwrap(), UnixTime::since_unix_epoch(Duration::from_secs(now)));
                    let expected = plain.verify_server_cert(certificate, &[], &name, &[], now);
                    let verdict = verifier.verify_server_cert(certificate, &[], &name, &[], now);
                    assert_eq!(verdict.is_ok(), expected.is_ok(), "{certificate:?} {name:?} {now:?}");
                    match verdict {
                        Ok(_) => accepted += 1,
                        Err(error) => {
                            refused += 1;
                            let Error::InvalidCertificate(cause) = expected.unwrap_err() else {
                                panic!("another error")
                            };
                            let kept = certificates::cause(&error).expect("an error about a certificate");
                            assert_eq!(format!("{kept:?}"), format!("{cause:?}"));
                            assert!(certificates::reason(&error).contains("certificate "), "{error}");
                        }
                    }
                }
            }
        }
        assert_eq!((accepted, refused), (1, 35));
    }
}
