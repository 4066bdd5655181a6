//! Real mongod processes: started on a free port with an empty database, stopped and cleaned up
//! when dropped.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use mongodb::options::{AuthMechanism, ClientOptions, Credential, ServerAddress};
use mongodb::sync::Client;
use serde_json::Value;
use tempfile::TempDir;

use super::plugin;
use super::wire::{WireClient, is_ok};

/// The version that tests run on, unless they or `PSMDB_AWS_IAM_MONGOD_VERSION` say otherwise.
pub const DEFAULT_VERSION: &str = "6.0.5";

const ADMIN: &str = "admin";
const ADMIN_PASSWORD: &str = "admin-of-the-tests";

/// How long a server may take to start or to stop.
const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// Another process can take the port between the moment it is found free and mongod's bind.
const TRIES: usize = 5;

/// How a server is to be started. Made by [`Mongod::builder`].
#[derive(Clone)]
pub struct Builder {
    version: String,
    program: Option<PathBuf>,
    preload: bool,
    plugin: Option<PathBuf>,
    mechanisms: Option<String>,
    parameters: Vec<(String, String)>,
    authorization: bool,
    arguments: Vec<OsString>,
    configuration: Option<PathBuf>,
    environment: Vec<(String, OsString)>,
}

impl Builder {
    /// Sets the version of mongod. Defaults to [`DEFAULT_VERSION`].
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    /// Runs this program instead of the mongod of the version, such as a changed copy, or a script
    /// that starts it.
    pub fn program(mut self, path: PathBuf) -> Self {
        self.program = Some(path);
        self
    }

    /// Sets whether the plugin is preloaded. Defaults to true.
    pub fn preload(mut self, preload: bool) -> Self {
        self.preload = preload;
        self
    }

    /// Preloads another build of the plugin.
    pub fn plugin(mut self, path: PathBuf) -> Self {
        self.plugin = Some(path);
        self
    }

    /// Sets `authenticationMechanisms`. Defaults to `MONGODB-AWS,SCRAM-SHA-256` with the plugin and
    /// `SCRAM-SHA-256` without. The admin user logs in by SCRAM-SHA-256.
    pub fn mechanisms(mut self, mechanisms: &str) -> Self {
        self.mechanisms = Some(mechanisms.to_owned());
        self
    }

    /// Adds `--setParameter name=value`.
    pub fn parameter(mut self, name: &str, value: impl ToString) -> Self {
        self.parameters.push((name.to_owned(), value.to_string()));
        self
    }

    /// Sets whether users need privileges (`--auth`). Defaults to true.
    pub fn authorization(mut self, authorization: bool) -> Self {
        self.authorization = authorization;
        self
    }

    /// Adds an argument to mongod's command line.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Starts the server with a configuration file, which sets the mechanisms and authorization, or
    /// leaves them to further arguments.
    pub fn configuration(mut self, file: PathBuf) -> Self {
        self.configuration = Some(file);
        self
    }

    /// Sets an environment variable of the server.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Starts the server and waits until it accepts connections.
    ///
    /// # Panics
    ///
    /// When it does not within 30 seconds; what it wrote is printed.
    pub fn start(self) -> Mongod {
        for _ in 0..TRIES {
            let mongod = self.spawn();
            if mongod.wait_until_serving() {
                return mongod;
            }
        }
        panic!("mongod found its port taken {TRIES} times");
    }

    /// Starts a server that must refuse to run, and waits for its end.
    ///
    /// # Panics
    ///
    /// When it still runs after 30 seconds.
    pub fn expect_exit(self) -> Exit {
        for _ in 0..TRIES {
            let mongod = self.spawn();
            let status =
                mongod.wait_for_exit(LIMIT).unwrap_or_else(|| panic!("mongod runs, though it should have refused to"));
            let exit =
                Exit { status, log: mongod.log_text(), stdout: mongod.stdout_text(), stderr: mongod.stderr_text() };
            if !mongod.found_port_taken() {
                return exit;
            }
        }
        panic!("mongod found its port taken {TRIES} times");
    }

    fn spawn(&self) -> Mongod {
        let port = free_port();
        let folder = tempfile::Builder::new().prefix("psmdb-aws-iam-test-").tempdir().expect("a temporary folder");
        let database = folder.path().join(DATABASE);
        fs::create_dir(&database).expect("the database's folder");
        let file = |name| File::create(folder.path().join(name)).expect("a file for output");

        let mechanisms = self.mechanisms.as_deref().unwrap_or(if self.preload {
            "MONGODB-AWS,SCRAM-SHA-256"
        } else {
            "SCRAM-SHA-256"
        });

        let mut command = command_of(&self.version);
        if let Some(program) = &self.program {
            let mut other = Command::new(program);
            other.env_remove("LD_PRELOAD");
            other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            command = other;
        }
        command
            .arg("--dbpath")
            .arg(&database)
            .arg("--logpath")
            .arg(folder.path().join(LOG))
            .args(["--bind_ip", "127.0.0.1", "--nounixsocket"])
            .args(["--port", &port.to_string()])
            .args(["--wiredTigerCacheSizeGB", "0.25"])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            // The minimum: logins of the admin user are not under test.
            .args(["--setParameter", "scramSHA256IterationCount=5000"]);
        match &self.configuration {
            Some(file) => command.arg("--config").arg(file),
            None => command.arg("--setParameter").arg(format!("authenticationMechanisms={mechanisms}")),
        };
        for (name, value) in &self.parameters {
            command.arg("--setParameter").arg(format!("{name}={value}"));
        }
        if self.authorization && self.configuration.is_none() {
            command.arg("--auth");
        }
        command.args(&self.arguments);

        if self.preload {
            command.env("LD_PRELOAD", self.plugin.clone().unwrap_or_else(plugin));
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));

        let child = command
            .stdin(Stdio::null())
            .stdout(file(STDOUT))
            .stderr(file(STDERR))
            .spawn()
            .unwrap_or_else(|error| panic!("mongod {} does not start: {error}", self.version));
        Mongod {
            version: self.version.clone(),
            child: Mutex::new(child),
            port,
            folder: Some(folder),
            admin: OnceLock::new(),
        }
    }
}

/// How a server that refused to run ended, and what it wrote.
#[derive(Debug)]
pub struct Exit {
    pub status: ExitStatus,
    pub log: String,
    pub stdout: String,
    pub stderr: String,
}

impl Exit {
    /// Returns all that the server wrote: it reports a bad option on stderr or in the log,
    /// depending on when it is found.
    pub fn output(&self) -> String {
        [&*self.log, &*self.stdout, &*self.stderr].join("\n")
    }
}

const DATABASE: &str = "db";
const LOG: &str = "mongod.log";
const STDOUT: &str = "stdout";
const STDERR: &str = "stderr";

/// A running server. It is killed and its folder removed when this is dropped; in a test that
/// panics the folder stays, and the end of the log is printed.
pub struct Mongod {
    version: String,
    child: Mutex<Child>,
    port: u16,
    /// Present until the drop, which may decide to keep the folder.
    folder: Option<TempDir>,
    admin: OnceLock<Client>,
}

impl Mongod {
    /// Options for a server: the default version, preloaded, with authorization.
    pub fn builder() -> Builder {
        Builder {
            version: env::var("PSMDB_AWS_IAM_MONGOD_VERSION").unwrap_or_else(|_| DEFAULT_VERSION.to_owned()),
            program: None,
            preload: true,
            plugin: None,
            mechanisms: None,
            parameters: Vec::new(),
            authorization: true,
            arguments: Vec::new(),
            configuration: None,
            environment: Vec::new(),
        }
    }

    /// The version that was asked for, as "6.0.5".
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The port it listens on, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// Returns whether the process still runs.
    pub fn is_alive(&self) -> bool {
        self.exit_status().is_none()
    }

    /// The log as it is in the file.
    pub fn log_text(&self) -> String {
        self.text(LOG)
    }

    /// The lines of the log. What is not a JSON document, as a line that is half written, is left
    /// out.
    pub fn log_lines(&self) -> Vec<Value> {
        let text = self.log_text();
        let parse = |line| serde_json::from_str(line).ok();
        text.lines().filter_map(parse).collect()
    }

    /// Waits for a line of the log and returns the first that fits, or None after the timeout.
    pub fn wait_for_log(&self, fits: impl Fn(&Value) -> bool, timeout: Duration) -> Option<Value> {
        let until = Instant::now() + timeout;
        loop {
            // Read before the clock, so that the last look is not before the end of the time.
            let late = Instant::now() >= until;
            let found = self.log_lines().into_iter().find(&fits);
            if found.is_some() || late {
                return found;
            }
            thread::sleep(POLL);
        }
    }

    /// What it wrote to stderr.
    pub fn stderr_text(&self) -> String {
        self.text(STDERR)
    }

    /// What it wrote to stdout; the log is not among it.
    pub fn stdout_text(&self) -> String {
        self.text(STDOUT)
    }

    /// Asks the server to stop, by SIGTERM, and waits for its end.
    ///
    /// # Panics
    ///
    /// When it still runs after 30 seconds.
    pub fn shutdown(&self) -> ExitStatus {
        if let Some(status) = self.exit_status() {
            return status;
        }
        let pid = self.pid().to_string();
        let sent = Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &pid]).status().expect("sh runs");
        assert!(sent.success(), "mongod {pid} cannot be signalled");
        self.wait_for_exit(LIMIT).unwrap_or_else(|| panic!("mongod {pid} still runs {LIMIT:?} after SIGTERM"))
    }

    /// Creates the admin user, who has all privileges, unless it exists. The methods below do so
    /// themselves. The first user can be created without a login because of mongod's localhost
    /// exception.
    pub fn create_admin(&self) {
        self.admin();
    }

    /// Runs a command as the admin user.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn run_as_admin(&self, database: &str, command: Document) -> Document {
        self.try_as_admin(database, command.clone()).unwrap_or_else(|error| panic!("{command} failed: {error}"))
    }

    /// Runs a command as the admin user; a reply of `ok: 0` is an error.
    pub fn try_as_admin(&self, database: &str, command: Document) -> mongodb::error::Result<Document> {
        self.admin().database(database).run_command(command).run()
    }

    /// Creates a user of `$external` for an AWS principal. `roles` is an array of roles.
    pub fn create_external_user(&self, name: &str, roles: impl Into<Bson>) {
        self.run_as_admin("$external", doc! { "createUser": name, "roles": roles.into() });
    }

    /// Connection options for this server, with no credential.
    pub fn client_options(&self) -> ClientOptions {
        ClientOptions::builder()
            .hosts(vec![ServerAddress::Tcp { host: Ipv4Addr::LOCALHOST.to_string(), port: Some(self.port) }])
            .direct_connection(true)
            .server_selection_timeout(LIMIT)
            .build()
    }

    fn admin(&self) -> &Client {
        self.admin.get_or_init(|| {
            let mut wire = WireClient::connect(self.port).expect("a connection to mongod");
            let command = doc! {
                "createUser": ADMIN,
                "pwd": ADMIN_PASSWORD,
                "roles": ["root"],
                "mechanisms": ["SCRAM-SHA-256"],
            };
            let reply = wire.command("admin", command).expect("a reply from mongod");
            assert!(is_ok(&reply), "the admin user cannot be created: {reply}");

            let mut options = self.client_options();
            options.credential = Some(
                Credential::builder()
                    .username(ADMIN.to_owned())
                    .password(ADMIN_PASSWORD.to_owned())
                    .mechanism(AuthMechanism::ScramSha256)
                    .build(),
            );
            Client::with_options(options).expect("a client")
        })
    }

    fn wait_until_serving(&self) -> bool {
        let until = Instant::now() + LIMIT;
        while !self.log_text().contains("Waiting for connections") {
            if let Some(status) = self.exit_status() {
                if self.found_port_taken() {
                    return false;
                }
                panic!("mongod stopped ({status})\n{}{}", self.stdout_text(), self.stderr_text());
            }
            assert!(Instant::now() < until, "mongod does not serve after {LIMIT:?}");
            thread::sleep(POLL);
        }
        true
    }

    fn wait_for_exit(&self, timeout: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + timeout;
        loop {
            let status = self.exit_status();
            if status.is_some() || Instant::now() >= until {
                return status;
            }
            thread::sleep(POLL);
        }
    }

    fn exit_status(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock().unwrap();
        child.try_wait().expect("the state of a child process")
    }

    fn found_port_taken(&self) -> bool {
        self.log_text().contains("Address already in use")
    }

    fn text(&self, name: &str) -> String {
        let folder = self.folder.as_ref().expect("kept until the drop");
        // Bytes that are no UTF-8 must not hide the rest; an absent file is an empty one.
        let bytes = fs::read(folder.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(|error| error.into_inner());
        // Both fail only for a process that has ended already.
        let _ = child.kill();
        let _ = child.wait();
        if thread::panicking() {
            let log = self.log_text();
            let lines: Vec<_> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            if let Some(folder) = self.folder.take() {
                // Hundreds of megabytes that tell nothing.
                let _ = fs::remove_dir_all(folder.path().join(DATABASE));
                eprintln!("mongod's folder is kept: {}\nthe end of its {LOG}:\n{tail}", folder.keep().display());
            }
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// The cache of tools/fetch_mongod.py.
fn cache() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(cache) = set("PSMDB_AWS_IAM_CACHE") {
        return cache.into();
    }
    let base = set("XDG_CACHE_HOME")
        .map_or_else(|| Path::new(&set("HOME").expect("HOME is set")).join(".cache"), PathBuf::from);
    base.join("psmdb-aws-iam")
}

/// Returns a command that runs the mongod of a version with the libraries that this system lacks,
/// and without the plugin.
pub fn command_of(version: &str) -> Command {
    let mut command = Command::new(binary_of(version));
    let libraries = cache().join(format!("mongod-{version}/lib"));
    if libraries.is_dir() {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command.env_remove("LD_PRELOAD");
    command
}

/// Returns the path of the mongod of a version.
pub fn binary_of(version: &str) -> PathBuf {
    let variable = format!("PSMDB_AWS_IAM_MONGOD_{}", version.replace('.', "_"));
    if let Some(path) = env::var_os(variable) {
        return path.into();
    }
    let path = cache().join(format!("mongod-{version}/bin/mongod"));
    let hint =
        if version == DEFAULT_VERSION { "make fetch".to_owned() } else { format!("tools/fetch_mongod.py {version}") };
    assert!(path.exists(), "no mongod at {}: run {hint}", path.display());
    path
}
