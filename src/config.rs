//! The server parameters: names, defaults, validation, and the settings they make up.
//!
//! [`PARAMETERS`] is the one table of them. A parameter is set as a whole or not at all; a login under way keeps the
//! settings it began with.

use crate::denial::Denial;
use crate::principal::{self, Principal};
use crate::sts::admission::Admission;
use crate::sts::client::{Client, Route};
use crate::sts::endpoint::{Endpoint, StsHost};
use crate::sts::tls;
use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};
use once_cell::sync::OnceCell;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// Largest file of root certificates that is read, in bytes.
const MAX_CA_FILE_LENGTH: u64 = 4 * 1024 * 1024;

/// Longest path of a file, in bytes, as Linux has it (PATH_MAX).
const MAX_PATH_LENGTH: usize = 4096;

/// Most accounts that awsIamAllowedAccounts can list.
const MAX_ALLOWED_ACCOUNTS: usize = 1000;

/// Bounds of awsStsTimeoutMS.
const TIMEOUT_MS: std::ops::RangeInclusive<i64> = 100..=60_000;

/// The values of all parameters at one moment, and the client made from them.
#[derive(Debug)]
pub struct Settings {
    host: StsHost,
    endpoint: Option<Endpoint>,
    ca_file: Option<CaFile>,
    timeout_ms: i64,
    allowed_accounts: AllowedAccounts,
    /// Bounds the questions of the whole process, whatever the other values are.
    admission: Arc<Admission>,
    /// Kept when other parameters change, with the TLS sessions that can be resumed.
    tls: Arc<OnceCell<Arc<ClientConfig>>>,
    client: OnceCell<Client>,
}

/// The accounts whose principals may log in, in the order they were given; none means all.
#[derive(Clone, Debug, Default)]
struct AllowedAccounts {
    text: String,
}

/// A file of root certificates, read once, when the parameter was set.
#[derive(Clone, Debug)]
struct CaFile {
    path: String,
    roots: Vec<CertificateDer<'static>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: StsHost::default(),
            endpoint: None,
            ca_file: None,
            timeout_ms: 10_000,
            allowed_accounts: AllowedAccounts::default(),
            admission: Arc::default(),
            tls: Arc::default(),
            client: OnceCell::new(),
        }
    }
}

impl Settings {
    /// The name of STS that clients are told.
    pub fn host(&self) -> &StsHost {
        &self.host
    }

    /// Says whether principals of this one's account may log in: the operator's second lock, after STS's word.
    ///
    /// # Errors
    /// A denial that names the account, when awsIamAllowedAccounts lists others only.
    pub fn check_account(&self, principal: &Principal) -> Result<(), Denial> {
        if self.allowed_accounts.allow(&principal.account) {
            return Ok(());
        }
        Err(Denial::account_not_allowed(format!(
            "STS confirmed {}, but awsIamAllowedAccounts does not list account {}",
            principal.user_name(),
            principal.account
        )))
    }

    /// What bounds the questions to STS.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// The client towards STS, made when it is first asked for so that a server starts without it.
    ///
    /// # Errors
    /// As [`tls::client_config`].
    pub fn client(&self) -> Result<&Client, Denial> {
        self.client.get_or_try_init(|| {
            let roots = self.ca_file.as_ref().map_or(&[][..], |file| &file.roots);
            let tls = self.tls.get_or_try_init(|| tls::client_config(roots))?;
            Ok(Client::new(Route {
                host: &self.host,
                endpoint: self.endpoint.as_ref(),
                tls: Arc::clone(tls),
                timeout: Duration::from_millis(self.timeout_ms.unsigned_abs()),
                admission: Arc::clone(&self.admission),
            }))
        })
    }

    /// The same values without the client, to be changed.
    fn draft(&self) -> Self {
        Self {
            host: self.host.clone(),
            endpoint: self.endpoint.clone(),
            ca_file: self.ca_file.clone(),
            timeout_ms: self.timeout_ms,
            allowed_accounts: self.allowed_accounts.clone(),
            admission: Arc::clone(&self.admission),
            tls: Arc::clone(&self.tls),
            client: OnceCell::new(),
        }
    }
}

/// One server parameter.
#[derive(Debug)]
pub struct Parameter {
    /// The name after `setParameter`.
    pub name: &'static str,
    access: Access,
}

/// How a parameter's value is read and changed; the type of the accessor is the type of the value.
#[derive(Debug)]
enum Access {
    Text { get: fn(&Settings) -> &str, set: fn(&mut Settings, &str) -> Result<(), String> },
    Integer { get: fn(&Settings) -> i64, set: fn(&mut Settings, i64) -> Result<(), String> },
}

/// Every parameter, in the order in which they are registered.
pub static PARAMETERS: [Parameter; 5] = [
    Parameter {
        name: "awsStsHost",
        access: Access::Text {
            get: |settings| settings.host.as_str(),
            set: |settings, text| StsHost::parse(text).map(|host| settings.host = host),
        },
    },
    Parameter {
        name: "awsStsEndpoint",
        access: Access::Text {
            get: |settings| settings.endpoint.as_ref().map_or("", Endpoint::as_str),
            set: |settings, text| {
                settings.endpoint = if text.is_empty() { None } else { Some(Endpoint::parse(text)?) };
                Ok(())
            },
        },
    },
    Parameter {
        name: "awsStsCAFile",
        access: Access::Text {
            get: |settings| settings.ca_file.as_ref().map_or("", |file| &file.path),
            set: |settings, text| {
                settings.ca_file = if text.is_empty() { None } else { Some(CaFile::read(text)?) };
                settings.tls = Arc::default();
                Ok(())
            },
        },
    },
    Parameter {
        name: "awsStsTimeoutMS",
        access: Access::Integer {
            get: |settings| settings.timeout_ms,
            set: |settings, value| {
                if !TIMEOUT_MS.contains(&value) {
                    let (least, most) = (TIMEOUT_MS.start(), TIMEOUT_MS.end());
                    return Err(format!("a number of milliseconds from {least} to {most} is allowed"));
                }
                settings.timeout_ms = value;
                Ok(())
            },
        },
    },
    Parameter {
        name: "awsIamAllowedAccounts",
        access: Access::Text {
            get: |settings| &settings.allowed_accounts.text,
            set: |settings, text| AllowedAccounts::parse(text).map(|accounts| settings.allowed_accounts = accounts),
        },
    },
];

impl Parameter {
    /// Sets the value from text, as a command line or a configuration file gives it.
    ///
    /// # Errors
    /// One sentence that names the parameter and says what is allowed. Nothing has changed then.
    pub fn set_text(&self, store: &Store, text: &str) -> Result<(), String> {
        store.change(|settings| self.put_text(settings, text))
    }

    /// Sets the value from a BSON document of one element, as the setParameter command gives it.
    ///
    /// # Errors
    /// As [`Parameter::set_text`], and when the element has another type.
    pub fn set_bson(&self, store: &Store, element: &RawDocument) -> Result<(), String> {
        store.change(|settings| self.put_bson(settings, element))
    }

    /// Says whether [`Parameter::set_bson`] would accept the element, and changes nothing.
    ///
    /// # Errors
    /// As [`Parameter::set_bson`].
    pub fn validate_bson(&self, store: &Store, element: &RawDocument) -> Result<(), String> {
        self.put_bson(&mut store.current().draft(), element)
    }

    /// The value as the only element of a BSON document, under the name the server asks for.
    ///
    /// # Errors
    /// A sentence when the name holds a NUL.
    pub fn to_bson(&self, store: &Store, name: &str) -> Result<RawDocumentBuf, String> {
        let name: &bson::raw::CStr = name.try_into().map_err(|_| "a parameter's name holds no NUL".to_owned())?;
        let settings = store.current();
        let mut document = RawDocumentBuf::new();
        match &self.access {
            Access::Text { get, .. } => document.append(name, get(&settings)),
            Access::Integer { get, .. } => match i32::try_from(get(&settings)) {
                Ok(small) => document.append(name, small),
                Err(_) => document.append(name, get(&settings)),
            },
        }
        Ok(document)
    }

    /// The value as text.
    pub fn to_text(&self, store: &Store) -> String {
        let settings = store.current();
        match &self.access {
            Access::Text { get, .. } => get(&settings).to_owned(),
            Access::Integer { get, .. } => get(&settings).to_string(),
        }
    }

    fn put_text(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        match &self.access {
            Access::Text { set, .. } => set(settings, text),
            Access::Integer { set, .. } => match text.parse() {
                Ok(number) => set(settings, number),
                Err(_) => Err("a whole number is allowed".to_owned()),
            },
        }
        .map_err(|why| self.refusal(&why))
    }

    fn put_bson(&self, settings: &mut Settings, element: &RawDocument) -> Result<(), String> {
        let mut elements = element.iter();
        let value = match (elements.next(), elements.next()) {
            (Some(Ok((_, value))), None) => value,
            _ => return Err(self.refusal("one value is allowed")),
        };
        match (&self.access, value) {
            (Access::Text { set, .. }, RawBsonRef::String(text)) => set(settings, text),
            (Access::Text { .. }, _) => Err("a string is allowed".to_owned()),
            (Access::Integer { set, .. }, RawBsonRef::Int32(number)) => set(settings, i64::from(number)),
            (Access::Integer { set, .. }, RawBsonRef::Int64(number)) => set(settings, number),
            // A shell sends its numbers as doubles; whole ones in the exact range are meant as integers.
            (Access::Integer { set, .. }, RawBsonRef::Double(number))
                if number.fract() == 0.0 && number.abs() <= 9e15 =>
            {
                #[expect(clippy::cast_possible_truncation, reason = "whole and in range, as just checked")]
                set(settings, number as i64)
            }
            (Access::Integer { .. }, _) => Err("a whole number is allowed".to_owned()),
        }
        .map_err(|why| self.refusal(&why))
    }

    fn refusal(&self, why: &str) -> String {
        format!("{}: {why}", self.name)
    }
}

/// The settings in force. Readers never wait for a file or for STS.
#[derive(Debug, Default)]
pub struct Store {
    current: RwLock<Arc<Settings>>,
}

impl Store {
    /// The settings in force now. They stay as they are for whoever holds them.
    pub fn current(&self) -> Arc<Settings> {
        // A poisoned lock only says that a change panicked; the settings are replaced whole, so they are sound.
        let current = self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// Changes a copy and puts it in force when the change succeeds.
    fn change(&self, change: impl Fn(&mut Settings) -> Result<(), String>) -> Result<(), String> {
        loop {
            // The change may read a file, so that it is made without the lock, and made again when it lost a race.
            let before = self.current();
            let mut draft = before.draft();
            change(&mut draft)?;
            let mut current = self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            if Arc::ptr_eq(&current, &before) {
                *current = Arc::new(draft);
                return Ok(());
            }
        }
    }
}

impl AllowedAccounts {
    /// Checks a list of 12-digit account ids, separated by commas; an empty one allows all accounts.
    fn parse(text: &str) -> Result<Self, String> {
        let accounts = text.split(',');
        if !text.is_empty()
            && (accounts.clone().count() > MAX_ALLOWED_ACCOUNTS || !accounts.clone().all(principal::is_account))
        {
            return Err(format!(
                "account ids of 12 digits, separated by commas and without spaces, are allowed, such as \
                 123456789012,210987654321, at most {MAX_ALLOWED_ACCOUNTS}; an empty text allows every account"
            ));
        }
        Ok(Self { text: text.to_owned() })
    }

    fn allow(&self, account: &str) -> bool {
        self.text.is_empty() || self.text.split(',').any(|allowed| allowed == account)
    }
}

impl CaFile {
    /// Reads a PEM file of root certificates.
    fn read(path: &str) -> Result<Self, String> {
        if path.len() > MAX_PATH_LENGTH || path.contains(char::is_control) || !path.starts_with('/') {
            return Err("the absolute path of a PEM file with root certificates is allowed".to_owned());
        }
        let wrong = |why: &str| format!("a PEM file with root certificates is allowed, but {path} {why}");
        let unreadable = |error: io::Error| wrong(&format!("cannot be read: {error}"));
        // A FIFO or a device could block the server for ever.
        let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(wrong("is not a file"));
        }
        let mut pem = Vec::new();
        file.take(MAX_CA_FILE_LENGTH + 1).read_to_end(&mut pem).map_err(unreadable)?;
        if pem.len() as u64 > MAX_CA_FILE_LENGTH {
            return Err(wrong("has more than 4 MiB"));
        }
        let roots: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| wrong("is not whole PEM"))?;
        if roots.is_empty() {
            return Err(wrong("holds no certificate"));
        }
        let mut trusted = RootCertStore::empty();
        for root in &roots {
            trusted.add(root.clone()).map_err(|_| wrong("holds a certificate that cannot be a root"))?;
        }
        Ok(Self { path: path.to_owned(), roots })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    fn parameter(name: &str) -> &'static Parameter {
        PARAMETERS.iter().find(|parameter| parameter.name == name).unwrap()
    }

    #[test]
    fn miri_defaults_are_the_documented_ones() {
        let store = Store::default();
        let values: Vec<_> = PARAMETERS.iter().map(|p| (p.name, p.to_text(&store))).collect();
        let expected = [
            ("awsStsHost", "sts.amazonaws.com"),
            ("awsStsEndpoint", ""),
            ("awsStsCAFile", ""),
            ("awsStsTimeoutMS", "10000"),
            ("awsIamAllowedAccounts", ""),
        ];
        assert_eq!(values, expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn miri_a_value_set_is_the_value_read() {
        let store = Store::default();
        let host = parameter("awsStsHost");
        host.set_text(&store, "sts.eu-west-1.amazonaws.com").unwrap();
        let shown = host.to_bson(&store, "awsStsHost").unwrap();
        assert_eq!(shown, rawdoc! { "awsStsHost": "sts.eu-west-1.amazonaws.com" });
        let timeout = parameter("awsStsTimeoutMS");
        timeout.set_bson(&store, &rawdoc! { "awsStsTimeoutMS": 2500.0 }).unwrap();
        assert_eq!(timeout.to_bson(&store, "x").unwrap(), rawdoc! { "x": 2500 });
        assert_eq!(store.current().host().region(), "eu-west-1");
    }

    #[test]
    fn miri_a_refused_value_changes_nothing_and_says_what_is_allowed() {
        let store = Store::default();
        let why = parameter("awsStsHost").set_text(&store, "https://sts.amazonaws.com").unwrap_err();
        assert!(why.starts_with("awsStsHost: a host name in lower case is allowed"), "{why}");
        for element in [rawdoc! { "": 1 }, rawdoc! {}, rawdoc! { "a": "sts.com", "b": "sts.com" }] {
            assert!(parameter("awsStsHost").set_bson(&store, &element).is_err());
        }
        for element in [rawdoc! { "": 99 }, rawdoc! { "": 60_001 }, rawdoc! { "": 100.5 }, rawdoc! { "": "100" }] {
            assert!(parameter("awsStsTimeoutMS").set_bson(&store, &element).is_err());
        }
        assert!(parameter("awsStsTimeoutMS").set_text(&store, "1e3").is_err());
        assert!(parameter("awsStsEndpoint").set_text(&store, "http://127.0.0.1").is_err());
        assert_eq!(parameter("awsStsHost").to_text(&store), "sts.amazonaws.com");
    }

    #[test]
    fn miri_an_account_has_to_be_on_the_list_as_a_whole_unless_the_list_is_empty() {
        let store = Store::default();
        let accounts = parameter("awsIamAllowedAccounts");
        let principal = |account: &str| Principal::parse(&format!("arn:aws:iam::{account}:user/alice")).unwrap();
        assert!(store.current().check_account(&principal("123456789012")).is_ok());
        accounts.set_text(&store, "210987654321,123456789012").unwrap();
        let settings = store.current();
        assert!(settings.check_account(&principal("123456789012")).is_ok());
        assert!(settings.check_account(&principal("210987654321")).is_ok());
        for other in ["123456789013", "098765432112"] {
            let denial = settings.check_account(&principal(other)).unwrap_err();
            assert_eq!(denial.kind(), crate::denial::Kind::AccountNotAllowed);
            assert!(denial.reason().contains(&format!("does not list account {other}")), "{denial}");
        }
        let many = vec!["123456789012"; MAX_ALLOWED_ACCOUNTS + 1].join(",");
        for wrong in [
            ",",
            "123456789012,",
            ",123456789012",
            "12345678901",
            "1234567890123",
            "12345678901a",
            "123456789012, 210987654321",
            "123456789012;210987654321",
            "*",
            "１２３４56789012",
            "123456789012\n",
            &many,
        ] {
            assert!(accounts.set_text(&store, wrong).is_err(), "{wrong:?} was accepted");
        }
        assert_eq!(accounts.to_text(&store), "210987654321,123456789012");
        accounts.set_text(&store, "").unwrap();
        assert!(store.current().check_account(&principal("123456789013")).is_ok());
    }

    #[test]
    fn miri_validating_changes_nothing() {
        let store = Store::default();
        let host = parameter("awsStsHost");
        host.validate_bson(&store, &rawdoc! { "": "sts.eu-west-1.amazonaws.com" }).unwrap();
        assert!(host.validate_bson(&store, &rawdoc! { "": "" }).is_err());
        assert_eq!(host.to_text(&store), "sts.amazonaws.com");
    }

    #[test]
    fn a_file_without_root_certificates_is_refused_by_name() {
        let store = Store::default();
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let cut = "-----BEGIN CERTIFICATE-----\nMIIB\n";
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (path, why) in [
            (write("empty.pem", ""), "holds no certificate"),
            (write("text.pem", "hello"), "holds no certificate"),
            (write("cut.pem", cut), "is not whole PEM"),
            (write("junk.pem", junk), "holds a certificate that cannot be a root"),
            (folder.path().to_str().unwrap().to_owned(), "is not a file"),
            ("/does/not/exist.pem".to_owned(), "cannot be read"),
            ("relative.pem".to_owned(), "absolute path"),
        ] {
            let refusal = parameter("awsStsCAFile").set_text(&store, &path).unwrap_err();
            assert!(refusal.starts_with("awsStsCAFile: ") && refusal.contains(why), "{path}: {refusal}");
        }
    }
}
