//! Servers that do not start because of the plugin, and what upgrade-and-rollback.md says to do
//! then.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bson::doc;
use tempfile::TempDir;

use super::servers::{Files, configurations};
use super::shell::commands;
use super::{examples, section};
use crate::support::mongod::{Builder, DEFAULT_VERSION, Mongod, binary_of};
use crate::support::plugin;

/// Why a server does not start although its configuration is right.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    NotPreloaded,
    /// The server lacks a function that the plugin needs.
    ServerDiffers,
    ObjectMissing,
    ObjectUnreadable,
    ObjectEmpty,
    ObjectTruncated,
    /// The object was built for a newer glibc than this machine has.
    NewerGlibc,
}

impl Fault {
    const ALL: [Self; 7] = [
        Self::NotPreloaded,
        Self::ServerDiffers,
        Self::ObjectMissing,
        Self::ObjectUnreadable,
        Self::ObjectEmpty,
        Self::ObjectTruncated,
        Self::NewerGlibc,
    ];
}

/// A machine with a fault.
pub struct Machine {
    folder: TempDir,
    fault: Fault,
}

impl Machine {
    pub fn with(fault: Fault) -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap(), fault };
        let bytes = || fs::read(plugin()).unwrap();
        let object = machine.object();
        match fault {
            Fault::NotPreloaded | Fault::ObjectMissing => {}
            Fault::ServerDiffers => {
                fs::write(&object, bytes()).unwrap();
                write_program(
                    &machine.server(),
                    &with_a_function_renamed(fs::read(binary_of(DEFAULT_VERSION)).unwrap()),
                );
            }
            Fault::ObjectUnreadable => {
                fs::write(&object, bytes()).unwrap();
                fs::set_permissions(&object, PermissionsExt::from_mode(0o000)).unwrap();
            }
            Fault::ObjectEmpty => fs::write(&object, b"").unwrap(),
            Fault::ObjectTruncated => fs::write(&object, &bytes()[..100_000]).unwrap(),
            Fault::NewerGlibc => fs::write(&object, needing_a_newer_glibc(bytes())).unwrap(),
        }
        machine
    }

    /// What stands here in the place of the installed object.
    pub fn object(&self) -> PathBuf {
        self.folder.path().join("object.so")
    }

    /// What stands here in the place of `/usr/bin/mongod`.
    pub fn server(&self) -> PathBuf {
        match self.fault {
            Fault::ServerDiffers => self.folder.path().join("mongod"),
            _ => binary_of(DEFAULT_VERSION),
        }
    }

    /// The server as its unit starts it.
    pub fn builder(&self, preloaded: bool) -> Builder {
        let builder = Mongod::builder().version(DEFAULT_VERSION).preload(false);
        if !preloaded || matches!(self.fault, Fault::NotPreloaded) {
            return builder.program(self.server());
        }
        let how = match self.fault {
            // The shell stays, to say by which signal the server ended.
            Fault::ObjectTruncated => "ulimit -c 0; timeout 30",
            // Root without capabilities may read no more than others.
            Fault::ObjectUnreadable if fs::read(self.object()).is_ok() => {
                "exec setpriv --bounding-set=-all --inh-caps=-all"
            }
            _ => "exec",
        };
        let (object, server) = (self.object(), self.server());
        let script =
            format!("#!/bin/sh\n{how} env LD_PRELOAD={} {} \"$@\"\nexit $?\n", object.display(), server.display());
        let path = self.folder.path().join("unit");
        write_program(&path, script.as_bytes());
        builder.program(path)
    }
}

/// Another process writes the file: a program that is open for writing cannot be run, and a fork of
/// another test would keep it open.
fn write_program(path: &Path, bytes: &[u8]) {
    let mut shell = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(bytes).unwrap();
    assert!(shell.wait().unwrap().success());
}

fn place_of(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|window| window == wanted).expect("a place")
}

fn with_a_function_renamed(mut server: Vec<u8>) -> Vec<u8> {
    let name = b"\0_ZNK5mongo27SASLServerMechanismRegistry27_mechanismSupportedByConfigENS_10StringDataE\0";
    let place = place_of(&server, name);
    server[place + 1] = b'#';
    server
}

/// The object, with one of the glibc versions that it needs replaced by one that does not exist:
/// its name, and the hash of the name in the list of needed versions.
fn needing_a_newer_glibc(mut object: Vec<u8>) -> Vec<u8> {
    let hash = |name: &[u8]| {
        // The ABI's hash of symbol names.
        let hash = name.iter().fold(0_u32, |hash, &byte| {
            let hash = (hash << 4).wrapping_add(u32::from(byte));
            (hash ^ (hash >> 24 & 0xf0)) & 0x0fff_ffff
        });
        hash.to_le_bytes()
    };
    let digits = |window: &[u8]| window.starts_with(b"\0GLIBC_2.") && window[9..11].iter().all(u8::is_ascii_digit);
    let place =
        object.windows(12).position(|window| digits(window) && window[11] == 0).expect("a version of glibc") + 1;
    let old = hash(&object[place..place + 10]);
    object[place + 8..place + 10].copy_from_slice(b"99");
    let new = hash(&object[place..place + 10]);
    let entry = place_of(&object, &old);
    object[entry..entry + 4].copy_from_slice(&new);
    object
}

/// The files below `/etc` that the recipe changes, in a folder of the test.
struct Etc {
    root: TempDir,
}

impl Etc {
    fn with(configuration: &str) -> Self {
        let etc = Self { root: tempfile::tempdir().unwrap() };
        let drop_ins = etc.path("/etc/systemd/system/mongod.service.d");
        fs::create_dir_all(&drop_ins).unwrap();
        let unit = examples("ini", "").into_iter().find(|block| block.file.ends_with("install.md")).unwrap();
        fs::write(drop_ins.join("psmdb-aws-iam.conf"), unit.text).unwrap();
        fs::write(etc.configuration(), configuration).unwrap();
        etc
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn configuration(&self) -> PathBuf {
        self.path("/etc/mongod.conf")
    }

    /// Says whether a drop-in preloads the object.
    fn preloads(&self) -> bool {
        let drop_ins = fs::read_dir(self.path("/etc/systemd/system/mongod.service.d")).unwrap();
        drop_ins.flatten().any(|file| fs::read_to_string(file.path()).unwrap().contains("LD_PRELOAD=/"))
    }

    fn run(&self, command: &str) -> Output {
        let here = command.replace("sudo ", "").replace(" /etc/", &format!(" {}/etc/", self.root.path().display()));
        Command::new("sh").args(["-euc", &here]).output().unwrap()
    }

    /// Does what the page says, but for systemd's part, and sees that its last look finds nothing
    /// more.
    fn recover(&self) {
        let section = section("docs/upgrade-and-rollback.md", "Restore a member that does not start");
        let commands: Vec<_> =
            examples("sh", "").iter().filter(|block| section(block)).flat_map(|block| commands(&block.text)).collect();
        let (looks, steps): (Vec<_>, Vec<_>) = commands
            .iter()
            .filter(|command| !command.starts_with("sudo systemctl "))
            .partition(|command| command.starts_with("sudo grep "));
        assert!(looks.len() == 1 && steps.len() == 2, "{commands:#?}");
        let look = || String::from_utf8(self.run(looks[0]).stdout).unwrap();
        assert_ne!(look(), "", "{} finds nothing", looks[0]);
        for step in steps {
            let output = self.run(step);
            assert!(output.status.success(), "{step}: {}", String::from_utf8_lossy(&output.stderr));
        }
        assert_eq!(look(), "", "{} still finds something", looks[0]);
    }
}

#[test]
fn the_recipe_brings_the_database_back_whatever_the_fault_is() {
    // The one with every parameter.
    let (_, configuration) = configurations().into_iter().max_by_key(|(_, text)| text.len()).unwrap();
    assert!(configuration.contains("awsIamAllowedAccounts"), "{configuration}");
    for fault in Fault::ALL {
        let files = Files::new();
        let etc = Etc::with(&files.adapt(&configuration));
        let machine = Machine::with(fault);
        let server = || machine.builder(etc.preloads()).configuration(etc.configuration());
        let exit = server().expect_exit();
        assert!(!exit.status.success(), "{fault:?}");
        etc.recover();
        let mongod = server().start();
        // As a user with a password.
        mongod.run_as_admin("admin", doc! { "ping": 1 });
    }
}

#[test]
fn the_recipe_fits_each_configuration_that_is_shown() {
    let list = |value: &str| {
        format!("security:\n  authorization: enabled\nsetParameter:\n  authenticationMechanisms: {value}\n")
    };
    let more = [
        "MONGODB-AWS",
        "\"MONGODB-AWS\"    # alone",
        "SCRAM-SHA-256, MONGODB-AWS",
        "SCRAM-SHA-1,MONGODB-AWS,SCRAM-SHA-256",
    ];
    let more = more.map(|value| (value.to_owned(), list(value)));
    for (place, configuration) in configurations().into_iter().chain(more) {
        let files = Files::new();
        let etc = Etc::with(&files.adapt(&configuration));
        etc.recover();
        assert!(!etc.preloads());
        let mongod = Mongod::builder().preload(false).configuration(etc.configuration()).start();
        if configuration.contains("replSetName") {
            continue; // It has no primary, so no user can be made; that it starts is what is asked.
        }
        let shown = mongod.run_as_admin("admin", doc! { "getParameter": 1, "authenticationMechanisms": 1 });
        let mechanisms = shown.get_array("authenticationMechanisms").unwrap();
        let before = configuration.matches("SCRAM-SHA-").count().max(1) + configuration.matches("X509").count();
        assert_eq!(mechanisms.len(), before, "{place}: {shown}");
    }
}
