//! The rule about changes at runtime: what a server trusts can only be chosen from what it was
//! started with.
//!
//! Without it, anyone who may run setParameter could name an STS of their own and become any user
//! in `$external`.

use crate::sts::endpoint::StsHost;

/// The startup values of the parameters that decide what a server trusts.
#[derive(Debug)]
pub struct StartupTrust {
    hosts: Vec<StsHost>,
    ca_file: String,
    accounts: String,
}

impl StartupTrust {
    /// Takes the startup values: awsStsHost and the names in awsStsFallbackHosts, the path in
    /// awsStsCAFile, and the list in awsIamAllowedAccounts; empty for those that were not set.
    pub fn new(hosts: Vec<StsHost>, ca_file: &str, accounts: &str) -> Self {
        Self { hosts, ca_file: ca_file.to_owned(), accounts: accounts.to_owned() }
    }

    /// Checks a new host name for awsStsHost or awsStsFallbackHosts.
    ///
    /// # Errors
    /// What the value must be at runtime, and how to use another host.
    pub fn check_host(&self, host: &StsHost) -> Result<(), String> {
        if self.hosts.contains(host) {
            return Ok(());
        }
        let mut named: Vec<_> = self.hosts.iter().map(StsHost::as_str).collect();
        named.sort_unstable();
        named.dedup();
        Err(format!(
            "must be a host that awsStsHost or awsStsFallbackHosts named at startup ({}), not {host}; to use another \
             host, change the configuration file and restart the server",
            named.join(", ")
        ))
    }

    /// Checks a new path for awsStsCAFile, which is not empty. Paths are compared as text, so the
    /// error does not reveal whether another file exists.
    ///
    /// # Errors
    /// What the value must be at runtime, and how to use another file.
    pub fn check_ca_file(&self, path: &str) -> Result<(), String> {
        if !self.ca_file.is_empty() && path == self.ca_file {
            return Ok(());
        }
        let possible = if self.ca_file.is_empty() {
            "empty, as it was at startup".to_owned()
        } else {
            format!("its startup value, {}, which reads the file again, or empty", self.ca_file)
        };
        Err(format!("must be {possible}; to use another file, change the configuration file and restart the server"))
    }

    /// Checks a new list for awsIamAllowedAccounts.
    ///
    /// # Errors
    /// What the value must be at runtime, and how to allow other accounts.
    pub fn check_accounts(&self, accounts: &str) -> Result<(), String> {
        let at_startup = || self.accounts.split(',');
        if self.accounts.is_empty() || accounts.split(',').all(|account| at_startup().any(|listed| listed == account)) {
            return Ok(());
        }
        Err(format!(
            "must be one or more of the accounts listed at startup ({}); to allow others, change the configuration \
             file and restart the server",
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
                let named = "named at startup (sts.eu-central-1.amazonaws.com, sts.eu-west-1.amazonaws.com)";
                assert!(why.starts_with("must be ") && why.contains(&format!("{named}, not {name};")), "{why}");
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
