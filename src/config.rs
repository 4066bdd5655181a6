//! The server parameters: names, defaults, validation, and the settings they make up.
//!
//! [`PARAMETERS`] is the one table of them. A parameter is set as a whole or not at all.

use crate::denial::{Cause, Denial};
use crate::events::Event;
use crate::principal::{self, Principal, RoleUserFormat};
use crate::process::Process;
use crate::sts::client::{Client, Route};
use crate::sts::endpoint::{Endpoint, Proxy, StsHost};
use crate::sts::hosts::{Host, Hosts};
use crate::sts::roots::CaFile;
use crate::sts::tls;
use crate::trust::StartupTrust;
use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};
use once_cell::sync::OnceCell;
use rustls::ClientConfig;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// Most hosts that awsStsFallbackHosts can list.
const MAX_FALLBACK_HOSTS: usize = 8;

/// Most accounts that awsIamAllowedAccounts can list.
const MAX_ALLOWED_ACCOUNTS: usize = 1000;

/// Bounds of awsStsTimeoutMS.
const TIMEOUT_MS: std::ops::RangeInclusive<i64> = 100..=60_000;

/// Environment variables that name a proxy for HTTPS to other programs.
const PROXY_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// The values of all parameters at one moment, and the clients made from them.
#[derive(Clone, Debug)]
pub struct Settings {
    values: Values,
    /// The startup values that limit changes at runtime; none while the server starts.
    startup: Option<Arc<StartupTrust>>,
    /// How often the trusted hosts or roots have changed.
    trust_changes: u64,
    process: Arc<Process>,
    /// Kept when other parameters change, with the TLS sessions that can be resumed.
    tls: Arc<OnceCell<Arc<ClientConfig>>>,
    hosts: Arc<Hosts>,
}

/// The values of all parameters.
#[derive(Clone, Debug)]
struct Values {
    host: StsHost,
    endpoint: Option<Endpoint>,
    ca_file: Option<CaFile>,
    proxy: Option<Proxy>,
    fallback_hosts: FallbackHosts,
    timeout_ms: i64,
    allowed_accounts: AllowedAccounts,
    role_user_format: RoleUserFormat,
}

/// The hosts that stand in for awsStsHost, with the text that lists them.
#[derive(Clone, Debug, Default)]
struct FallbackHosts {
    text: String,
    hosts: Vec<(StsHost, Option<Endpoint>)>,
}

/// The accounts whose principals may log in, in the order they were given; none means all.
#[derive(Clone, Debug, Default)]
struct AllowedAccounts {
    text: String,
    /// Whether the list was set, be it to an empty one.
    given: bool,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            host: StsHost::default(),
            endpoint: None,
            ca_file: None,
            proxy: None,
            fallback_hosts: FallbackHosts::default(),
            timeout_ms: 10_000,
            allowed_accounts: AllowedAccounts::default(),
            role_user_format: RoleUserFormat::default(),
        }
    }
}

impl Values {
    fn hosts(&self) -> Hosts {
        let others = self.fallback_hosts.hosts.iter().map(|(name, endpoint)| Host::new(name.clone(), endpoint.clone()));
        Hosts::new(Host::new(self.host.clone(), self.endpoint.clone()), others.collect())
    }

    /// A warning for each STS host whose name may be a mistake.
    fn doubtful_hosts(&self) -> impl Iterator<Item = Event> {
        let hosts = std::iter::once(&self.host).chain(self.fallback_hosts.hosts.iter().map(|(host, _)| host));
        hosts.filter_map(|host| Some(Event::DoubtfulHost { host: host.to_string(), doubt: host.doubt()? }))
    }

    /// Whom a login trusts: the host, the names of the others in any order, and the roots. Addresses, the proxy and the
    /// timeout only decide how to reach them.
    fn trust(&self) -> (&StsHost, BTreeSet<&str>, Option<&CaFile>) {
        let names = self.fallback_hosts.hosts.iter().map(|(name, _)| name.as_str()).collect();
        (&self.host, names, self.ca_file.as_ref())
    }

    fn startup_trust(&self) -> StartupTrust {
        let fallback = self.fallback_hosts.hosts.iter().map(|(name, _)| name.clone());
        let hosts = std::iter::once(self.host.clone()).chain(fallback).collect();
        let ca_file = self.ca_file.as_ref().map_or("", CaFile::path);
        StartupTrust::new(hosts, ca_file, &self.allowed_accounts.text)
    }
}

impl Settings {
    fn new(process: Arc<Process>) -> Self {
        let values = Values::default();
        let hosts = Arc::new(values.hosts());
        Self { values, startup: None, trust_changes: 0, process, tls: Arc::default(), hosts }
    }

    /// Says whether a login that began with these settings may end with `current`, those in force now.
    ///
    /// # Errors
    /// A denial, when the trusted hosts or root certificates have changed in between, be it there and back.
    pub fn check_trust_unchanged(&self, current: &Self) -> Result<(), Denial> {
        if self.trust_changes == current.trust_changes {
            return Ok(());
        }
        Err(Denial::new(
            Cause::ExpiredConversation,
            "awsStsHost, awsStsFallbackHosts or awsStsCAFile was changed after this login began; the client must \
             log in again",
        ))
    }

    /// The STS hosts; clients are told the one whose turn it is.
    pub fn hosts(&self) -> &Arc<Hosts> {
        &self.hosts
    }

    /// What these settings share with those before and after them.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// The name of the user in `$external` that this principal logs in as.
    pub fn user_name(&self, principal: &Principal) -> String {
        principal.user_name(self.values.role_user_format)
    }

    /// Says whether principals of this one's account may log in: the operator's second lock, after STS's word.
    ///
    /// # Errors
    /// A denial that names the account, when awsIamAllowedAccounts lists others only.
    pub fn check_account(&self, principal: &Principal) -> Result<(), Denial> {
        if self.values.allowed_accounts.allow(&principal.account) {
            return Ok(());
        }
        Err(Denial::new(
            Cause::AccountNotAllowed,
            format!(
                "STS confirmed {}, but awsIamAllowedAccounts does not list account {}",
                self.user_name(principal),
                principal.account
            ),
        ))
    }

    /// The client towards an STS host, made when it is first asked for so that a server starts without it.
    ///
    /// # Errors
    /// As [`tls::client_config`].
    pub fn client<'a>(&self, host: &'a Host) -> Result<&'a Client, Denial> {
        host.client(|| Ok(Client::new(self.route(host)?, Arc::clone(&self.process))))
    }

    /// How to reach an STS host.
    ///
    /// # Errors
    /// As [`tls::client_config`].
    pub fn route<'a>(&'a self, host: &'a Host) -> Result<Route<'a>, Denial> {
        let roots = self.values.ca_file.as_ref().map_or(&[][..], CaFile::roots);
        let tls = self.tls.get_or_try_init(|| tls::client_config(roots))?;
        Ok(Route {
            host: host.name(),
            endpoint: host.endpoint(),
            proxy: self.values.proxy.as_ref(),
            tls: Arc::clone(tls),
            timeout: Duration::from_millis(self.values.timeout_ms.unsigned_abs()),
        })
    }

    /// Changes a copy.
    fn changed(&self, change: impl FnOnce(&mut Draft) -> Result<(), String>) -> Result<Self, String> {
        let startup = self.startup.clone();
        let mut draft = Draft { values: self.values.clone(), startup, new_hosts: false, new_tls: false };
        change(&mut draft)?;
        let Draft { values, startup, new_hosts, new_tls } = draft;
        let trust_changes = self.trust_changes + u64::from(values.trust() != self.values.trust());
        // The others keep their connections, and the host whose turn it is.
        let hosts = if new_hosts || new_tls { Arc::new(values.hosts()) } else { Arc::clone(&self.hosts) };
        let tls = if new_tls { Arc::default() } else { Arc::clone(&self.tls) };
        Ok(Self { values, startup, trust_changes, process: Arc::clone(&self.process), tls, hosts })
    }
}

/// Values that are being changed, and what has to be made anew for them.
struct Draft {
    values: Values,
    startup: Option<Arc<StartupTrust>>,
    new_hosts: bool,
    new_tls: bool,
}

impl Draft {
    /// Applies the rule about changes at runtime. While the server starts, every value passes.
    fn check_startup(&self, check: impl FnOnce(&StartupTrust) -> Result<(), String>) -> Result<(), String> {
        self.startup.as_deref().map_or(Ok(()), check)
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
    Text { get: fn(&Values) -> &str, set: fn(&mut Draft, &str) -> Result<(), String> },
    Integer { get: fn(&Values) -> i64, set: fn(&mut Draft, i64) -> Result<(), String> },
}

/// Every parameter, in the order in which they are registered.
pub static PARAMETERS: [Parameter; 8] = [
    Parameter {
        name: "awsStsHost",
        access: Access::Text {
            get: |values| values.host.as_str(),
            set: |draft, text| {
                let host = StsHost::parse(text)?;
                draft.check_startup(|startup| startup.check_host(&host))?;
                draft.values.host = host;
                draft.new_hosts = true;
                Ok(())
            },
        },
    },
    Parameter {
        name: "awsStsEndpoint",
        access: Access::Text {
            get: |values| values.endpoint.as_ref().map_or("", Endpoint::as_str),
            set: |draft, text| {
                draft.values.endpoint = unless_empty(text, Endpoint::parse)?;
                draft.new_hosts = true;
                Ok(())
            },
        },
    },
    Parameter {
        name: "awsStsCAFile",
        access: Access::Text {
            get: |values| values.ca_file.as_ref().map_or("", CaFile::path),
            set: |draft, text| {
                draft.values.ca_file = unless_empty(text, |path| {
                    // Before the file is opened: a refusal must not tell what is there.
                    draft.check_startup(|startup| startup.check_ca_file(path))?;
                    CaFile::read(path)
                })?;
                draft.new_tls = true;
                Ok(())
            },
        },
    },
    Parameter {
        name: "awsStsTimeoutMS",
        access: Access::Integer {
            get: |values| values.timeout_ms,
            set: |draft, value| {
                if !TIMEOUT_MS.contains(&value) {
                    let (least, most) = (TIMEOUT_MS.start(), TIMEOUT_MS.end());
                    return Err(format!("a number of milliseconds from {least} to {most} is allowed"));
                }
                draft.values.timeout_ms = value;
                draft.new_hosts = true;
                Ok(())
            },
        },
    },
    Parameter {
        name: "awsIamAllowedAccounts",
        access: Access::Text {
            get: |values| &values.allowed_accounts.text,
            set: |draft, text| {
                let accounts = AllowedAccounts::parse(text)?;
                draft.check_startup(|startup| startup.check_accounts(text))?;
                draft.values.allowed_accounts = accounts;
                Ok(())
            },
        },
    },
    Parameter {
        name: "awsStsProxy",
        access: Access::Text {
            get: |values| values.proxy.as_ref().map_or("", Proxy::as_str),
            set: |draft, text| {
                draft.values.proxy = unless_empty(text, Proxy::parse)?;
                draft.new_hosts = true;
                Ok(())
            },
        },
    },
    Parameter {
        name: "awsStsFallbackHosts",
        access: Access::Text {
            get: |values| &values.fallback_hosts.text,
            set: |draft, text| {
                let fallback = FallbackHosts::parse(text)?;
                draft.check_startup(|startup| {
                    fallback.hosts.iter().try_for_each(|(name, _)| startup.check_host(name))
                })?;
                draft.values.fallback_hosts = fallback;
                draft.new_hosts = true;
                Ok(())
            },
        },
    },
    Parameter {
        name: "awsIamRoleUserFormat",
        access: Access::Text {
            get: |values| {
                ROLE_USER_FORMATS
                    .iter()
                    .find(|(_, format)| *format == values.role_user_format)
                    .map_or("", |(name, _)| name)
            },
            set: |draft, text| {
                let found = ROLE_USER_FORMATS.iter().find(|(name, _)| *name == text);
                let (_, format) = found.ok_or_else(|| {
                    "iamRole (arn:...:iam::ACCOUNT:role/ROLE) or assumedRole (arn:...:sts::ACCOUNT:assumed-role/ROLE/*) is \
                     allowed"
                        .to_owned()
                })?;
                draft.values.role_user_format = *format;
                Ok(())
            },
        },
    },
];

/// The values of awsIamRoleUserFormat.
const ROLE_USER_FORMATS: [(&str, RoleUserFormat); 2] =
    [("iamRole", RoleUserFormat::IamRole), ("assumedRole", RoleUserFormat::AssumedRole)];

/// Checks a value that can also be left empty, which means none.
fn unless_empty<T>(text: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

impl Parameter {
    /// Sets the value from text, as a command line or a configuration file gives it.
    ///
    /// # Errors
    /// One sentence that names the parameter and says what is allowed. Nothing has changed then.
    pub fn set_text(&self, store: &Store, text: &str) -> Result<(), String> {
        store.change(self, |draft| self.put_text(draft, text))
    }

    /// Sets the value from a BSON document of one element, as the setParameter command gives it. The command comes at
    /// runtime only, so that the startup values are complete: see [`Store::complete_startup`].
    ///
    /// # Errors
    /// As [`Parameter::set_text`], and when the element has another type.
    pub fn set_bson(&self, store: &Store, element: &RawDocument) -> Result<(), String> {
        store.complete_startup();
        store.change(self, |draft| self.put_bson(draft, element))
    }

    /// Says whether [`Parameter::set_bson`] would accept the element, and changes nothing.
    ///
    /// # Errors
    /// As [`Parameter::set_bson`].
    pub fn validate_bson(&self, store: &Store, element: &RawDocument) -> Result<(), String> {
        store.complete_startup();
        store.current().changed(|draft| self.put_bson(draft, element)).map(drop)
    }

    /// The value as the only element of a BSON document, under the name the server asks for.
    ///
    /// # Errors
    /// A sentence when the name holds a NUL.
    pub fn to_bson(&self, store: &Store, name: &str) -> Result<RawDocumentBuf, String> {
        let name: &bson::raw::CStr = name.try_into().map_err(|_| "a parameter's name holds no NUL".to_owned())?;
        let values = &store.current().values;
        let mut document = RawDocumentBuf::new();
        match &self.access {
            Access::Text { get, .. } => document.append(name, get(values)),
            Access::Integer { get, .. } => match i32::try_from(get(values)) {
                Ok(small) => document.append(name, small),
                Err(_) => document.append(name, get(values)),
            },
        }
        Ok(document)
    }

    /// The value as text.
    pub fn to_text(&self, store: &Store) -> String {
        self.text_of(&store.current().values)
    }

    fn text_of(&self, values: &Values) -> String {
        match &self.access {
            Access::Text { get, .. } => get(values).to_owned(),
            Access::Integer { get, .. } => get(values).to_string(),
        }
    }

    fn put_text(&self, draft: &mut Draft, text: &str) -> Result<(), String> {
        match &self.access {
            Access::Text { set, .. } => set(draft, text),
            Access::Integer { set, .. } => match text.parse() {
                Ok(number) => set(draft, number),
                Err(_) => Err("a whole number is allowed".to_owned()),
            },
        }
        .map_err(|why| self.refusal(&why))
    }

    fn put_bson(&self, draft: &mut Draft, element: &RawDocument) -> Result<(), String> {
        let mut elements = element.iter();
        let value = match (elements.next(), elements.next()) {
            (Some(Ok((_, value))), None) => value,
            _ => return Err(self.refusal("one value is allowed")),
        };
        match (&self.access, value) {
            (Access::Text { set, .. }, RawBsonRef::String(text)) => set(draft, text),
            (Access::Text { .. }, _) => Err("a string is allowed".to_owned()),
            (Access::Integer { set, .. }, RawBsonRef::Int32(number)) => set(draft, i64::from(number)),
            (Access::Integer { set, .. }, RawBsonRef::Int64(number)) => set(draft, number),
            // A shell sends its numbers as doubles; whole ones in the exact range are meant as integers.
            (Access::Integer { set, .. }, RawBsonRef::Double(number))
                if number.fract() == 0.0 && number.abs() <= 9e15 =>
            {
                #[expect(clippy::cast_possible_truncation, reason = "whole and in range, as just checked")]
                set(draft, number as i64)
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
#[derive(Debug)]
pub struct Store {
    process: Arc<Process>,
    current: RwLock<Arc<Settings>>,
}

impl Default for Store {
    fn default() -> Self {
        let process = Arc::<Process>::default();
        let current = RwLock::new(Arc::new(Settings::new(Arc::clone(&process))));
        Self { process, current }
    }
}

impl Store {
    /// The settings in force now. They stay as they are for whoever holds them.
    pub fn current(&self) -> Arc<Settings> {
        // A poisoned lock only says that a change panicked; the settings are replaced whole, so they are sound.
        let current = self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// What all settings share.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Takes the values in force as those that the server was started with, the first time. From here on, the trusted
    /// hosts, roots and accounts can only be chosen among them: see [`crate::trust`].
    pub fn complete_startup(&self) {
        if self.current().startup.is_some() {
            return;
        }
        let mut current = self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if current.startup.is_none() {
            // As settings of their own: a change that is being made now has lost its race, and has to obey the rule.
            let startup = Some(Arc::new(current.values.startup_trust()));
            *current = Arc::new(Settings { startup, ..Settings::clone(&current) });
        }
    }

    /// The parameters that are not at their default, as `NAME: VALUE`, and an empty list of accounts that was given.
    pub fn changed_parameters(&self) -> Vec<String> {
        let (current, default) = (self.current(), Values::default());
        let accounts = &current.values.allowed_accounts;
        let empty_list = (accounts.given && accounts.text.is_empty())
            .then(|| "awsIamAllowedAccounts: empty (every account may log in)".to_owned());
        let changed = PARAMETERS.iter().filter_map(|parameter| {
            let value = parameter.text_of(&current.values);
            (value != parameter.text_of(&default)).then(|| format!("{}: {value}", parameter.name))
        });
        changed.chain(empty_list).collect()
    }

    /// The names of the variables that hold a proxy which is not used: the environment's, while awsStsProxy is empty.
    /// `variable` reads one of the environment.
    pub fn unused_proxy_variables(&self, variable: impl Fn(&str) -> Option<OsString>) -> Vec<&'static str> {
        if self.current().values.proxy.is_some() {
            return Vec::new();
        }
        let is_set = |name: &&str| variable(name).is_some_and(|value| !value.is_empty());
        PROXY_VARIABLES.into_iter().filter(is_set).collect()
    }

    /// A warning for each STS host whose name may be a mistake.
    pub fn doubtful_hosts(&self) -> Vec<Event> {
        self.current().values.doubtful_hosts().collect()
    }

    /// Changes a copy and puts it in force when the change succeeds. Once the server runs, its log has a line about it.
    fn change(&self, parameter: &Parameter, change: impl Fn(&mut Draft) -> Result<(), String>) -> Result<(), String> {
        loop {
            // The change may read a file, so that it is made without the lock, and made again when it lost a race.
            let before = self.current();
            let after = before.changed(&change)?;
            let mut current = self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            if Arc::ptr_eq(&current, &before) {
                if !Arc::ptr_eq(&before.hosts, &after.hosts) {
                    before.hosts.retire();
                }
                let (from, to) = (parameter.text_of(&before.values), parameter.text_of(&after.values));
                let is_new = |event: &Event| !before.values.doubtful_hosts().any(|known| known == *event);
                let warnings: Vec<_> = after.values.doubtful_hosts().filter(is_new).collect();
                *current = Arc::new(after);
                drop(current);
                if self.process.server.is_serving() && from != to {
                    self.process.events.push(Event::ParameterChanged { name: parameter.name, from, to });
                    warnings.into_iter().for_each(|warning| self.process.events.push(warning));
                }
                return Ok(());
            }
        }
    }
}

impl FallbackHosts {
    /// Checks a list of `host` or `host=https://address[:port]`, separated by commas.
    fn parse(text: &str) -> Result<Self, String> {
        let parse = |entry: &str| match entry.split_once('=') {
            Some((host, endpoint)) => Ok((StsHost::parse(host)?, Some(Endpoint::parse(endpoint)?))),
            None => Ok((StsHost::parse(entry)?, None)),
        };
        let entries = unless_empty(text, |text| text.split(',').map(parse).collect::<Result<Vec<_>, String>>());
        match entries.map(Option::unwrap_or_default) {
            Ok(hosts) if hosts.len() <= MAX_FALLBACK_HOSTS => Ok(Self { text: text.to_owned(), hosts }),
            Ok(_) => Err(format!("must be at most {MAX_FALLBACK_HOSTS} hosts")),
            Err(why) => Err(format!(
                "must be a list of host or host=https://address:port, separated by commas without spaces; wrong in it: \
                 {why}"
            )),
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
        Ok(Self { text: text.to_owned(), given: true })
    }

    fn allow(&self, account: &str) -> bool {
        self.text.is_empty() || self.text.split(',').any(|allowed| allowed == account)
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
            ("awsStsProxy", ""),
            ("awsStsFallbackHosts", ""),
            ("awsIamRoleUserFormat", "iamRole"),
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
        assert_eq!(store.current().hosts().first().name().region(), "eu-west-1");
    }

    #[test]
    fn miri_a_refused_value_changes_nothing_and_says_what_is_allowed() {
        let store = Store::default();
        let why = parameter("awsStsHost").set_text(&store, "https://sts.amazonaws.com").unwrap_err();
        assert!(why.starts_with("awsStsHost: must be a host name in lower case"), "{why}");
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
    fn miri_fallback_hosts_are_hosts_with_an_address_each_or_none() {
        let store = Store::default();
        let fallback = parameter("awsStsFallbackHosts");
        let list = "sts.us-west-2.amazonaws.com,sts.us-east-2.amazonaws.com=https://10.0.0.1:8443";
        fallback.set_text(&store, list).unwrap();
        assert_eq!(fallback.to_text(&store), list);
        let many = ["sts.a.com"; MAX_FALLBACK_HOSTS + 1].join(",");
        for wrong in [
            ",",
            "sts.a.com,",
            "sts.a.com, sts.b.com",
            "sts.a.com=",
            "sts.a.com=10.0.0.1",
            "=https://10.0.0.1",
            "https://sts.a.com",
            "sts.a.com=https://10.0.0.1=https://10.0.0.2",
            "sts.amazonaws.com.cn",
            "sts.us-west-2.amazonaws.com,eu-west-1",
            "sts.cn-north-1.amazonaws.com=https://10.0.0.1",
            &many,
        ] {
            let why = fallback.set_text(&store, wrong).unwrap_err();
            assert!(why.starts_with("awsStsFallbackHosts: must be "), "{why}");
        }
        assert_eq!(fallback.to_text(&store), list);
    }

    #[test]
    fn miri_other_parameters_leave_the_hosts_as_they_are() {
        let store = Store::default();
        let before = store.current();
        parameter("awsIamAllowedAccounts").set_text(&store, "123456789012").unwrap();
        assert!(Arc::ptr_eq(before.hosts(), store.current().hosts()));
        for (name, value) in [
            ("awsStsHost", "sts.a.com"),
            ("awsStsEndpoint", "https://10.0.0.1"),
            ("awsStsProxy", "http://10.0.0.1:3128"),
            ("awsStsFallbackHosts", "sts.b.com"),
            ("awsStsTimeoutMS", "5000"),
        ] {
            let before = store.current();
            parameter(name).set_text(&store, value).unwrap();
            assert!(!Arc::ptr_eq(before.hosts(), store.current().hosts()), "{name}");
            assert!(Arc::ptr_eq(before.process(), store.current().process()), "{name}");
        }
    }

    #[test]
    fn miri_a_host_whose_name_may_be_a_mistake_is_warned_of_once() {
        let store = Store::default();
        let set = |name: &str, value: &str| parameter(name).set_text(&store, value).unwrap();
        let doubtful = || {
            let events = std::iter::from_fn(|| store.process().events.pop());
            let host = |event| if let Event::DoubtfulHost { host, .. } = event { Some(host) } else { None };
            events.filter_map(host).collect::<Vec<_>>()
        };
        set("awsStsHost", "sts.a.com");
        // The line of the start has it.
        assert_eq!(doubtful(), Vec::<String>::new());
        assert_eq!(store.doubtful_hosts().len(), 1);
        store.process().server.begin_to_serve();
        set("awsStsFallbackHosts", "sts.eu-west-1.amazonaws.com,sts.b.com,sts-fips.eu-west-1.amazonaws.com");
        assert_eq!(doubtful(), ["sts.b.com", "sts-fips.eu-west-1.amazonaws.com"]);
        set("awsStsHost", "sts.b.com");
        set("awsStsHost", "sts.eu-west-1.amazonaws.com");
        set("awsStsTimeoutMS", "5000");
        assert_eq!(doubtful(), Vec::<String>::new());
        set("awsStsHost", "sts.a.com");
        assert_eq!(doubtful(), ["sts.a.com"]);
    }

    #[test]
    fn miri_validating_changes_nothing() {
        let store = started_with(&[("awsStsFallbackHosts", "sts.eu-west-1.amazonaws.com")]);
        let host = parameter("awsStsHost");
        host.validate_bson(&store, &rawdoc! { "": "sts.eu-west-1.amazonaws.com" }).unwrap();
        assert!(host.validate_bson(&store, &rawdoc! { "": "" }).is_err());
        assert_eq!(host.to_text(&store), "sts.amazonaws.com");
    }

    /// A server that was started with these values.
    fn started_with(values: &[(&str, &str)]) -> Store {
        let store = Store::default();
        for (name, value) in values {
            parameter(name).set_text(&store, value).unwrap();
        }
        store.complete_startup();
        store
    }

    /// Asserts that a value is possible at runtime or is refused for this reason, whichever way it comes.
    fn assert_at_runtime(store: &Store, name: &str, value: &str, refusal: Option<&str>) {
        let element = rawdoc! { "": value };
        let before = parameter(name).to_text(store);
        let validated = parameter(name).validate_bson(store, &element);
        assert_eq!(parameter(name).to_text(store), before);
        let set = parameter(name).set_bson(store, &element);
        assert_eq!(validated, set, "{name}={value}");
        assert_eq!(parameter(name).set_text(store, value), set, "{name}={value}");
        match (refusal, set) {
            (None, Ok(())) => assert_eq!(parameter(name).to_text(store), value),
            (Some(reason), Err(why)) => {
                assert!(why.starts_with(&format!("{name}: ")) && why.contains(reason), "{name}={value}: {why}");
                assert_eq!(parameter(name).to_text(store), before);
            }
            (_, set) => panic!("{name}={value}: {set:?}"),
        }
    }

    #[test]
    fn miri_at_runtime_only_what_was_named_at_startup_is_trusted() {
        let store = started_with(&[
            ("awsStsHost", "sts.a.com"),
            ("awsStsFallbackHosts", "sts.b.com,sts.c.com=https://10.0.0.1"),
            ("awsIamAllowedAccounts", "111111111111,222222222222"),
        ]);
        let (host, accounts) = (Some("was not named at startup"), Some("only accounts that it held at startup"));
        for (name, value, refusal) in [
            ("awsStsHost", "sts.evil.com", host),
            ("awsStsHost", "sts.b.com", None),
            ("awsStsHost", "sts.c.com", None),
            ("awsStsFallbackHosts", "sts.evil.com", host),
            ("awsStsFallbackHosts", "sts.a.com,sts.evil.com=https://10.0.0.1", host),
            ("awsStsFallbackHosts", "sts.a.com=https://10.9.9.9:8443,sts.b.com", None),
            ("awsStsFallbackHosts", "", None),
            // What was taken out can be put back: only the startup values count.
            ("awsStsFallbackHosts", "sts.c.com,sts.b.com,sts.a.com", None),
            ("awsStsHost", "sts.a.com", None),
            ("awsStsCAFile", "/does/not/exist.pem", Some("the value must be empty")),
            ("awsStsCAFile", "/etc/hostname", Some("the value must be empty")),
            ("awsStsCAFile", "", None),
            ("awsIamAllowedAccounts", "222222222222", None),
            ("awsIamAllowedAccounts", "222222222222,333333333333", accounts),
            ("awsIamAllowedAccounts", "", accounts),
            ("awsIamAllowedAccounts", "111111111111,222222222222", None),
            ("awsStsEndpoint", "https://10.0.0.1:8443", None),
            ("awsStsProxy", "http://10.0.0.1:3128", None),
            ("awsIamRoleUserFormat", "assumedRole", None),
        ] {
            assert_at_runtime(&store, name, value, refusal);
        }
        parameter("awsStsTimeoutMS").set_bson(&store, &rawdoc! { "": 100 }).unwrap();
    }

    #[test]
    fn miri_a_setparameter_command_ends_the_startup_of_a_server_without_the_mechanism() {
        for command in [Parameter::set_bson, Parameter::validate_bson] {
            let store = Store::default();
            parameter("awsStsHost").set_text(&store, "sts.a.com").unwrap();
            let why = command(parameter("awsStsHost"), &store, &rawdoc! { "": "sts.evil.com" }).unwrap_err();
            assert!(why.contains("named at startup (sts.a.com)"), "{why}");
            let file = rawdoc! { "": "/does/not/exist.pem" };
            let why = command(parameter("awsStsCAFile"), &store, &file).unwrap_err();
            assert!(why.contains("the value must be empty"), "{why}");
        }
    }

    #[test]
    fn miri_a_list_of_accounts_that_was_empty_at_startup_can_be_set_and_emptied() {
        let store = started_with(&[]);
        for accounts in ["111111111111", "222222222222", ""] {
            assert_at_runtime(&store, "awsIamAllowedAccounts", accounts, None);
        }
    }

    #[test]
    fn miri_a_change_that_is_under_way_when_startup_completes_obeys_the_rule() {
        let store = Store::default();
        let host = parameter("awsStsHost");
        let refused = store.change(host, |draft| {
            store.complete_startup();
            host.put_text(draft, "sts.evil.com")
        });
        assert!(refused.is_err_and(|why| why.contains("was not named at startup")));
        assert_eq!(host.to_text(&store), "sts.amazonaws.com");
    }

    #[test]
    fn the_file_given_at_startup_can_be_read_again_and_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let sts = [local_sts::LocalSts::builder(), local_sts::LocalSts::builder()].map(|it| it.start().unwrap());
        let [path, other] = ["ca.pem", "other.pem"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
        std::fs::write(&path, sts[0].ca_pem()).unwrap();
        std::fs::write(&other, sts[1].ca_pem()).unwrap();
        let store = started_with(&[("awsStsCAFile", &path)]);
        let roots = || store.current().values.ca_file.as_ref().map(|file| file.roots().to_vec());
        let before = roots();
        std::fs::write(&path, sts[1].ca_pem()).unwrap();
        assert_at_runtime(&store, "awsStsCAFile", &path, None);
        assert!(roots() != before);
        assert_at_runtime(&store, "awsStsCAFile", "", None);
        assert_at_runtime(&store, "awsStsCAFile", &other, Some(&format!("its startup value, {path}, which reads")));
        assert_at_runtime(&store, "awsStsCAFile", &path, None);
    }

    #[test]
    fn a_change_of_trust_is_told_from_a_change_of_the_way_to_sts() {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem").to_str().unwrap().to_owned();
        let sts = local_sts::LocalSts::builder().start().unwrap();
        std::fs::write(&ca, sts.ca_pem()).unwrap();
        let store = started_with(&[
            ("awsStsHost", "sts.a.com"),
            ("awsStsFallbackHosts", "sts.b.com,sts.c.com"),
            ("awsStsCAFile", &ca),
        ]);
        for (name, value, changes) in [
            ("awsStsHost", "sts.a.com", false),
            ("awsStsHost", "sts.b.com", true),
            ("awsStsFallbackHosts", "sts.c.com=https://10.0.0.1,sts.b.com", false),
            ("awsStsFallbackHosts", "sts.c.com", true),
            ("awsStsCAFile", &ca, false),
            ("awsStsCAFile", "", true),
            ("awsStsEndpoint", "https://10.0.0.1", false),
            ("awsStsProxy", "http://10.0.0.1:3128", false),
            ("awsStsTimeoutMS", "5000", false),
            ("awsIamAllowedAccounts", "123456789012", false),
            ("awsIamRoleUserFormat", "assumedRole", false),
        ] {
            let before = store.current();
            parameter(name).set_text(&store, value).unwrap();
            let unchanged = before.check_trust_unchanged(&store.current());
            assert_eq!(unchanged.is_err(), changes, "{name}={value}");
        }
        // There and back again is a change, too.
        let before = store.current();
        for host in ["sts.c.com", "sts.b.com"] {
            parameter("awsStsHost").set_text(&store, host).unwrap();
        }
        let denial = before.check_trust_unchanged(&store.current()).unwrap_err();
        assert_eq!(denial.cause(), Cause::ExpiredConversation);
        // The same file with other certificates in it.
        parameter("awsStsCAFile").set_text(&store, &ca).unwrap();
        let before = store.current();
        std::fs::write(&ca, local_sts::LocalSts::builder().start().unwrap().ca_pem()).unwrap();
        parameter("awsStsCAFile").set_text(&store, &ca).unwrap();
        assert!(before.check_trust_unchanged(&store.current()).is_err());
    }

    #[test]
    fn miri_an_empty_list_of_accounts_is_shown_when_it_was_given() {
        let store = Store::default();
        assert_eq!(store.changed_parameters(), [""; 0]);
        parameter("awsIamAllowedAccounts").set_text(&store, "").unwrap();
        assert_eq!(store.changed_parameters(), ["awsIamAllowedAccounts: empty (every account may log in)"]);
        parameter("awsIamAllowedAccounts").set_text(&store, "123456789012").unwrap();
        assert_eq!(store.changed_parameters(), ["awsIamAllowedAccounts: 123456789012"]);
    }

    #[test]
    fn miri_a_proxy_in_the_environment_is_named_while_there_is_no_other() {
        let store = Store::default();
        let environment = |name: &str| match name {
            "HTTPS_PROXY" | "all_proxy" | "http_proxy" => Some(OsString::from("http://user:secret@10.0.0.1:3128")),
            "https_proxy" => Some(OsString::new()),
            _ => None,
        };
        assert_eq!(store.unused_proxy_variables(environment), ["HTTPS_PROXY", "all_proxy"]);
        assert_eq!(store.unused_proxy_variables(|_| None), [""; 0]);
        parameter("awsStsProxy").set_text(&store, "http://10.0.0.1:3128").unwrap();
        assert_eq!(store.unused_proxy_variables(environment), [""; 0]);
    }
}
