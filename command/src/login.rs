//! `login`: a whole MONGODB-AWS login against a server, which says how far it gets and why no further.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bson::raw::{RawDocumentBuf, cstr};
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, rawdoc};
use clap::Args;
use psmdb_aws_iam::mongosh;
use psmdb_aws_iam::principal::Principal;
use psmdb_aws_iam::sasl::NONCE_LENGTH;
use psmdb_aws_iam::sts::certificates;
use psmdb_aws_iam::sts::endpoint::StsHost;
use psmdb_aws_iam::sts::request::IdentityRequest;
use rustls::CertificateError;
use zeroize::Zeroizing;

use crate::credentials::{Credentials, SOURCES_HELP, Sources, variable};
use crate::output::{Failure, Outcome, print, quoted, shown, warn};
use crate::settings::{path_value, settings};
use crate::signing::sign_identity_request;
use crate::user_name::session_of_role;
use crate::wire::{self, Address, Connection, Trouble};

/// Users and roles that are shown, at most.
const MAX_SHOWN: usize = 100;

const MECHANISM: &str = "MONGODB-AWS";

/// The step in which the server asks STS.
const SASL_CONTINUE: &str = "4 saslContinue";

/// MongoDB's codes of errors, from its error_codes.yml.
mod code {
    pub const USER_NOT_FOUND: i32 = 11;
    pub const AUTHENTICATION_FAILED: i32 = 18;
    pub const COMMAND_NOT_FOUND: i32 = 59;
    pub const MECHANISM_UNAVAILABLE: i32 = 334;
}

fn help() -> String {
    format!(
        "\
Does what a driver does: connects, asks hello, signs for the STS host that the
server names (saslStart, saslContinue), and asks who it is then
(connectionStatus). Each step is printed when it is done. The first one that
fails is said on standard error, with what to do. Nothing is changed on the
server.

The secret key stays here. A session token is sent to the server, which needs it
to ask STS: use --tls. A server that wants a client's certificate is not
supported.

{SOURCES_HELP}

Exit status:
  0  logged in
  1  the server refused the login; standard error says at which step, and why
  2  it did not come to that: no credentials, connection or MongoDB; wrong usage

Examples:
  psmdb-aws-iam login --tls db1.example.com
  psmdb-aws-iam login --tls --tls-ca-file /etc/ssl/corp.pem db1.example.com:27018
  psmdb-aws-iam login --profile shop 127.0.0.1"
    )
}

/// Log in to a server by MONGODB-AWS, and say step by step how far it gets
#[derive(Args)]
#[command(after_long_help = help())]
pub struct Login {
    /// Connect by TLS, and let the system's root certificates say whether it is the server
    #[arg(long)]
    tls: bool,

    /// PEM file of more root certificates
    #[arg(long, value_name = "FILE", requires = "tls")]
    tls_ca_file: Option<PathBuf>,

    /// Take the keys of this profile in AWS's files
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,

    /// Time for all of it; the server's awsStsTimeoutMS is a part of it
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    timeout_ms: u64,

    /// The server, HOST or HOST:PORT
    #[arg(value_name = "HOST[:PORT]")]
    address: String,
}

/// Logs in.
///
/// # Errors
/// A no when the server refuses; otherwise when it does not come to that.
pub fn run(arguments: &Login) -> Outcome {
    let address = Address::parse(&arguments.address)?;
    let settings =
        settings(&[("--tls-ca-file", "awsStsCAFile", path_value("--tls-ca-file", arguments.tls_ca_file.as_ref())?)])?;
    let tls = match arguments.tls {
        false => None,
        true => Some(settings.sts().route(settings.sts().first_host()).map_err(|_| {
            "no root certificate is there to verify the server with: install the system's ca-certificates, or give \
             --tls-ca-file"
                .to_owned()
        })?.tls),
    };
    let credentials = Sources { profile: arguments.profile.as_deref(), environment: &variable }.credentials()?;
    let timeout = Duration::from_millis(arguments.timeout_ms);
    let deadline = Instant::now() + timeout;

    let connection = Connection::open(&address, tls, deadline)
        .map_err(|trouble| cannot("1 connect", &trouble, &connect_advice(&trouble, &address, timeout)))?;
    let by = connection.tls_version().map_or_else(|| "without TLS".to_owned(), |version| format!("by {version}"));
    print(&format!("1 connected to {address}, {by}\n"))?;
    if others_may_take_part(&connection) {
        warn(
            "warning: without TLS. Others can read what is sent, with the session token if there is one, and nobody has \
             verified that this is your server, which a rogue server in between can log in to as you: use --tls",
        );
    }
    let mut attempt =
        Attempt { connection, address, timeout, credentials: &credentials, profile: arguments.profile.as_deref() };
    attempt.hello()?;
    let challenge = attempt.sasl_start()?;
    let request = sign_identity_request(&credentials, &challenge.host, &challenge.nonce)?;
    attempt.sasl_continue(&challenge, &request)?;
    attempt.connection_status()?;
    Ok(true)
}

/// A login on its way.
struct Attempt<'a> {
    connection: Connection,
    address: Address,
    timeout: Duration,
    credentials: &'a Credentials,
    profile: Option<&'a str>,
}

/// The server's first message, and what has to come back with the answer to it.
struct Challenge {
    conversation_id: i32,
    host: StsHost,
    nonce: [u8; 2 * NONCE_LENGTH],
}

impl Attempt<'_> {
    /// Asks the server what it is.
    fn hello(&mut self) -> Result<(), Failure> {
        const STEP: &str = "2 hello";
        let mut reply = self.command(STEP, "admin", rawdoc! { "hello": 1 })?;
        // Servers before 4.4.2.
        if error_of(&reply).is_some_and(|(code, _)| code == code::COMMAND_NOT_FOUND) {
            reply = self.command(STEP, "admin", rawdoc! { "isMaster": 1 })?;
        }
        if let Some((code, message)) = error_of(&reply) {
            return Err(refused(STEP, code, &message, "what answers may be a proxy that allows no such question"));
        }
        if reply.get("maxWireVersion").is_none() {
            let trouble = Trouble::NotMongo("its answer to hello has no maxWireVersion".to_owned());
            return Err(self.failed(STEP, &trouble));
        }
        // Allowed to everybody on most servers; the login goes on without.
        let version = self.command(STEP, "admin", rawdoc! { "buildInfo": 1 })?;
        let version = version.get_str("version").map_or_else(|_| "of an unknown version".to_owned(), shown);
        let kind = if reply.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") { " (mongos)" } else { "" };
        let set =
            reply.get_str("setName").map_or_else(|_| String::new(), |name| format!(", replica set {}", shown(name)));
        print(&format!("{STEP}: MongoDB {version}{kind}{set}\n"))?;
        if reply.get_bool("arbiterOnly").unwrap_or_default() {
            warn("warning: this is an arbiter, which has no users: log in to another member");
        }
        Ok(())
    }

    /// Begins the conversation, and reads whom the server wants STS to be.
    fn sasl_start(&mut self) -> Result<Challenge, Failure> {
        const STEP: &str = "3 saslStart";
        let mut nonce = [0; NONCE_LENGTH];
        getrandom::fill(&mut nonce).map_err(|error| format!("no random bytes: {error}"))?;
        let first = rawdoc! { "r": binary(nonce.to_vec()), "p": i32::from(b'n') };
        let command = rawdoc! { "saslStart": 1, "mechanism": MECHANISM, "payload": binary(first.into_bytes()) };
        let reply = self.command(STEP, "$external", command)?;
        if let Some((code, message)) = error_of(&reply) {
            return Err(refused(STEP, code, &message, &self.sasl_start_advice(code, &message)));
        }
        let odd = |what: &str| {
            Failure::No(format!(
                "{STEP}: the server's answer is not that of {MECHANISM}: {what}. Nothing was signed. Is this your server, and \
                 which plugin or version does it have?"
            ))
        };
        let conversation_id = reply.get_i32("conversationId").map_err(|_| odd("it has no conversationId"))?;
        let payload = reply.get_binary_generic("payload").map_err(|_| odd("it has no payload"))?;
        let payload = wire::document(payload).ok_or_else(|| odd("its payload is not BSON"))?;
        let both =
            payload.get_binary_generic("s").ok().and_then(|both| <[u8; 2 * NONCE_LENGTH]>::try_from(&both[..]).ok());
        let both = both.filter(|both| both[..NONCE_LENGTH] == nonce);
        let both = both.ok_or_else(|| odd("its nonce does not go on from the client's"))?;
        let named = payload.get_str("h").map_err(|_| odd("it names no STS host"))?;
        let host = StsHost::parse(named).map_err(|why| {
            Failure::No(format!(
                "{STEP}: the server asks to sign for {:?}, with which no login can succeed. Set awsStsHost on the \
                 server: it {why}",
                shown(named)
            ))
        })?;
        print(&format!("{STEP}: the server asks to sign for {host}, region {}\n", host.region()))?;
        if let Some(doubt) = host.doubt() {
            warn(&format!("warning: {host} {doubt}. See who may change awsStsHost on the server"));
        }
        Ok(Challenge { conversation_id, host, nonce: both })
    }

    /// Sends the signature, which the server lets STS verify.
    fn sasl_continue(&mut self, challenge: &Challenge, request: &IdentityRequest) -> Result<(), Failure> {
        const STEP: &str = SASL_CONTINUE;
        let mut second = RawDocumentBuf::new();
        second.append(cstr!("a"), request.authorization.to_header().expose());
        second.append(cstr!("d"), request.date.as_str());
        if let Some(token) = &request.token {
            second.append(cstr!("t"), token.expose());
        }
        let second = Zeroizing::new(second.into_bytes());
        let mut command = rawdoc! { "saslContinue": 1 };
        command.append(cstr!("conversationId"), challenge.conversation_id);
        command.append(cstr!("payload"), binary(second.to_vec()));
        let reply = self.command(STEP, "$external", command)?;
        if let Some((code, message)) = error_of(&reply) {
            return Err(refused(STEP, code, &message, &self.sasl_continue_advice(code, &message, &challenge.host)));
        }
        if !reply.get_bool("done").unwrap_or_default() {
            return Err(Failure::No(format!("{STEP}: the server does not say that the login is done")));
        }
        print(&format!("{STEP}: logged in; {}\n", self.keys()))?;
        Ok(())
    }

    /// Asks who this connection is now.
    fn connection_status(&mut self) -> Result<(), Failure> {
        const STEP: &str = "5 connectionStatus";
        let reply = self.command(STEP, "admin", rawdoc! { "connectionStatus": 1 })?;
        if let Some((code, message)) = error_of(&reply) {
            return Err(refused(STEP, code, &message, "the login was accepted before"));
        }
        let info = reply.get_document("authInfo").cloned().unwrap_or_default();
        let list = |field: &str, name: &str| -> Vec<String> {
            let entries = info.get_array(field).map(Vec::as_slice).unwrap_or_default();
            let entry = |entry: &Bson| {
                let entry = entry.as_document()?;
                Some(format!("{}@{}", shown(entry.get_str(name).ok()?), shown(entry.get_str("db").ok()?)))
            };
            let more = entries.len().saturating_sub(MAX_SHOWN);
            let shown = entries.iter().take(MAX_SHOWN).filter_map(entry);
            shown.chain((more > 0).then(|| format!("and {more} more"))).collect()
        };
        let (users, roles) = (list("authenticatedUsers", "user"), list("authenticatedUserRoles", "role"));
        if users.is_empty() {
            return Err(Failure::No(format!("{STEP}: the server says that nobody is logged in")));
        }
        let roles = if roles.is_empty() { "none: grant it some".to_owned() } else { roles.join(", ") };
        print(&format!("{STEP}: user {}\n  roles: {roles}\n", users.join(", ")))?;
        Ok(())
    }

    fn command(&mut self, step: &str, database: &str, command: RawDocumentBuf) -> Result<Document, Failure> {
        self.connection.command(database, command).map_err(|trouble| self.failed(step, &trouble))
    }

    fn failed(&self, step: &str, trouble: &Trouble) -> Failure {
        let advice = match trouble {
            Trouble::Closed if self.connection.tls_version().is_none() => {
                "it may want TLS (--tls), not take connections from here, or be no MongoDB server".to_owned()
            }
            Trouble::Closed | Trouble::Tls(rustls::Error::AlertReceived(_)) => {
                "it may want a client's certificate, which is not supported, or not take connections from here"
                    .to_owned()
            }
            Trouble::NotMongo(_) => {
                format!("is {} the right port? A server's is net.port of its mongod.conf", self.address)
            }
            Trouble::TimedOut if step == SASL_CONTINUE => format!(
                "the limit is {} ms for all steps (--timeout-ms); the server may still wait for STS, for awsStsTimeoutMS at \
                 most",
                self.timeout.as_millis()
            ),
            Trouble::TimedOut => format!(
                "the limit is {} ms for all steps (--timeout-ms); what listens there hangs, is no MongoDB server, or wants \
                 TLS (--tls)",
                self.timeout.as_millis()
            ),
            _ => "see the server's log".to_owned(),
        };
        cannot(step, trouble, &advice)
    }

    fn sasl_start_advice(&self, code: i32, message: &str) -> String {
        if code == code::MECHANISM_UNAVAILABLE || message.contains("not enabled") || message.contains("not supported") {
            return format!(
                "the server does not offer {MECHANISM}. Preload the plugin, put this into mongod.conf, and restart \
                 (psmdb-aws-iam setup prints all of it):\n\
                 \x20 setParameter:\n    authenticationMechanisms: {MECHANISM},SCRAM-SHA-256"
            );
        }
        self.log_advice()
    }

    fn sasl_continue_advice(&self, code: i32, message: &str, host: &StsHost) -> String {
        match code {
            code::USER_NOT_FOUND => {
                // Could not find user "NAME" for db "$external"; a NAME may hold quotation marks.
                let name = message.split_once("user \"").and_then(|(_, rest)| rest.rsplit_once("\" for db \""));
                match name.map(|(name, _)| name).filter(|name| is_user_name(name)) {
                    Some(name) => format!(
                        "STS has confirmed who you are; the server has no such user. As a user administrator, in mongosh:\n  {}{}",
                        mongosh::create_user(name),
                        if others_may_take_part(&self.connection) {
                            format!(
                                "\nWithout TLS anybody between could have named it: compare with {}",
                                self.whoami(host)
                            )
                        } else {
                            String::new()
                        }
                    ),
                    None => format!(
                        "STS has confirmed who you are; the server has no such user: {} says which to create",
                        self.whoami(host)
                    ),
                }
            }
            code::AUTHENTICATION_FAILED => {
                format!("{}\nTo see what STS answers for these credentials: {}", self.log_advice(), self.whoami(host))
            }
            _ => self.log_advice(),
        }
    }

    fn log_advice(&self) -> String {
        format!(
            "a client is not told more. The reason is in mongod's log, in the line \"Authentication failed\" (id 20249), or \
             88000002 for a caller without a user: look for the {}",
            self.keys()
        )
    }

    /// Whose keys these are.
    fn keys(&self) -> String {
        format!("access key id {}, from {}", shown(&self.credentials.access_key_id), shown(&self.credentials.source))
    }

    /// The command that takes the same keys to this STS.
    fn whoami(&self, host: &StsHost) -> String {
        let profile = self.profile.map_or_else(String::new, |profile| format!("--profile {} ", quoted(profile)));
        format!("psmdb-aws-iam whoami {profile}--sts-host {host}")
    }
}

/// Whether somebody between could read what is sent, and answer in the server's place.
fn others_may_take_part(connection: &Connection) -> bool {
    connection.tls_version().is_none() && !connection.peer().ip().is_loopback()
}

/// Whether a login can have this user.
fn is_user_name(name: &str) -> bool {
    // No session is named so: it is the form of awsIamRoleUserFormat: assumedRole.
    let of_session = name.strip_suffix("/*").map(|role| format!("{role}/any"));
    session_of_role(name).is_some() || Principal::parse(of_session.as_deref().unwrap_or(name)).is_ok()
}

/// The code and the text of a reply that says no.
fn error_of(reply: &Document) -> Option<(i32, String)> {
    let is_ok = match reply.get("ok") {
        Some(Bson::Double(ok)) => *ok == 1.0,
        Some(Bson::Int32(ok)) => *ok == 1,
        Some(Bson::Int64(ok)) => *ok == 1,
        _ => false,
    };
    let code = reply.get_i32("code").unwrap_or_default();
    (!is_ok).then(|| (code, shown(reply.get_str("errmsg").unwrap_or("without a reason"))))
}

fn refused(step: &str, code: i32, message: &str, advice: &str) -> Failure {
    Failure::No(format!("{step}: refused: {message} (code {code})\n{advice}"))
}

fn cannot(step: &str, trouble: &Trouble, advice: &str) -> Failure {
    Failure::Cannot(format!("{step}: {trouble}\n{advice}"))
}

fn connect_advice(trouble: &Trouble, address: &Address, timeout: Duration) -> String {
    match trouble {
        Trouble::NameNotFound => format!("is {} the server's name, and does DNS here know it?", address.host),
        Trouble::TimedOut => format!(
            "within {} ms (--timeout-ms): a firewall or a security group may drop what is sent to {address}",
            timeout.as_millis()
        ),
        Trouble::Broken(_) => format!(
            "does a server listen on {address}? See net.bindIp and net.port of its mongod.conf, and whether it runs"
        ),
        Trouble::Tls(error) => match certificates::cause(error) {
            Some(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                "the server's certificate is not trusted: give that of its CA with --tls-ca-file".to_owned()
            }
            Some(CertificateError::NotValidForNameContext { .. }) => {
                "the server's certificate is not trusted: use a host name that is in it".to_owned()
            }
            Some(_) => "the server's certificate is not trusted; it is set by net.tls.certificateKeyFile".to_owned(),
            None => no_tls(),
        },
        Trouble::Closed => no_tls(),
        Trouble::NotMongo(_) | Trouble::Unsendable(_) => String::new(),
    }
}

fn no_tls() -> String {
    "the server may have no TLS (net.tls.mode), or want a client's certificate, which is not supported".to_owned()
}

fn binary(bytes: Vec<u8>) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_that_a_login_can_have_is_advised() {
        for name in [
            r#"arn:aws:iam::123456789012:user/a"b/alice"#,
            "arn:aws:iam::123456789012:role/shop",
            "arn:aws:sts::123456789012:assumed-role/shop/*",
            "arn:aws:sts::123456789012:federated-user/bob",
        ] {
            assert!(is_user_name(name), "{name}");
        }
        for name in ["", "root", "arn:aws:iam::123456789012:group/all", "arn:aws:iam::123456789012:user/a\u{1b}[2J"] {
            assert!(!is_user_name(name), "{name}");
        }
    }

    #[test]
    fn a_reply_is_a_no_unless_it_says_ok() {
        for (reply, error) in [
            (bson::doc! { "ok": 1.0 }, None),
            (bson::doc! { "ok": 1 }, None),
            (bson::doc! { "ok": 1_i64 }, None),
            (bson::doc! { "ok": 0.0, "code": 18, "errmsg": "no\u{1b}[2J" }, Some((18, "no?[2J".to_owned()))),
            (bson::doc! { "ok": true }, Some((0, "without a reason".to_owned()))),
            (bson::doc! {}, Some((0, "without a reason".to_owned()))),
        ] {
            assert_eq!(error_of(&reply), error, "{reply}");
        }
    }
}
