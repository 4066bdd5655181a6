//! Servers, and logins by the official driver.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bson::{bson, doc};
use local_sts::{Identity, LocalSts};
use mongodb::Client;
use mongodb::options::{AuthMechanism, ClientOptions, Credential, ServerMonitoringMode};
use tokio::runtime::Runtime;

use crate::support::mongod::Mongod;

/// MongoDB's default, which the tests' servers do not use.
const SCRAM_ITERATIONS: i32 = 15_000;

const PASSWORD: &str = "a password of 24 letters";

/// A server that uses this STS, with a user for the identity and one for SCRAM-SHA-256.
pub fn with_plugin(sts: &LocalSts, endpoint: &str, folder: &Path, identity: &Identity) -> Mongod {
    let ca_file = folder.join("ca.pem");
    std::fs::write(&ca_file, sts.ca_pem()).expect("a file for the CA");
    let mongod = Mongod::builder()
        .plugin(crate::plugin())
        .parameter("awsStsEndpoint", endpoint)
        .parameter("awsStsCAFile", ca_file.display())
        .start();
    mongod.create_external_user(&identity.arn, bson!([]));
    prepare(&mongod);
    mongod
}

/// A server without the plugin, with a user for SCRAM-SHA-256.
pub fn without_plugin() -> Mongod {
    let mongod = Mongod::builder().preload(false).start();
    prepare(&mongod);
    mongod
}

fn prepare(mongod: &Mongod) {
    mongod.run_as_admin("admin", doc! { "setParameter": 1, "scramSHA256IterationCount": SCRAM_ITERATIONS });
    create_scram_user(mongod, "bob");
}

pub fn create_scram_user(mongod: &Mongod, name: &str) {
    mongod.run_as_admin(
        "admin",
        doc! { "createUser": name, "pwd": PASSWORD, "roles": [], "mechanisms": ["SCRAM-SHA-256"] },
    );
}

pub fn aws_credential(identity: &Identity) -> Credential {
    Credential::builder()
        .username(identity.access_key_id.clone())
        .password(identity.secret_access_key.clone())
        .source("$external".to_owned())
        .mechanism(AuthMechanism::MongoDbAws)
        .build()
}

pub fn scram_credential(name: &str) -> Credential {
    Credential::builder()
        .username(name.to_owned())
        .password(PASSWORD.to_owned())
        .source("admin".to_owned())
        .mechanism(AuthMechanism::ScramSha256)
        .build()
}

/// A driver that logs in for every command, because it never reuses an idle connection.
pub struct Driver<'a> {
    runtime: &'a Runtime,
    client: Client,
}

/// Durations of logins.
pub struct Logins {
    pub times: Vec<Duration>,
    pub took: Duration,
}

impl<'a> Driver<'a> {
    pub fn new(runtime: &'a Runtime, mongod: &Mongod, credential: Credential, clients: usize) -> Self {
        let mut options = quiet(mongod, credential);
        let clients = u32::try_from(clients).expect("a few");
        options.max_pool_size = Some(clients);
        options.max_connecting = Some(clients);
        options.max_idle_time = Some(Duration::from_nanos(1));
        let _inside = runtime.enter();
        Self { runtime, client: Client::with_options(options).expect("a client") }
    }

    /// Logs in this often, with this many clients.
    pub fn log_in(&self, clients: usize, logins: usize) -> Logins {
        let next = Arc::new(AtomicUsize::new(0));
        let clients = (0..clients).map(|_| {
            let (client, next) = (self.client.clone(), Arc::clone(&next));
            async move {
                let mut times = Vec::new();
                while next.fetch_add(1, Ordering::Relaxed) < logins {
                    times.push(ping(&client).await);
                }
                times
            }
        });
        all(self.runtime, clients)
    }
}

/// Clients that have discovered the server but never logged in.
pub fn newcomers(runtime: &Runtime, mongod: &Mongod, credentials: impl IntoIterator<Item = Credential>) -> Vec<Client> {
    let _inside = runtime.enter();
    let new = |credential| Client::with_options(quiet(mongod, credential)).expect("a client");
    let clients: Vec<Client> = credentials.into_iter().map(new).collect();
    // The driver does not report the discovery without a login.
    std::thread::sleep(Duration::from_secs(1));
    clients
}

/// Logs in with new clients, this many at once.
pub fn log_newcomers_in(runtime: &Runtime, newcomers: &[Client], at_once: usize) -> Logins {
    let parts = newcomers.chunks(newcomers.len().div_ceil(at_once)).map(|part| {
        let part = part.to_vec();
        async move {
            let mut times = Vec::new();
            for client in &part {
                times.push(ping(client).await);
            }
            times
        }
    });
    all(runtime, parts)
}

/// A command that needs no privilege. On a new connection, nearly all of its time is the login.
async fn ping(client: &Client) -> Duration {
    let begun = Instant::now();
    client.database("admin").run_command(doc! { "ping": 1 }).await.expect("a login");
    begun.elapsed()
}

fn all<F: Future<Output = Vec<Duration>> + Send + 'static>(
    runtime: &Runtime,
    tasks: impl Iterator<Item = F>,
) -> Logins {
    let begun = Instant::now();
    runtime.block_on(async {
        let tasks: Vec<_> = tasks.map(|task| runtime.spawn(task)).collect();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await.expect("no login fails"));
        }
        Logins { times, took: begun.elapsed() }
    })
}

/// Options with which the driver checks the server only once.
fn quiet(mongod: &Mongod, credential: Credential) -> ClientOptions {
    let mut options = mongod.client_options();
    options.credential = Some(credential);
    options.heartbeat_freq = Some(Duration::from_secs(3600));
    options.server_monitoring_mode = Some(ServerMonitoringMode::Poll);
    options
}
