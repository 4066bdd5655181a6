//! The rule about changes at runtime: whom a server believes can only be chosen among what it was started with.
//!
//! Without it, whoever may run setParameter could name an STS of their own and become any user of `$external`.

use crate::sts::endpoint::StsHost;

/// What a server was started with, as far as it decides who is whom.
#[derive(Debug)]
pub struct StartupTrust {
    hosts: Vec<StsHost>,
    ca_file: String,
    accounts: String,
}

impl StartupTrust {
    /// Takes the startup values: awsStsHost and the names in awsStsFallbackHosts, the path in awsStsCAFile, and the
    /// list awsIamAllowedAccounts; empty texts where they were not set.
    pub fn new(hosts: Vec<StsHost>, ca_file: &str, accounts: &str) -> Self {
        Self { hosts, ca_file: ca_file.to_owned(), accounts: accounts.to_owned() }
    }

    /// Checks a host name that awsStsHost or awsStsFallbackHosts would get.
    ///
    /// # Errors
    /// What is possible at runtime, and what to do for another host.
    pub fn check_host(&self, host: &StsHost) -> Result<(), String> {
        if self.hosts.contains(host) {
            return Ok(());
        }
        let mut named: Vec<_> = self.hosts.iter().map(StsHost::as_str).collect();
        named.sort_unstable();
        named.dedup();
        Err(format!(
            "{host} was not named at startup; at runtime, a host must be one that awsStsHost or awsStsFallbackHosts \
             named at startup ({}); to use another one, change the configuration file and restart the server",
            named.join(", ")
        ))
    }

    /// Checks the path, not empty, that awsStsCAFile would get. Paths are compared as text: it must not say whether
    /// another file is there.
    ///
    /// # Errors
    /// What is possible at runtime, and what to do for another file.
    pub fn check_ca_file(&self, path: &str) -> Result<(), String> {
        if !self.ca_file.is_empty() && path == self.ca_file {
            return Ok(());
        }
        let possible = if self.ca_file.is_empty() {
            "empty, as it was at startup".to_owned()
        } else {
            format!("its startup value, {}, which reads the file again, or empty", self.ca_file)
        };
        Err(format!(
            "at runtime, the value must be {possible}; to use another file, change the configuration file and restart \
             the server"
        ))
    }

    /// Checks the list of accounts that awsIamAllowedAccounts would get.
    ///
    /// # Errors
    /// What is possible at runtime, and what to do for other accounts.
    pub fn check_accounts(&self, accounts: &str) -> Result<(), String> {
        let at_startup = || self.accounts.split(',');
        if self.accounts.is_empty() || accounts.split(',').all(|account| at_startup().any(|listed| listed == account)) {
            return Ok(());
        }
        Err(format!(
            "at runtime, the list must hold at least one account, and only accounts that it held at startup ({}); to \
             allow others, change the configuration file and restart the server",
            self.accounts
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> StsHost {
        StsHost::parse(name).unwrap()
    }

    fn startup(ca_file: &str, accounts: &str) -> StartupTrust {
        let hosts = ["sts.eu-west-1.amazonaws.com", "sts.eu-central-1.amazonaws.com"];
        StartupTrust::new(hosts.map(host).to_vec(), ca_file, accounts)
    }

    #[test]
    fn miri_only_hosts_that_were_named_at_startup_are_possible() {
        let startup = startup("", "");
        for (name, possible) in [
            ("sts.eu-west-1.amazonaws.com", true),
            ("sts.eu-central-1.amazonaws.com", true),
            ("sts.amazonaws.com", false),
            ("sts.eu-west-2.amazonaws.com", false),
            ("sts.eu-west-1.amazonaws.com.attacker.example", false),
            ("sts-fips.eu-west-1.amazonaws.com", false),
            ("sts.attacker.example", false),
        ] {
            let result = startup.check_host(&host(name));
            assert_eq!(result.is_ok(), possible, "{name}: {result:?}");
            if let Err(why) = result {
                let named = "(sts.eu-central-1.amazonaws.com, sts.eu-west-1.amazonaws.com)";
                assert!(why.starts_with(name) && why.contains(named), "{why}");
            }
        }
    }

    #[test]
    fn miri_only_the_path_given_at_startup_is_possible() {
        let path = "/etc/ssl/ca.pem";
        for (at_startup, now, possible) in [
            (path, path, true),
            (path, "/etc/ssl/other.pem", false),
            (path, "/etc/ssl/../ssl/ca.pem", false),
            (path, "/etc//ssl/ca.pem", false),
            (path, "/etc/ssl/ca.pem/", false),
            (path, "/var/lib/mongodb/_mdb_catalog.wt", false),
            ("", path, false),
        ] {
            let result = startup(at_startup, "").check_ca_file(now);
            assert_eq!(result.is_ok(), possible, "{at_startup} -> {now}: {result:?}");
            if let Err(why) = result {
                assert!(why.contains(if at_startup.is_empty() { "must be empty" } else { at_startup }), "{why}");
            }
        }
    }

    #[test]
    fn miri_a_list_of_accounts_can_be_narrowed_and_widened_back_and_no_further() {
        let (a, b, c) = ("111111111111", "222222222222", "333333333333");
        let list = |accounts: &[&str]| accounts.join(",");
        for (at_startup, now, possible) in [
            (list(&[a, b]), list(&[a]), true),
            (list(&[a, b]), list(&[b, a]), true),
            (list(&[a, b]), list(&[a, a]), true),
            (list(&[a, b]), list(&[a, c]), false),
            (list(&[a, b]), list(&[c]), false),
            (list(&[a, b]), String::new(), false),
            (String::new(), list(&[a]), true),
            (String::new(), String::new(), true),
        ] {
            let result = startup("", &at_startup).check_accounts(&now);
            assert_eq!(result.is_ok(), possible, "{at_startup} -> {now}: {result:?}");
            if let Err(why) = result {
                assert!(why.contains(&at_startup), "{why}");
            }
        }
    }
}
