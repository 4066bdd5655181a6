//! `login`: a complete MONGODB-AWS login to a server, which reports each step, and why one failed.

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

use crate::credentials::{Credentials, SOURCES_HELP, Sources};
use crate::output::{CommandError, CommandResult, print, quoted, shown, warn};
use crate::settings::{path_value, settings};
use crate::signing::sign_identity_request;
use crate::user_name::session_of_role;
use crate::wire::{self, Address, Connection};

/// The maximum number of users and of roles that are shown.
const MAX_SHOWN: usize = 100;

const MECHANISM: &str = "MONGODB-AWS";

/// The step in which the server sends the request to STS.
const SASL_CONTINUE: &str = "4 saslContinue";

/// MongoDB's error codes, from its error_codes.yml.
mod code {
    pub const USER_NOT_FOUND: i32 = 11;
    pub const AUTHENTICATION_FAILED: i32 = 18;
    pub const COMMAND_NOT_FOUND: i32 = 59;
    pub const MECHANISM_UNAVAILABLE: i32 = 334;
}

fn help() -> String {
    format!(
        "\
Does what a driver does: connects, sends hello, signs for the STS host that the
server names (saslStart, saslContinue), and sends connectionStatus for the user
and its roles. It prints each step when it is done and stops at the first that
fails, with the reason and what to do on standard error. It changes nothing on the
server.

The secret key is not sent. A session token is sent to the server, which needs it
for its request to STS: use --tls. A server that requires a client certificate is
not supported.

{SOURCES_HELP}

Exit status:
  0  logged in
  1  the server refused the login; see standard error for the step and the reason
  2  no login was attempted: no credentials, no connection to a MongoDB server, or
     wrong usage

Examples:
  psmdb-aws-iam login --tls db1.example.com
  psmdb-aws-iam login --tls --tls-ca-file /etc/ssl/corp.pem db1.example.com:27018
  psmdb-aws-iam login --profile shop 127.0.0.1"
    )
}

/// Log in to a server with MONGODB-AWS, step by step, as a driver does
#[derive(Args)]
#[command(after_long_help = help())]
pub struct Login {
    /// Connect with TLS, and verify the server with the system's root certificates
    #[arg(long)]
    tls: bool,

    /// PEM file with additional root certificates
    #[arg(long, value_name = "FILE", requires = "tls")]
    tls_ca_file: Option<PathBuf>,

    /// Use the credentials of this AWS profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,

    /// Maximum duration of all steps, including the server's awsStsTimeoutMS
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    timeout_ms: u64,

    /// The server, as HOST or HOST:PORT
    #[arg(value_name = "HOST[:PORT]")]
    address: String,
}

/// Logs in.
///
/// # Errors
/// A negative result when the server refuses the login; otherwise when it cannot be attempted.
pub fn run(arguments: &Login) -> CommandResult {
    let address = Address::parse(&arguments.address)?;
    let settings =
        settings(&[("--tls-ca-file", "awsStsCAFile", path_value("--tls-ca-file", arguments.tls_ca_file.as_ref())?)])?;
    let tls = match arguments.tls {
        false => None,
        true => Some(settings.sts().route(settings.sts().first_host()).map_err(|_| {
            "there are no root certificates to verify the server with: install the system's ca-certificates, or give \
             --tls-ca-file"
                .to_owned()
        })?.tls),
    };
    let credentials = Sources { profile: arguments.profile.as_deref() }.credentials()?;
    let timeout = Duration::from_millis(arguments.timeout_ms);
    let deadline = Instant::now() + timeout;

    let connection = Connection::open(&address, tls, deadline)
        .map_err(|error| cannot("1 connect", &error, &connect_advice(&error, &address, timeout)))?;
    let by = connection.tls_version().map_or_else(|| "without TLS".to_owned(), |version| format!("with {version}"));
    print(&format!("1 connected to {address}, {by}\n"))?;
    if is_exposed(&connection) {
        warn(
            "warning: the connection has no TLS. Others can read it, including a session token, and the server is not \
             verified: a rogue server in between can log in to yours as you. Use --tls",
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

/// A login in progress.
struct Attempt<'a> {
    connection: Connection,
    address: Address,
    timeout: Duration,
    credentials: &'a Credentials,
    profile: Option<&'a str>,
}

/// The server's first message, and the conversation that it belongs to.
struct Challenge {
    conversation_id: i32,
    host: StsHost,
    nonce: [u8; 2 * NONCE_LENGTH],
}

impl Attempt<'_> {
    /// Asks for the server's version and kind.
    fn hello(&mut self) -> Result<(), CommandError> {
        const STEP: &str = "2 hello";
        let mut reply = self.command(STEP, "admin", rawdoc! { "hello": 1 })?;
        // Servers before 4.4.2 have no hello.
        if error_of(&reply).is_some_and(|(code, _)| code == code::COMMAND_NOT_FOUND) {
            reply = self.command(STEP, "admin", rawdoc! { "isMaster": 1 })?;
        }
        if let Some((code, message)) = error_of(&reply) {
            return Err(refused(STEP, code, &message, "this may be a proxy that does not allow the command"));
        }
        if reply.get("maxWireVersion").is_none() {
            let error = wire::Error::NotMongoDb("its reply to hello has no maxWireVersion".to_owned());
            return Err(self.failed(STEP, &error));
        }
        // Most servers allow it before a login; the login does not depend on it.
        let version = self.command(STEP, "admin", rawdoc! { "buildInfo": 1 })?;
        let version = version.get_str("version").map_or_else(|_| "of unknown version".to_owned(), shown);
        let kind = if reply.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") { " (mongos)" } else { "" };
        let set =
            reply.get_str("setName").map_or_else(|_| String::new(), |name| format!(", replica set {}", shown(name)));
        print(&format!("{STEP}: MongoDB {version}{kind}{set}\n"))?;
        if reply.get_bool("arbiterOnly").unwrap_or_default() {
            warn("warning: the server is an arbiter, which has no users: log in to another member");
        }
        Ok(())
    }

    /// Starts the conversation, and reads the STS host to sign for.
    fn sasl_start(&mut self) -> Result<Challenge, CommandError> {
        const STEP: &str = "3 saslStart";
        let mut nonce = [0; NONCE_LENGTH];
        getrandom::fill(&mut nonce)
            .map_err(|error| format!("the operating system returned no random bytes: {error}"))?;
        let first = rawdoc! { "r": binary(nonce.to_vec()), "p": i32::from(b'n') };
        let command = rawdoc! { "saslStart": 1, "mechanism": MECHANISM, "payload": binary(first.into_bytes()) };
        let reply = self.command(STEP, "$external", command)?;
        if let Some((code, message)) = error_of(&reply) {
            return Err(refused(STEP, code, &message, &self.sasl_start_advice(code, &message)));
        }
        let invalid = |what: &str| {
            CommandError::Negative(format!(
                "{STEP}: the server's reply is not a valid {MECHANISM} message: {what}. Nothing was signed. Check that \
                 this is your server, and the version of its plugin"
            ))
        };
        let conversation_id = reply.get_i32("conversationId").map_err(|_| invalid("it has no conversationId"))?;
        let payload = reply.get_binary_generic("payload").map_err(|_| invalid("it has no payload"))?;
        let payload = wire::document(payload).ok_or_else(|| invalid("its payload is not BSON"))?;
        let both =
            payload.get_binary_generic("s").ok().and_then(|both| <[u8; 2 * NONCE_LENGTH]>::try_from(&both[..]).ok());
        let both = both.filter(|both| both[..NONCE_LENGTH] == nonce);
        let both = both.ok_or_else(|| invalid("its nonce does not begin with the client's"))?;
        let named = payload.get_str("h").map_err(|_| invalid("it names no STS host"))?;
        let host = StsHost::parse(named).map_err(|why| {
            CommandError::Negative(format!(
                "{STEP}: the server requests a signature for {:?}, with which no login can succeed. Set awsStsHost on \
                 the server: it {why}",
                shown(named)
            ))
        })?;
        print(&format!("{STEP}: the server requests a signature for {host}, region {}\n", host.region()))?;
        if let Some(doubt) = host.doubt() {
            warn(&format!("warning: {host} {doubt}. Check who may change awsStsHost on the server"));
        }
        Ok(Challenge { conversation_id, host, nonce: both })
    }

    /// Sends the signed request, which the server forwards to STS.
    fn sasl_continue(&mut self, challenge: &Challenge, request: &IdentityRequest) -> Result<(), CommandError> {
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
            return Err(CommandError::Negative(format!("{STEP}: the server's reply does not end the login")));
        }
        print(&format!("{STEP}: logged in; {}\n", self.keys()))?;
        Ok(())
    }

    /// Asks for the user of the connection, and its roles.
    fn connection_status(&mut self) -> Result<(), CommandError> {
        const STEP: &str = "5 connectionStatus";
        let reply = self.command(STEP, "admin", rawdoc! { "connectionStatus": 1 })?;
        if let Some((code, message)) = error_of(&reply) {
            return Err(refused(STEP, code, &message, "the login itself succeeded"));
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
            return Err(CommandError::Negative(format!("{STEP}: the server reports no logged-in user")));
        }
        let roles = if roles.is_empty() { "none; grant the user its roles".to_owned() } else { roles.join(", ") };
        print(&format!("{STEP}: user {}\n  roles: {roles}\n", users.join(", ")))?;
        Ok(())
    }

    fn command(&mut self, step: &str, database: &str, command: RawDocumentBuf) -> Result<Document, CommandError> {
        self.connection.command(database, command).map_err(|error| self.failed(step, &error))
    }

    fn failed(&self, step: &str, error: &wire::Error) -> CommandError {
        let advice = match error {
            wire::Error::Closed if self.connection.tls_version().is_none() => {
                "the server may require TLS (--tls), refuse connections from here, or not be a MongoDB server"
                    .to_owned()
            }
            wire::Error::Closed | wire::Error::Tls(rustls::Error::AlertReceived(_)) => {
                "the server may require a client certificate, which is not supported, or refuse connections from here"
                    .to_owned()
            }
            wire::Error::NotMongoDb(_) => {
                format!("check the port of {}: it must be net.port of the server's mongod.conf", self.address)
            }
            wire::Error::TimedOut if step == SASL_CONTINUE => format!(
                "the limit for all steps is {} ms (--timeout-ms); the server may still wait for STS, up to its \
                 awsStsTimeoutMS",
                self.timeout.as_millis()
            ),
            wire::Error::TimedOut => format!(
                "the limit for all steps is {} ms (--timeout-ms); the server may hang, require TLS (--tls), or not be a \
                 MongoDB server",
                self.timeout.as_millis()
            ),
            _ => "see the server's log".to_owned(),
        };
        cannot(step, error, &advice)
    }

    fn sasl_start_advice(&self, code: i32, message: &str) -> String {
        if code == code::MECHANISM_UNAVAILABLE || message.contains("not enabled") || message.contains("not supported") {
            return format!(
                "the server does not offer {MECHANISM}. Preload the plugin, add this to mongod.conf, and restart the \
                 server (psmdb-aws-iam setup prints the whole configuration):\n\
                 \x20 setParameter:\n    authenticationMechanisms: {MECHANISM},SCRAM-SHA-256"
            );
        }
        self.log_advice()
    }

    fn sasl_continue_advice(&self, code: i32, message: &str, host: &StsHost) -> String {
        match code {
            code::USER_NOT_FOUND => {
                // Could not find user "NAME" for db "$external"; a name may contain quotes.
                let name = message.split_once("user \"").and_then(|(_, rest)| rest.rsplit_once("\" for db \""));
                match name.map(|(name, _)| name).filter(|name| is_user_name(name)) {
                    Some(name) => format!(
                        "STS has confirmed your identity, but the server has no user for it. Create it as a user \
                         administrator in mongosh, with the roles that it needs:\n  {}{}",
                        mongosh::create_user(name),
                        if is_exposed(&self.connection) {
                            format!(
                                "\nThe connection has no TLS, so the name may be forged: compare it with {}",
                                self.whoami(host)
                            )
                        } else {
                            String::new()
                        }
                    ),
                    None => format!(
                        "STS has confirmed your identity, but the server has no user for it: {} shows the user to create",
                        self.whoami(host)
                    ),
                }
            }
            code::AUTHENTICATION_FAILED => {
                format!("{}\nTo send the same request to STS from here: {}", self.log_advice(), self.whoami(host))
            }
            _ => self.log_advice(),
        }
    }

    fn log_advice(&self) -> String {
        format!(
            "the server sends clients no reason. It is in mongod's log, in the line \"Authentication failed\" (id 20249), or \
             88000002 for a caller without a user: look for {}",
            self.keys()
        )
    }

    /// The access key id and the source of the credentials.
    fn keys(&self) -> String {
        format!(
            "access key id {}, from {}",
            shown(self.credentials.keys.access_key_id()),
            shown(&self.credentials.source)
        )
    }

    /// The command that sends a request with the same credentials to this STS host.
    fn whoami(&self, host: &StsHost) -> String {
        let profile = self.profile.map_or_else(String::new, |profile| format!("--profile {} ", quoted(profile)));
        format!("psmdb-aws-iam whoami {profile}--sts-host {host}")
    }
}

/// Whether others can read and change the connection.
fn is_exposed(connection: &Connection) -> bool {
    connection.tls_version().is_none() && !connection.peer().ip().is_loopback()
}

/// Whether a login can have this user name.
fn is_user_name(name: &str) -> bool {
    // The form of awsIamRoleUserFormat: assumedRole; a session cannot be named `*`.
    let of_session = name.strip_suffix("/*").map(|role| format!("{role}/any"));
    session_of_role(name).is_some() || Principal::parse(of_session.as_deref().unwrap_or(name)).is_ok()
}

/// The code and the message of an error reply.
fn error_of(reply: &Document) -> Option<(i32, String)> {
    let is_ok = match reply.get("ok") {
        Some(Bson::Double(ok)) => *ok == 1.0,
        Some(Bson::Int32(ok)) => *ok == 1,
        Some(Bson::Int64(ok)) => *ok == 1,
        _ => false,
    };
    let code = reply.get_i32("code").unwrap_or_default();
    (!is_ok).then(|| (code, shown(reply.get_str("errmsg").unwrap_or("no reason given"))))
}

fn refused(step: &str, code: i32, message: &str, advice: &str) -> CommandError {
    CommandError::Negative(format!("{step}: refused: {message} (code {code})\n{advice}"))
}

fn cannot(step: &str, error: &wire::Error, advice: &str) -> CommandError {
    CommandError::Failed(format!("{step}: {error}\n{advice}"))
}

fn connect_advice(error: &wire::Error, address: &Address, timeout: Duration) -> String {
    match error {
        wire::Error::NameNotFound => format!("check the name {}, and DNS on this machine", address.host),
        wire::Error::TimedOut => format!(
            "the limit is {} ms (--timeout-ms); a firewall or a security group may drop packets to {address}",
            timeout.as_millis()
        ),
        wire::Error::Broken(_) => format!(
            "check that a server listens on {address}: that it runs, and net.bindIp and net.port of its mongod.conf"
        ),
        wire::Error::Tls(error) => match certificates::cause(error) {
            Some(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                "the server's certificate is not trusted: give its CA with --tls-ca-file".to_owned()
            }
            Some(CertificateError::NotValidForNameContext { .. }) => {
                "the server's certificate is for another name: use a host name that it contains".to_owned()
            }
            Some(_) => "the server's certificate is not valid: replace it (net.tls.certificateKeyFile)".to_owned(),
            None => no_tls(),
        },
        wire::Error::Closed => no_tls(),
        wire::Error::NotMongoDb(_) | wire::Error::CannotEncode(_) => String::new(),
    }
}

fn no_tls() -> String {
    "the server may not use TLS (net.tls.mode), or require a client certificate, which is not supported".to_owned()
}

fn binary(bytes: Vec<u8>) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_that_a_login_can_have_is_printed() {
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
    fn a_reply_without_ok_is_an_error() {
        for (reply, error) in [
            (bson::doc! { "ok": 1.0 }, None),
            (bson::doc! { "ok": 1 }, None),
            (bson::doc! { "ok": 1_i64 }, None),
            (bson::doc! { "ok": 0.0, "code": 18, "errmsg": "no\u{1b}[2J" }, Some((18, "no?[2J".to_owned()))),
            (bson::doc! { "ok": true }, Some((0, "no reason given".to_owned()))),
            (bson::doc! {}, Some((0, "no reason given".to_owned()))),
        ] {
            assert_eq!(error_of(&reply), error, "{reply}");
        }
    }
}
