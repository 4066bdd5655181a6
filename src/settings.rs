//! The settings in force: a copy-on-write store of the parameters' values, and what is made of
//! them.

use crate::denial::{Cause, Denial};
use crate::events::Event;
use crate::parameters::{PARAMETERS, Parameter, Values};
use crate::principal::Principal;
use crate::process::Process;
use crate::sts::endpoint::StsHost;
use crate::sts::roots::CaFile;
use crate::sts::{self, Sts};
use crate::trust::StartupTrust;
use bson::raw::{CStr, RawDocument, RawDocumentBuf};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Environment variables that name a proxy for HTTPS to other programs.
const PROXY_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// The values of all parameters at one moment, and STS as they describe it.
#[derive(Clone, Debug)]
pub struct Settings {
    values: Values,
    /// The startup values that limit changes at runtime; none while the server starts.
    startup: Option<Arc<StartupTrust>>,
    /// How often the trusted hosts or roots have changed.
    trust_changes: u64,
    sts: Arc<Sts>,
}

impl Settings {
    fn new(process: Arc<Process>) -> Self {
        let values = Values::default();
        let sts = Arc::new(Sts::new(sts_config(&values), process));
        Self { values, startup: None, trust_changes: 0, sts }
    }

    /// AWS STS, as these settings reach it.
    pub fn sts(&self) -> &Arc<Sts> {
        &self.sts
    }

    /// Checks that a login that began with these settings may end with `current`, those in force
    /// now.
    ///
    /// # Errors
    /// A denial when the trusted hosts or root certificates have changed in between, even if they
    /// were changed back.
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

    /// The name of the user in `$external` for this principal.
    pub fn user_name(&self, principal: &Principal) -> String {
        principal.user_name(self.values.role_user_format)
    }

    /// Checks that principals of this one's account may log in.
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
                "STS confirmed the client (user {}), but awsIamAllowedAccounts does not list account {}",
                self.user_name(principal),
                principal.account
            ),
        ))
    }

    /// The same settings with other values; what depends on a value that differs is rebuilt.
    fn with(&self, values: Values) -> Self {
        let trust_changes = self.trust_changes + u64::from(trust(&values) != trust(&self.values));
        let sts = Sts::with_config(&self.sts, sts_config(&values));
        Self { values, startup: self.startup.clone(), trust_changes, sts }
    }
}

/// Where STS is, as these values say.
fn sts_config(values: &Values) -> sts::Config {
    let first = (&values.sts_host, values.sts_endpoint.as_ref());
    let hosts = std::iter::once(first).chain(values.sts_fallback_hosts.iter());
    sts::Config {
        hosts: hosts
            .map(|(name, endpoint)| sts::HostConfig { name: name.clone(), endpoint: endpoint.cloned() })
            .collect(),
        proxy: values.sts_proxy.clone(),
        ca_file: values.sts_ca_file.clone(),
        timeout: values.sts_timeout.0,
    }
}

/// Whom a login trusts: the STS host, the names of the fallback hosts in any order, and the roots.
/// Endpoints, the proxy and the timeout only decide how to reach them.
fn trust(values: &Values) -> (&StsHost, BTreeSet<&str>, Option<&CaFile>) {
    let fallback = values.sts_fallback_hosts.iter().map(|(name, _)| name.as_str()).collect();
    (&values.sts_host, fallback, values.sts_ca_file.as_ref())
}

fn startup_trust(values: &Values) -> StartupTrust {
    let fallback = values.sts_fallback_hosts.iter().map(|(name, _)| name.clone());
    let hosts = std::iter::once(values.sts_host.clone()).chain(fallback).collect();
    let ca_file = values.sts_ca_file.as_ref().map_or("", CaFile::path);
    StartupTrust::new(hosts, ca_file, values.allowed_accounts.as_str())
}

/// A warning for each STS host whose name may be a mistake.
fn doubtful_hosts(values: &Values) -> impl Iterator<Item = Event> {
    let fallback = values.sts_fallback_hosts.iter().map(|(host, _)| host);
    let hosts = std::iter::once(&values.sts_host).chain(fallback);
    hosts.filter_map(|host| Some(Event::DoubtfulHost { host: host.to_string(), doubt: host.doubt()? }))
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
    /// The settings in force now. They do not change for the caller.
    pub fn current(&self) -> Arc<Settings> {
        Arc::clone(&self.read())
    }

    fn read(&self) -> RwLockReadGuard<'_, Arc<Settings>> {
        // A poisoned lock only says that a change panicked; settings are replaced as a whole.
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Arc<Settings>> {
        self.current.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all settings share.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The value of a parameter as text.
    pub fn text(&self, parameter: &Parameter) -> String {
        parameter.show(&self.current().values).to_text()
    }

    /// The value of a parameter as the only element of a BSON document, under the given name.
    pub fn bson(&self, parameter: &Parameter, name: &CStr) -> RawDocumentBuf {
        let settings = self.current();
        let mut document = RawDocumentBuf::new();
        parameter.show(&settings.values).append_to(&mut document, name);
        document
    }

    /// Sets a parameter from text, as a command line or a configuration file gives it.
    ///
    /// # Errors
    /// As [`Parameter::set_text`]. Nothing has changed then.
    pub fn set_text(&self, parameter: &Parameter, text: &str) -> Result<(), String> {
        self.change(parameter, |values, startup| parameter.set_text(values, text, startup))
    }

    /// Sets a parameter from a BSON document of one element, as the setParameter command gives it.
    /// The command comes at runtime only, so the startup values are complete.
    ///
    /// # Errors
    /// As [`Parameter::set_bson`]. Nothing has changed then.
    pub fn set_bson(&self, parameter: &Parameter, element: &RawDocument) -> Result<(), String> {
        self.complete_startup();
        self.change(parameter, |values, startup| parameter.set_bson(values, element, startup))
    }

    /// Checks whether [`Store::set_bson`] would accept the element, and changes nothing.
    ///
    /// # Errors
    /// As [`Store::set_bson`].
    pub fn validate_bson(&self, parameter: &Parameter, element: &RawDocument) -> Result<(), String> {
        self.complete_startup();
        let settings = self.current();
        parameter.set_bson(&mut settings.values.clone(), element, settings.startup.as_deref())
    }

    /// Takes the values in force as those that the server was started with, the first time. From
    /// then on, the trusted hosts, roots and accounts can only be chosen among them: see
    /// [`crate::trust`].
    pub fn complete_startup(&self) {
        if self.current().startup.is_some() {
            return;
        }
        let mut current = self.write();
        if current.startup.is_none() {
            // As new settings: a change that is under way has lost its race and must obey the rule.
            let startup = Some(Arc::new(startup_trust(&current.values)));
            *current = Arc::new(Settings { startup, ..Settings::clone(&current) });
        }
    }

    /// Records that the mechanism is registered, and completes the startup values. The first time,
    /// adds the log lines about the parameters in force. `variable` reads an environment variable.
    pub fn register(&self, replaced_native: bool, reports_logins: bool, variable: impl Fn(&str) -> Option<OsString>) {
        let Process { events, registration, .. } = &*self.process;
        self.complete_startup();
        if registration.mark_registered(reports_logins) {
            let server_abi = registration.abi().to_owned();
            events.push(Event::Registered { server_abi, parameters: self.changed_parameters() });
            self.doubtful_hosts().into_iter().for_each(|warning| events.push(warning));
            let variables = self.unused_proxy_variables(variable);
            if !variables.is_empty() {
                events.push(Event::ProxyNotUsed { variables });
            }
        }
        if replaced_native && registration.mark_native_replaced() {
            events.push(Event::NativeReplaced);
        }
    }

    /// The parameters that are not at their default, as `NAME: VALUE`, and an empty list of
    /// accounts that was set.
    pub fn changed_parameters(&self) -> Vec<String> {
        let (current, default) = (self.current(), Values::default());
        let empty_list = current.values.allowed_accounts.is_set_empty();
        let empty_list = empty_list.then(|| "awsIamAllowedAccounts: empty (every account may log in)".to_owned());
        let changed = PARAMETERS.iter().filter_map(|parameter| {
            let value = parameter.show(&current.values);
            (value != parameter.show(&default)).then(|| format!("{}: {}", parameter.name, value.to_text()))
        });
        changed.chain(empty_list).collect()
    }

    /// The names of the environment variables that hold a proxy which is not used because
    /// awsStsProxy is empty. `variable` reads one variable.
    pub fn unused_proxy_variables(&self, variable: impl Fn(&str) -> Option<OsString>) -> Vec<&'static str> {
        if self.current().values.sts_proxy.is_some() {
            return Vec::new();
        }
        let is_set = |name: &&str| variable(name).is_some_and(|value| !value.is_empty());
        PROXY_VARIABLES.into_iter().filter(is_set).collect()
    }

    /// A warning for each STS host whose name may be a mistake.
    pub fn doubtful_hosts(&self) -> Vec<Event> {
        doubtful_hosts(&self.current().values).collect()
    }

    /// The section of serverStatus.
    pub fn status(&self) -> RawDocumentBuf {
        let sts::Status { host, since } = self.current().sts.status();
        self.process.status(host.as_str(), since)
    }

    /// Changes a copy of the values and puts it in force when the change succeeds. Once the server
    /// runs, its log has a line about it.
    fn change(
        &self,
        parameter: &Parameter,
        change: impl Fn(&mut Values, Option<&StartupTrust>) -> Result<(), String>,
    ) -> Result<(), String> {
        loop {
            // The change may read a file: it is made without the lock, and again if it lost a race.
            let before = self.current();
            let mut values = before.values.clone();
            change(&mut values, before.startup.as_deref())?;
            let after = Arc::new(before.with(values));
            {
                let mut current = self.write();
                if !Arc::ptr_eq(&current, &before) {
                    continue;
                }
                if !Arc::ptr_eq(&before.sts, &after.sts) {
                    before.sts.retire();
                }
                *current = Arc::clone(&after);
            }
            if self.process.registration.is_registered() {
                self.log_change(parameter, &before.values, &after.values);
            }
            return Ok(());
        }
    }

    fn log_change(&self, parameter: &Parameter, before: &Values, after: &Values) {
        let (from, to) = (parameter.show(before), parameter.show(after));
        if from == to {
            return;
        }
        let (from, to) = (from.to_text(), to.to_text());
        self.process.events.push(Event::ParameterChanged { name: parameter.name, from, to });
        let is_new = |event: &Event| !doubtful_hosts(before).any(|known| known == *event);
        doubtful_hosts(after).filter(is_new).for_each(|warning| self.process.events.push(warning));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters;
    use bson::raw::cstr;
    use bson::rawdoc;

    fn parameter(name: &str) -> &'static Parameter {
        parameters::find(name).unwrap()
    }

    #[test]
    fn miri_a_value_set_is_the_value_read() {
        let store = Store::default();
        let host = parameter("awsStsHost");
        store.set_text(host, "sts.eu-west-1.amazonaws.com").unwrap();
        let shown = store.bson(host, cstr!("awsStsHost"));
        assert_eq!(shown, rawdoc! { "awsStsHost": "sts.eu-west-1.amazonaws.com" });
        let timeout = parameter("awsStsTimeoutMS");
        store.set_bson(timeout, &rawdoc! { "awsStsTimeoutMS": 2500.0 }).unwrap();
        assert_eq!(store.bson(timeout, cstr!("x")), rawdoc! { "x": 2500 });
        assert_eq!(store.current().sts().first_host().name().region(), "eu-west-1");
    }

    #[test]
    fn miri_a_refused_value_changes_nothing_and_says_what_is_allowed() {
        let store = Store::default();
        let why = store.set_text(parameter("awsStsHost"), "https://sts.amazonaws.com").unwrap_err();
        assert!(why.starts_with("awsStsHost: must be a host name in lower case"), "{why}");
        for element in [rawdoc! { "": 1 }, rawdoc! {}, rawdoc! { "a": "sts.com", "b": "sts.com" }] {
            assert!(store.set_bson(parameter("awsStsHost"), &element).is_err());
        }
        for element in [rawdoc! { "": 99 }, rawdoc! { "": 60_001 }, rawdoc! { "": 100.5 }, rawdoc! { "": "100" }] {
            assert!(store.set_bson(parameter("awsStsTimeoutMS"), &element).is_err());
        }
        assert!(store.set_text(parameter("awsStsTimeoutMS"), "1e3").is_err());
        assert!(store.set_text(parameter("awsStsEndpoint"), "http://127.0.0.1").is_err());
        assert_eq!(store.text(parameter("awsStsHost")), "sts.amazonaws.com");
    }

    #[test]
    fn miri_an_account_has_to_be_on_the_list_as_a_whole_unless_the_list_is_empty() {
        let store = Store::default();
        let accounts = parameter("awsIamAllowedAccounts");
        let principal = |account: &str| Principal::parse(&format!("arn:aws:iam::{account}:user/alice")).unwrap();
        assert!(store.current().check_account(&principal("123456789012")).is_ok());
        store.set_text(accounts, "210987654321,123456789012").unwrap();
        let settings = store.current();
        assert!(settings.check_account(&principal("123456789012")).is_ok());
        assert!(settings.check_account(&principal("210987654321")).is_ok());
        for other in ["123456789013", "098765432112"] {
            let denial = settings.check_account(&principal(other)).unwrap_err();
            assert_eq!(denial.kind(), crate::denial::Kind::AccountNotAllowed);
            assert!(denial.reason().contains(&format!("does not list account {other}")), "{denial}");
        }
        store.set_text(accounts, "").unwrap();
        assert!(store.current().check_account(&principal("123456789013")).is_ok());
    }

    #[test]
    fn miri_other_parameters_leave_the_hosts_as_they_are() {
        let store = Store::default();
        let before = store.current();
        store.set_text(parameter("awsIamAllowedAccounts"), "123456789012").unwrap();
        assert!(Arc::ptr_eq(before.sts(), store.current().sts()));
        for (name, value) in [
            ("awsStsHost", "sts.a.com"),
            ("awsStsEndpoint", "https://10.0.0.1"),
            ("awsStsProxy", "http://10.0.0.1:3128"),
            ("awsStsFallbackHosts", "sts.b.com"),
            ("awsStsTimeoutMS", "5000"),
        ] {
            let before = store.current();
            store.set_text(parameter(name), value).unwrap();
            assert!(!Arc::ptr_eq(before.sts(), store.current().sts()), "{name}");
            assert!(Arc::ptr_eq(before.sts().process(), store.current().sts().process()), "{name}");
        }
    }

    #[test]
    fn miri_a_host_whose_name_may_be_a_mistake_is_warned_of_once() {
        let store = Store::default();
        let set = |name: &str, value: &str| store.set_text(parameter(name), value).unwrap();
        let doubtful = || {
            let events = std::iter::from_fn(|| store.process().events.pop());
            let host = |event| if let Event::DoubtfulHost { host, .. } = event { Some(host) } else { None };
            events.filter_map(host).collect::<Vec<_>>()
        };
        set("awsStsHost", "sts.a.com");
        // The line of the start has it.
        assert_eq!(doubtful(), Vec::<String>::new());
        assert_eq!(store.doubtful_hosts().len(), 1);
        store.process().registration.mark_registered(true);
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
        store.validate_bson(host, &rawdoc! { "": "sts.eu-west-1.amazonaws.com" }).unwrap();
        assert!(store.validate_bson(host, &rawdoc! { "": "" }).is_err());
        assert_eq!(store.text(host), "sts.amazonaws.com");
    }

    /// A server that was started with these values.
    fn started_with(values: &[(&str, &str)]) -> Store {
        let store = Store::default();
        for (name, value) in values {
            store.set_text(parameter(name), value).unwrap();
        }
        store.complete_startup();
        store
    }

    /// Asserts that a value is possible at runtime or is refused for this reason, whichever way it
    /// comes.
    fn assert_at_runtime(store: &Store, name: &str, value: &str, refusal: Option<&str>) {
        let element = rawdoc! { "": value };
        let before = store.text(parameter(name));
        let validated = store.validate_bson(parameter(name), &element);
        assert_eq!(store.text(parameter(name)), before);
        let set = store.set_bson(parameter(name), &element);
        assert_eq!(validated, set, "{name}={value}");
        assert_eq!(store.set_text(parameter(name), value), set, "{name}={value}");
        match (refusal, set) {
            (None, Ok(())) => assert_eq!(store.text(parameter(name)), value),
            (Some(reason), Err(why)) => {
                assert!(why.starts_with(&format!("{name}: ")) && why.contains(reason), "{name}={value}: {why}");
                assert_eq!(store.text(parameter(name)), before);
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
        let (host, accounts) = (
            Some("must be a host that awsStsHost or awsStsFallbackHosts named at startup"),
            Some("accounts listed at startup"),
        );
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
            ("awsStsCAFile", "/does/not/exist.pem", Some("must be empty, as it was at startup")),
            ("awsStsCAFile", "/etc/hostname", Some("must be empty, as it was at startup")),
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
        store.set_bson(parameter("awsStsTimeoutMS"), &rawdoc! { "": 100 }).unwrap();
    }

    #[test]
    fn miri_a_setparameter_command_ends_the_startup_of_a_server_without_the_mechanism() {
        for command in [Store::set_bson, Store::validate_bson] {
            let store = Store::default();
            store.set_text(parameter("awsStsHost"), "sts.a.com").unwrap();
            let why = command(&store, parameter("awsStsHost"), &rawdoc! { "": "sts.evil.com" }).unwrap_err();
            assert!(why.contains("named at startup (sts.a.com)"), "{why}");
            let file = rawdoc! { "": "/does/not/exist.pem" };
            let why = command(&store, parameter("awsStsCAFile"), &file).unwrap_err();
            assert!(why.contains("must be empty, as it was at startup"), "{why}");
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
        let refused = store.change(host, |values, startup| {
            store.complete_startup();
            host.set_text(values, "sts.evil.com", startup)
        });
        assert!(
            refused.is_err_and(
                |why| why.contains("must be a host that awsStsHost or awsStsFallbackHosts named at startup")
            )
        );
        assert_eq!(store.text(host), "sts.amazonaws.com");
    }

    #[test]
    fn the_file_given_at_startup_can_be_read_again_and_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let sts = [local_sts::LocalSts::builder(), local_sts::LocalSts::builder()].map(|it| it.start().unwrap());
        let [path, other] = ["ca.pem", "other.pem"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
        std::fs::write(&path, sts[0].ca_pem()).unwrap();
        std::fs::write(&other, sts[1].ca_pem()).unwrap();
        let store = started_with(&[("awsStsCAFile", &path)]);
        let roots = || store.current().values.sts_ca_file.as_ref().map(|file| file.roots().to_vec());
        let before = roots();
        std::fs::write(&path, sts[1].ca_pem()).unwrap();
        assert_at_runtime(&store, "awsStsCAFile", &path, None);
        assert!(roots() != before);
        assert_at_runtime(&store, "awsStsCAFile", "", None);
        assert_at_runtime(&store, "awsStsCAFile", &other, Some(&format!("its startup value, {path}, which reads")));
        assert_at_runtime(&store, "awsStsCAFile", &path, None);
    }

    #[test]
    fn only_a_change_of_hosts_or_roots_expires_conversations() {
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
            store.set_text(parameter(name), value).unwrap();
            let unchanged = before.check_trust_unchanged(&store.current());
            assert_eq!(unchanged.is_err(), changes, "{name}={value}");
        }
        // There and back again is a change, too.
        let before = store.current();
        for host in ["sts.c.com", "sts.b.com"] {
            store.set_text(parameter("awsStsHost"), host).unwrap();
        }
        let denial = before.check_trust_unchanged(&store.current()).unwrap_err();
        assert_eq!(denial.cause(), Cause::ExpiredConversation);
        // The same file with other certificates in it.
        store.set_text(parameter("awsStsCAFile"), &ca).unwrap();
        let before = store.current();
        std::fs::write(&ca, local_sts::LocalSts::builder().start().unwrap().ca_pem()).unwrap();
        store.set_text(parameter("awsStsCAFile"), &ca).unwrap();
        assert!(before.check_trust_unchanged(&store.current()).is_err());
    }

    #[test]
    fn miri_an_empty_list_of_accounts_is_shown_when_it_was_given() {
        let store = Store::default();
        assert_eq!(store.changed_parameters(), [""; 0]);
        store.set_text(parameter("awsIamAllowedAccounts"), "").unwrap();
        assert_eq!(store.changed_parameters(), ["awsIamAllowedAccounts: empty (every account may log in)"]);
        store.set_text(parameter("awsIamAllowedAccounts"), "123456789012").unwrap();
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
        store.set_text(parameter("awsStsProxy"), "http://10.0.0.1:3128").unwrap();
        assert_eq!(store.unused_proxy_variables(environment), [""; 0]);
    }
}
