//! Values of parameters. What is refused changes nothing, what is accepted is read back, and an
//! accepted host or endpoint is one that the HTTP and TLS libraries can use.
//!
//! The first byte of an input is the parameter's number, `0` to `7`; the second says what the rest
//! is: `t` text, `b` a BSON element, `p` the content of the file that the text names.
#![no_main]

use bson::raw::{RawDocumentBuf, cstr};
use bson::{Bson, Document};
use libfuzzer_sys::{Corpus, fuzz_target};
use psmdb_aws_iam::parameters::{self, PARAMETERS, Parameter};
use psmdb_aws_iam::settings::Store;
use std::fs;
use tempfile::{NamedTempFile, TempDir};

fuzz_target!(|data: &[u8]| -> Corpus {
    let [which, form, value @ ..] = data else { return Corpus::Reject };
    let Some(parameter) = which.checked_sub(b'0').and_then(|index| PARAMETERS.get(usize::from(index))) else {
        return Corpus::Reject;
    };
    let is_file = parameter.name == "awsStsCAFile";
    match form {
        b't' => {
            let Ok(text) = str::from_utf8(value) else { return Corpus::Reject };
            if is_file && text.starts_with('/') {
                // No file outside of a folder of its own is opened.
                if text.contains("..") {
                    return Corpus::Reject;
                }
                let folder = TempDir::new().expect("a temporary folder");
                fs::write(folder.path().join("roots.pem"), "no certificate").expect("it can be written");
                let path = format!("{}{text}", folder.path().to_str().expect("UTF-8"));
                let _ = check(&prepared(), parameter, &path, |store| store.set_text(parameter, &path));
            } else {
                let _ = check(&prepared(), parameter, text, |store| store.set_text(parameter, text));
            }
        }
        b'b' => return bson(parameter, value, is_file),
        b'p' if is_file => {
            let file = NamedTempFile::new().expect("a temporary file");
            fs::write(file.path(), value).expect("it can be written");
            let path = file.path().to_str().expect("UTF-8");
            let _ = check(&prepared(), parameter, path, |store| store.set_text(parameter, path));
        }
        _ => return Corpus::Reject,
    }
    Corpus::Keep
});

fn bson(parameter: &Parameter, element: &[u8], is_file: bool) -> Corpus {
    let Ok(length) = i32::try_from(element.len() + 5) else { return Corpus::Reject };
    let Ok(raw) = RawDocumentBuf::from_bytes([&length.to_le_bytes()[..], element, &[0]].concat()) else {
        return Corpus::Reject;
    };
    // To a second reader: the value as the text that means the same, if it is one that can be
    // accepted.
    let document = Document::from_reader(raw.as_bytes()).ok().filter(|document| document.len() == 1);
    let text = match document.as_ref().and_then(|document| document.values().next()) {
        Some(Bson::String(text)) => Some(text.clone()),
        Some(Bson::Int32(number)) => Some(number.to_string()),
        Some(Bson::Int64(number)) => Some(number.to_string()),
        Some(Bson::Double(number)) => Some(number.to_string()),
        _ => None,
    };
    if is_file && text.as_ref().is_some_and(|text| text.starts_with('/')) {
        return Corpus::Reject;
    }
    let store = prepared();
    store.complete_startup();
    let accepts = store.validate_bson(parameter, &raw);
    let text = text.unwrap_or_default();
    assert_eq!(check(&store, parameter, &text, |store| store.set_bson(parameter, &raw)), accepts);
    if accepts.is_ok() {
        chosen_among_startup_values(parameter.name, &text);
    }
    Corpus::Keep
}

/// What a running server accepted names no host, file or account that [`prepared`] did not.
fn chosen_among_startup_values(name: &str, text: &str) {
    let hosts = ["sts.eu-west-1.amazonaws.com", "sts.eu-west-2.amazonaws.com"];
    match name {
        "awsStsHost" => assert!(hosts.contains(&text)),
        "awsStsFallbackHosts" => assert!(
            text.is_empty()
                || text.split(',').all(|entry| hosts.contains(&entry.split('=').next().unwrap_or_default()))
        ),
        "awsStsCAFile" => assert_eq!(text, ""),
        "awsIamAllowedAccounts" => assert!(text.split(',').all(|account| account == "123456789012")),
        _ => {}
    }
}

/// A store in which no value is the default.
fn prepared() -> Store {
    let store = Store::default();
    for (name, value) in [
        ("awsStsHost", "sts.eu-west-1.amazonaws.com"),
        ("awsStsEndpoint", "https://[::1]:8443"),
        ("awsStsTimeoutMS", "2500"),
        ("awsIamAllowedAccounts", "123456789012"),
        ("awsStsProxy", "http://[::1]:3128"),
        ("awsStsFallbackHosts", "sts.eu-west-2.amazonaws.com=https://[::1]:8443"),
        ("awsIamRoleUserFormat", "assumedRole"),
    ] {
        let parameter = parameters::find(name).expect("it exists");
        store.set_text(parameter, value).expect("it is good");
    }
    store
}

fn values(store: &Store) -> Vec<String> {
    PARAMETERS.iter().map(|parameter| store.text(parameter)).collect()
}

fn check(
    store: &Store,
    parameter: &Parameter,
    text: &str,
    set: impl FnOnce(&Store) -> Result<(), String>,
) -> Result<(), String> {
    let (before, settings) = (values(store), store.current());
    let result = set(store);
    let after = values(store);
    for ((other, before), after) in PARAMETERS.iter().zip(&before).zip(&after) {
        assert!(before == after || (other.name == parameter.name && result.is_ok()), "{} has changed", other.name);
    }
    match &result {
        Err(why) => {
            assert!(why.starts_with(&format!("{}: ", parameter.name)), "{why:?}");
            assert!(std::sync::Arc::ptr_eq(&settings, &store.current()));
            assert!(!why.contains(char::is_control), "{why:?}");
        }
        Ok(()) => accepted(parameter, text, store),
    }
    let shown = Document::from_reader(store.bson(parameter, cstr!("value")).as_bytes());
    match shown.expect("it is BSON").get("value").expect("it has the name") {
        Bson::String(shown) => assert_eq!(shown, &store.text(parameter)),
        Bson::Int32(shown) => assert_eq!(shown.to_string(), store.text(parameter)),
        shown => panic!("{shown:?}"),
    }
    result
}

fn accepted(parameter: &Parameter, text: &str, store: &Store) {
    let value = store.text(parameter);
    match parameter.name {
        "awsStsTimeoutMS" => {
            assert_eq!(value.parse(), text.parse::<i64>());
            assert!((100..=60_000).contains(&value.parse::<i64>().expect("a number")));
        }
        "awsStsHost" => {
            assert_eq!(value, text);
            let region = store.current().sts().first_host().name().region().to_owned();
            assert!(!region.is_empty() && !region.contains(|c: char| c != '-' && !c.is_ascii_alphanumeric()));
            assert!(text == "sts.amazonaws.com" || !matches!(text.split('.').nth(1), None | Some("sts" | "amazonaws")));
            // To a second reader: below this suffix there is only STS, and no region of a partition
            // with another.
            if let Some(name) = text.strip_suffix(".amazonaws.com").filter(|name| *name != "sts") {
                let (label, region) = name.split_once('.').expect("a region");
                assert!(["sts", "sts-fips"].contains(&label) && !region.contains('.'), "{text}");
                assert!(region.ends_with(|c: char| c.is_ascii_digit()) && !region.starts_with("cn-"), "{text}");
            }
            let url: http::Uri = format!("https://{text}/").parse().expect("it makes a URL");
            assert_eq!((url.host(), url.port(), url.path()), (Some(text), None, "/"));
            let name = rustls_pki_types::ServerName::try_from(text).expect("a certificate can carry it");
            assert!(matches!(name, rustls_pki_types::ServerName::DnsName(_)), "{text} is an address");
        }
        "awsStsEndpoint" if !text.is_empty() => {
            assert_eq!(value, text);
            let url: http::Uri = text.parse().expect("it is a URL");
            assert_eq!((url.scheme_str(), url.path(), url.query()), (Some("https"), "/", None));
            let authority = url.authority().expect("it has one");
            assert!(!authority.as_str().contains('@') && !authority.host().is_empty());
        }
        "awsStsProxy" if !text.is_empty() => {
            assert_eq!(value, text);
            let url: http::Uri = text.parse().expect("it is a URL");
            assert_eq!((url.scheme_str(), url.path(), url.query()), (Some("http"), "/", None));
            assert!(url.port_u16().is_some_and(|port| port != 0) && !text.contains('@'));
        }
        "awsIamAllowedAccounts" if !text.is_empty() => {
            assert_eq!(value, text);
            assert!(text.split(',').all(|id| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_digit())));
        }
        "awsStsFallbackHosts" if !text.is_empty() => {
            assert_eq!(value, text);
            for entry in text.split(',') {
                let (host, endpoint) = entry.split_once('=').map_or((entry, None), |(host, at)| (host, Some(at)));
                let alone = Store::default();
                let set = |name: &str, value: &str| {
                    let parameter = parameters::find(name).expect("it exists");
                    alone.set_text(parameter, value)
                };
                set("awsStsHost", host).expect("a host that is good here is good there");
                if let Some(endpoint) = endpoint {
                    assert!(!endpoint.is_empty());
                    set("awsStsEndpoint", endpoint).expect("an address that is good here is good there");
                }
            }
        }
        _ => assert_eq!(value, text),
    }
}
