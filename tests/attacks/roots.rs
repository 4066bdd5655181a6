//! Whom TLS trusts: a file of awsStsCAFile that is not one of CA certificates, and system roots
//! that come late.

use std::fs;

use bson::{Document, doc};
use local_sts::{Identity, LocalSts};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

use crate::support::aws_client;
use crate::support::fixture::{ACCOUNT, Fixture, assert_plain_denial, credentials};

/// Asserts that the file of awsStsCAFile, replaced by these bytes, is refused for this reason, and
/// that nothing changes.
fn is_refused(fixture: &Fixture, name: &str, bytes: &[u8], reason: &str) {
    let good = fs::read(fixture.ca_file()).expect("the file of awsStsCAFile");
    fs::write(fixture.ca_file(), bytes).expect("another file");
    let path = fixture.ca_file();
    let set = doc! { "setParameter": 1, "awsStsCAFile": path.to_str().expect("UTF-8") };
    let why = fixture.mongod.try_as_admin("admin", set).expect_err(name).to_string();
    assert!(
        why.contains("awsStsCAFile: must be a PEM file of CA certificates") && why.contains(reason),
        "{name}: {why}"
    );
    fs::write(fixture.ca_file(), good).expect("the first file");
    fixture.assert_still_serves(name);
}

/// Somebody who may write to one database plants a certificate of their own in a file of the
/// server's.
#[test]
fn a_certificate_that_was_planted_in_a_database_file_is_trusted_by_nobody() {
    let fixture = Fixture::start();
    let attacker = LocalSts::builder().identity(fixture.user.clone()).start().expect("an STS");
    let ne = format!("\n{}\n", attacker.ca_pem());
    fixture.mongod.run_as_admin("app", doc! { "create": "planted", "validator": { "x": { "$ne": ne } } });
    fixture.mongod.run_as_admin("admin", doc! { "fsync": 1 });
    let options: Document = fixture.mongod.run_as_admin("admin", doc! { "getCmdLineOpts": 1 });
    let storage = options.get_document("parsed").and_then(|parsed| parsed.get_document("storage"));
    let folder = storage.and_then(|storage| storage.get_str("dbPath")).expect("its folder").to_owned();
    let catalog = fs::read(format!("{folder}/_mdb_catalog.wt")).expect("the catalog");
    let begin = b"-----BEGIN CERTIFICATE-----";
    assert!(catalog.windows(begin.len()).any(|window| window == begin), "nothing was planted");
    is_refused(&fixture, "a database file", &catalog, "is not a text file");
    // The server's log holds what clients send, escaped.
    let logged = fixture.mongod.log_text();
    is_refused(
        &fixture,
        "a log",
        format!("{logged}\"{}\"\n", attacker.ca_pem()).as_bytes(),
        "contains PEM data other than whole certificates",
    );
}

/// A file given by mistake does not make the holder of its key an STS.
#[test]
fn a_certificate_that_is_not_a_ca_s_is_not_trusted_as_one() {
    let fixture = Fixture::start();
    let pem = |change: fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "given by mistake");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").pem()
    };
    let named = "its certificate 1 of 1 (CN=given by mistake) ";
    for (name, file, reason) in [
        ("a server's certificate", pem(|it| it.is_ca = IsCa::NoCa), format!("{named}is not a CA certificate")),
        (
            "an old root",
            pem(|it| it.not_after = rcgen::date_time_ymd(2021, 1, 1)),
            format!("{named}expired on 2021-01-01"),
        ),
        (
            "a root of tomorrow",
            pem(|it| it.not_before = rcgen::date_time_ymd(2100, 1, 1)),
            format!("{named}is not valid before 2100-01-01"),
        ),
        ("a private key", KeyPair::generate().expect("a key").serialize_pem(), "contains a private key".to_owned()),
    ] {
        is_refused(&fixture, name, file.as_bytes(), &reason);
    }
}

/// The roots of the system that cannot be read at the first login are trusted once they can be, and
/// those of no other.
#[test]
fn system_roots_that_come_after_the_first_login_are_trusted_then() {
    let folder = tempfile::tempdir().expect("a folder");
    let roots = folder.path().join("roots.pem");
    let fixture = Fixture::start_with(|builder| {
        builder.env("SSL_CERT_FILE", &roots).env("SSL_CERT_DIR", folder.path().join("nowhere"))
    });
    // The file's own CA is trusted all the time. It has the name of the others, and another key.
    fixture.assert_still_serves("a start without system roots");
    let other = LocalSts::builder().identity(fixture.user.clone()).start().expect("an STS");
    fixture.set_parameter("awsStsEndpoint", other.endpoint());
    let denied = |name: &str| {
        let reply = aws_client::login_with(fixture.mongod.port(), &credentials(&fixture.user), |signer| signer).err();
        assert_plain_denial(name, &reply.unwrap_or_else(|| panic!("{name}: logged in")));
    };
    denied("no system roots");
    let stranger = LocalSts::builder().start().expect("an STS");
    fs::write(&roots, stranger.ca_pem()).expect("a file of roots");
    denied("the root of another");
    assert_eq!(other.request_count(), 0, "a signature was sent to somebody who is not trusted");
    let reasons = fixture.denial_reasons(2);
    assert!(
        reasons.iter().all(|reason| reason.contains("not trusted: the signature of its certificate (CN=local-sts)"))
    );

    // More roots than before, as when descriptors are free again: no parameter is set, and no
    // restart needed.
    fs::write(&roots, [stranger.ca_pem(), other.ca_pem()].concat()).expect("a file of roots");
    fixture.assert_still_serves("system roots that can be read");
    let forged = Identity::iam_user(ACCOUNT, "nobody");
    let reply = aws_client::login_with(fixture.mongod.port(), &credentials(&forged), |signer| signer).err();
    assert_plain_denial("a key that STS does not know", &reply.expect("a refusal"));
}
