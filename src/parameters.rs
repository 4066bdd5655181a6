//! The server parameters: names, defaults and checks. They know no store and no client.
//!
//! The one table is the call of `parameters!` below. A row makes a field of [`Values`], with the
//! default of its type, and an entry of [`PARAMETERS`]; the type of the field checks what is set.

use crate::principal::{self, RoleUserFormat};
use crate::sts::endpoint::{Endpoint, Proxy, StsHost};
use crate::sts::roots::CaFile;
use crate::trust::StartupTrust;
use bson::raw::{CStr, RawBsonRef, RawDocument, RawDocumentBuf};
use std::borrow::Cow;
use std::time::Duration;

/// The maximum number of hosts in awsStsFallbackHosts.
const MAX_FALLBACK_HOSTS: usize = 8;

/// The maximum number of accounts in awsIamAllowedAccounts.
const MAX_ALLOWED_ACCOUNTS: usize = 1000;

/// The minimum and maximum of awsStsTimeoutMS.
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 100..=60_000;

/// The names of the values of awsIamRoleUserFormat.
const ROLE_USER_FORMATS: [(&str, RoleUserFormat); 2] =
    [("iamRole", RoleUserFormat::IamRole), ("assumedRole", RoleUserFormat::AssumedRole)];

/// The value of one parameter. Its default is the parameter's.
trait Value: Default {
    /// Checks a value that is given as text. `startup` is present once the server has started, and
    /// limits the values that decide whom the server trusts.
    ///
    /// # Errors
    /// What the value must be, as the end of a sentence that begins with the parameter's name.
    fn parse(text: &str, startup: Option<&StartupTrust>) -> Result<Self, String>;

    /// The value as it is shown.
    fn show(&self) -> Shown<'_>;
}

/// A value as getParameter shows it. The kind of it is also what setParameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown<'a> {
    /// A string.
    Text(&'a str),
    /// A whole number.
    Integer(i64),
}

impl Shown<'_> {
    /// The value as text.
    pub fn to_text(self) -> String {
        match self {
            Self::Text(text) => text.to_owned(),
            Self::Integer(number) => number.to_string(),
        }
    }

    /// Appends the value to a document; an integer as the shortest type that holds it.
    pub fn append_to(self, document: &mut RawDocumentBuf, name: &CStr) {
        match self {
            Self::Text(text) => document.append(name, text),
            Self::Integer(number) => match i32::try_from(number) {
                Ok(small) => document.append(name, small),
                Err(_) => document.append(name, number),
            },
        }
    }
}

/// One server parameter.
#[derive(Debug)]
pub struct Parameter {
    /// The name after `setParameter`.
    pub name: &'static str,
    show: fn(&Values) -> Shown<'_>,
    set: fn(&mut Values, &str, Option<&StartupTrust>) -> Result<(), String>,
}

macro_rules! parameters {
    ($($(#[$doc:meta])* $name:literal $field:ident: $type:ty,)*) => {
        /// The values of all parameters.
        #[derive(Clone, Debug, Default)]
        pub struct Values {
            $($(#[$doc])* pub $field: $type,)*
        }

        /// Every parameter, in the order in which they are registered.
        pub static PARAMETERS: [Parameter; [$($name),*].len()] = [$(Parameter {
            name: $name,
            show: |values| values.$field.show(),
            set: |values, text, startup| {
                values.$field = Value::parse(text, startup)?;
                Ok(())
            },
        }),*];
    };
}

parameters! {
    /// The STS host that clients sign for.
    "awsStsHost" sts_host: StsHost,
    /// The address to connect to instead of port 443 of that host.
    "awsStsEndpoint" sts_endpoint: Option<Endpoint>,
    /// Root certificates to trust besides the system's.
    "awsStsCAFile" sts_ca_file: Option<CaFile>,
    /// The maximum time of one verification, retries included.
    "awsStsTimeoutMS" sts_timeout: StsTimeout,
    /// The accounts whose principals may log in.
    "awsIamAllowedAccounts" allowed_accounts: AllowedAccounts,
    /// The proxy that connections to STS go through.
    "awsStsProxy" sts_proxy: Option<Proxy>,
    /// The hosts that replace the STS host while it is unreachable.
    "awsStsFallbackHosts" sts_fallback_hosts: FallbackHosts,
    /// What a role's user is called.
    "awsIamRoleUserFormat" role_user_format: RoleUserFormat,
}

/// The parameter of this name, such as "awsStsHost".
pub fn find(name: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|parameter| parameter.name == name)
}

impl Parameter {
    /// The value among these.
    pub fn show<'a>(&self, values: &'a Values) -> Shown<'a> {
        (self.show)(values)
    }

    /// Sets the value among these from text, as a command line or a configuration file gives it.
    /// `startup` is present once the server has started: see [`crate::trust`].
    ///
    /// # Errors
    /// One sentence that names the parameter and says what the value must be.
    pub fn set_text(&self, values: &mut Values, text: &str, startup: Option<&StartupTrust>) -> Result<(), String> {
        (self.set)(values, text, startup).map_err(|why| self.refusal(&why))
    }

    /// Sets the value among these from a BSON document of one element, as the setParameter command
    /// gives it.
    ///
    /// # Errors
    /// As [`Parameter::set_text`], and when the element has another type.
    pub fn set_bson(
        &self,
        values: &mut Values,
        element: &RawDocument,
        startup: Option<&StartupTrust>,
    ) -> Result<(), String> {
        let text = self.read_bson(values, element).map_err(|why| self.refusal(why))?;
        self.set_text(values, &text, startup)
    }

    /// Reads an element of this parameter's type as text.
    fn read_bson<'a>(&self, values: &Values, element: &'a RawDocument) -> Result<Cow<'a, str>, &'static str> {
        let mut elements = element.iter();
        let (Some(Ok((_, value))), None) = (elements.next(), elements.next()) else {
            return Err("must be a single value");
        };
        match (self.show(values), value) {
            (Shown::Text(_), RawBsonRef::String(text)) => Ok(text.into()),
            (Shown::Text(_), _) => Err("must be a string"),
            (Shown::Integer(_), RawBsonRef::Int32(number)) => Ok(number.to_string().into()),
            (Shown::Integer(_), RawBsonRef::Int64(number)) => Ok(number.to_string().into()),
            // A shell sends its numbers as doubles; whole ones in the exact range mean integers.
            (Shown::Integer(_), RawBsonRef::Double(number)) if number.fract() == 0.0 && number.abs() <= 9e15 =>
            {
                #[expect(clippy::cast_possible_truncation, reason = "whole and in range, as just checked")]
                Ok((number as i64).to_string().into())
            }
            (Shown::Integer(_), _) => Err("must be a whole number"),
        }
    }

    fn refusal(&self, why: &str) -> String {
        format!("{}: {why}", self.name)
    }
}

/// Checks a value that may be empty, which means none.
fn optional<T>(text: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// Applies the rule about changes at runtime. While the server starts, every value passes.
fn check_startup(
    startup: Option<&StartupTrust>,
    check: impl FnOnce(&StartupTrust) -> Result<(), String>,
) -> Result<(), String> {
    startup.map_or(Ok(()), check)
}

impl Value for StsHost {
    fn parse(text: &str, startup: Option<&StartupTrust>) -> Result<Self, String> {
        let host = Self::parse(text)?;
        check_startup(startup, |startup| startup.check_host(&host))?;
        Ok(host)
    }

    fn show(&self) -> Shown<'_> {
        Shown::Text(self.as_str())
    }
}

impl Value for Option<Endpoint> {
    fn parse(text: &str, _: Option<&StartupTrust>) -> Result<Self, String> {
        optional(text, Endpoint::parse)
    }

    fn show(&self) -> Shown<'_> {
        Shown::Text(self.as_ref().map_or("", Endpoint::as_str))
    }
}

impl Value for Option<Proxy> {
    fn parse(text: &str, _: Option<&StartupTrust>) -> Result<Self, String> {
        optional(text, Proxy::parse)
    }

    fn show(&self) -> Shown<'_> {
        Shown::Text(self.as_ref().map_or("", Proxy::as_str))
    }
}

impl Value for Option<CaFile> {
    fn parse(text: &str, startup: Option<&StartupTrust>) -> Result<Self, String> {
        optional(text, |path| {
            // Before the file is opened: a refusal must not tell what is there.
            check_startup(startup, |startup| startup.check_ca_file(path))?;
            CaFile::read(path)
        })
    }

    fn show(&self) -> Shown<'_> {
        Shown::Text(self.as_ref().map_or("", CaFile::path))
    }
}

/// How long one verification may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StsTimeout(pub Duration);

impl Default for StsTimeout {
    fn default() -> Self {
        Self(Duration::from_secs(10))
    }
}

impl Value for StsTimeout {
    fn parse(text: &str, _: Option<&StartupTrust>) -> Result<Self, String> {
        let number: i64 = text.parse().map_err(|_| "must be a whole number".to_owned())?;
        match u64::try_from(number) {
            Ok(millis) if TIMEOUT_MS.contains(&millis) => Ok(Self(Duration::from_millis(millis))),
            _ => {
                let (minimum, maximum) = (TIMEOUT_MS.start(), TIMEOUT_MS.end());
                Err(format!("must be between {minimum} and {maximum} milliseconds"))
            }
        }
    }

    fn show(&self) -> Shown<'_> {
        Shown::Integer(i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The accounts whose principals may log in, in the order they were given; none means all.
#[derive(Clone, Debug, Default)]
pub struct AllowedAccounts {
    text: String,
    is_set: bool,
}

impl AllowedAccounts {
    /// Whether principals of this account may log in.
    pub fn allow(&self, account: &str) -> bool {
        self.text.is_empty() || self.text.split(',').any(|allowed| allowed == account)
    }

    /// The list, separated by commas.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the list was set, and to an empty one.
    pub fn is_set_empty(&self) -> bool {
        self.is_set && self.text.is_empty()
    }
}

impl Value for AllowedAccounts {
    fn parse(text: &str, startup: Option<&StartupTrust>) -> Result<Self, String> {
        let accounts = text.split(',');
        if !text.is_empty()
            && (accounts.clone().count() > MAX_ALLOWED_ACCOUNTS || !accounts.clone().all(principal::is_account))
        {
            return Err(format!(
                "must be account ids of 12 digits, separated by commas without spaces, such as \
                 123456789012,210987654321, at most {MAX_ALLOWED_ACCOUNTS}; an empty value allows every account"
            ));
        }
        check_startup(startup, |startup| startup.check_accounts(text))?;
        Ok(Self { text: text.to_owned(), is_set: true })
    }

    fn show(&self) -> Shown<'_> {
        Shown::Text(&self.text)
    }
}

/// The hosts that replace awsStsHost while it is unreachable, each with an address of its own or
/// none, and the text that lists them.
#[derive(Clone, Debug, Default)]
pub struct FallbackHosts {
    text: String,
    hosts: Vec<(StsHost, Option<Endpoint>)>,
}

impl FallbackHosts {
    /// The hosts, in order of preference.
    pub fn iter(&self) -> impl Iterator<Item = (&StsHost, Option<&Endpoint>)> {
        self.hosts.iter().map(|(name, endpoint)| (name, endpoint.as_ref()))
    }
}

impl Value for FallbackHosts {
    fn parse(text: &str, startup: Option<&StartupTrust>) -> Result<Self, String> {
        let parse = |entry: &str| -> Result<_, String> {
            Ok(match entry.split_once('=') {
                Some((host, endpoint)) => (StsHost::parse(host)?, Some(Endpoint::parse(endpoint)?)),
                None => (StsHost::parse(entry)?, None),
            })
        };
        let mut hosts = Vec::new();
        for (index, entry) in text.split(',').enumerate().filter(|_| !text.is_empty()) {
            hosts.push(parse(entry).map_err(|why| {
                format!(
                    "must be a list of host or host=https://address:port, separated by commas without spaces; entry \
                     {} {why}",
                    index + 1
                )
            })?);
        }
        if hosts.len() > MAX_FALLBACK_HOSTS {
            return Err(format!("must be a list of at most {MAX_FALLBACK_HOSTS} hosts"));
        }
        check_startup(startup, |startup| hosts.iter().try_for_each(|(name, _)| startup.check_host(name)))?;
        Ok(Self { text: text.to_owned(), hosts })
    }

    fn show(&self) -> Shown<'_> {
        Shown::Text(&self.text)
    }
}

impl Value for RoleUserFormat {
    fn parse(text: &str, _: Option<&StartupTrust>) -> Result<Self, String> {
        let found = ROLE_USER_FORMATS.iter().find(|(name, _)| *name == text);
        found.map(|(_, format)| *format).ok_or_else(|| {
            "must be iamRole (arn:...:iam::ACCOUNT:role/ROLE) or assumedRole \
             (arn:...:sts::ACCOUNT:assumed-role/ROLE/*)"
                .to_owned()
        })
    }

    fn show(&self) -> Shown<'_> {
        Shown::Text(ROLE_USER_FORMATS.iter().find(|(_, format)| format == self).map_or("", |(name, _)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    /// Sets a value, which is read back if it is accepted and changes nothing if it is refused.
    fn set(values: &mut Values, name: &str, text: &str) -> Result<(), String> {
        let parameter = find(name).unwrap();
        let before = parameter.show(values).to_text();
        let result = parameter.set_text(values, text, None);
        assert_eq!(parameter.show(values).to_text(), if result.is_ok() { text } else { &before });
        result
    }

    #[test]
    fn miri_defaults_are_the_documented_ones() {
        let values = Values::default();
        let shown: Vec<_> = PARAMETERS.iter().map(|parameter| (parameter.name, parameter.show(&values))).collect();
        let expected = [
            ("awsStsHost", Shown::Text("sts.amazonaws.com")),
            ("awsStsEndpoint", Shown::Text("")),
            ("awsStsCAFile", Shown::Text("")),
            ("awsStsTimeoutMS", Shown::Integer(10_000)),
            ("awsIamAllowedAccounts", Shown::Text("")),
            ("awsStsProxy", Shown::Text("")),
            ("awsStsFallbackHosts", Shown::Text("")),
            ("awsIamRoleUserFormat", Shown::Text("iamRole")),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn miri_a_time_is_a_whole_number_between_its_minimum_and_maximum() {
        let mut values = Values::default();
        for good in ["100", "2500", "60000"] {
            set(&mut values, "awsStsTimeoutMS", good).unwrap();
        }
        for (wrong, why) in [
            ("99", "must be between 100 and 60000 milliseconds"),
            ("60001", "must be between 100 and 60000 milliseconds"),
            ("-100", "must be between 100 and 60000 milliseconds"),
            ("1e3", "must be a whole number"),
            ("", "must be a whole number"),
            ("9223372036854775808", "must be a whole number"),
        ] {
            assert_eq!(set(&mut values, "awsStsTimeoutMS", wrong), Err(format!("awsStsTimeoutMS: {why}")), "{wrong}");
        }
    }

    #[test]
    fn miri_a_double_is_an_integer_if_it_is_whole_and_exact() {
        const RANGE: &str = "awsStsTimeoutMS: must be between 100 and 60000 milliseconds";
        const WHOLE: &str = "awsStsTimeoutMS: must be a whole number";
        let mut values = Values::default();
        let parameter = find("awsStsTimeoutMS").unwrap();
        for (number, expected) in [
            (2500.0, Ok(())),
            (-2500.0, Err(RANGE)),
            (9e15, Err(RANGE)),
            (-9e15, Err(RANGE)),
            (9.1e15, Err(WHOLE)),
            (2500.5, Err(WHOLE)),
            (f64::NAN, Err(WHOLE)),
            (f64::INFINITY, Err(WHOLE)),
        ] {
            let element = rawdoc! { "awsStsTimeoutMS": number };
            let result = parameter.set_bson(&mut values, &element, None);
            assert_eq!(result, expected.map_err(str::to_owned), "{number}");
        }
        assert_eq!(parameter.show(&values), Shown::Integer(2500));
    }

    #[test]
    fn miri_accounts_are_a_list_of_twelve_digits_each() {
        let mut values = Values::default();
        let most = vec!["123456789012"; MAX_ALLOWED_ACCOUNTS].join(",");
        for good in ["", "123456789012", "210987654321,123456789012", &most] {
            set(&mut values, "awsIamAllowedAccounts", good).unwrap();
        }
        let many = format!("{most},123456789012");
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
            let why = set(&mut values, "awsIamAllowedAccounts", wrong).unwrap_err();
            assert!(why.starts_with("awsIamAllowedAccounts: must be account ids of 12 digits"), "{why}");
        }
    }

    #[test]
    fn miri_fallback_hosts_are_hosts_with_an_address_each_or_none() {
        let mut values = Values::default();
        let most = ["sts.a.com"; MAX_FALLBACK_HOSTS].join(",");
        let list = "sts.us-west-2.amazonaws.com,sts.us-east-2.amazonaws.com=https://10.0.0.1:8443";
        for good in ["", &most, list] {
            set(&mut values, "awsStsFallbackHosts", good).unwrap();
        }
        let many = format!("{most},sts.a.com");
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
            let why = set(&mut values, "awsStsFallbackHosts", wrong).unwrap_err();
            assert!(why.starts_with("awsStsFallbackHosts: must be "), "{why}");
        }
        let why = set(&mut values, "awsStsFallbackHosts", "sts.us-west-2.amazonaws.com,eu-west-1").unwrap_err();
        assert!(why.contains("without spaces; entry 2 must be a host name"), "{why}");
    }
}
