//! The plugin in doubles of servers, for series without an available binary: see
//! tests/server-doubles.
//!
//! A double shows that the plugin and the double agree on the facts about a series, and no more
//! than that. The double of 6.0 is compared with real servers, since these are available.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use bson::{Bson, Document, bson, doc};
use object::LittleEndian;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::aws_client::{Credentials, MECHANISM, Signer, client_first, client_second};
use crate::support::doubles::double_of;
use crate::support::fixture::{ROLE_USER_NAME, STS_HOST, credentials};
use crate::support::memory;
use crate::support::plugin;
use crate::support::sts::TestSts;

const BAD_VALUE: i32 = 2;
const AUTHENTICATION_FAILED: i32 = 18;
const MECHANISM_UNAVAILABLE: i32 = 334;

/// The exit status of a double after anything that would break or crash a server.
const VIOLATION: i32 = 99;

/// Makes one test per function and series.
macro_rules! in_each_series {
    ($($(#[$attribute:meta])* fn $name:ident($series:ident: &str) $body:block)*) => {$(
        mod $name {
            use super::*;

            $(#[$attribute])*
            fn test($series: &str) $body

            #[test]
            fn in_6_0() {
                test("6_0");
            }

            #[test]
            fn in_7_0() {
                test("7_0");
            }

            #[test]
            fn in_8_0() {
                test("8_0");
            }

            #[test]
            fn in_8_2() {
                test("8_2");
            }
        }
    )*};
}

/// How a copy of a double differs from it: in what the plugin reads of it, not in what it does.
enum Difference {
    /// It exports the function whose mangled name contains this under another name.
    Renamed(&'static str),
    /// The symbol of the vtable of this class has the size of so many more functions.
    ResizedVtable(&'static str, i64),
    /// Two slots of the vtable of this class are exchanged.
    SwappedSlots(&'static str, [usize; 2]),
    /// A slot of the vtable of this abstract class is null.
    NullSlot(&'static str, usize),
}

/// A copy of the double of a series with a difference.
struct Variant {
    program: PathBuf,
    _folder: TempDir,
}

impl Variant {
    fn new(series: &str, difference: &Difference) -> Self {
        let mut file = ElfFile(fs::read(double_of(series, None)).expect("the double"));
        file.apply(difference);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (written, program) = (folder.path().join("written"), folder.path().join("double"));
        fs::write(&written, &file.0).expect("a file");
        // Another process writes what is run: a child that a parallel test starts could inherit a
        // descriptor of this one, and a file that is open for writing cannot be run.
        let installed = Command::new("install").arg(&written).arg(&program).status().expect("install, of coreutils");
        assert!(installed.success());
        Self { program, _folder: folder }
    }
}

/// The bytes of a program for x86_64.
struct ElfFile(Vec<u8>);

impl ElfFile {
    /// The size of an entry, both of a symbol and of a relocation.
    const ENTRY: usize = 24;
    /// The vtable's words before its first slot.
    const HEADER_WORDS: usize = 2;

    fn section(&self, name: &str) -> Range<usize> {
        let header = FileHeader64::<LittleEndian>::parse(&*self.0).expect("an ELF file");
        let sections = header.sections(LittleEndian, &*self.0).expect("its sections");
        let (_, section) =
            sections.section_by_name(LittleEndian, name.as_bytes()).unwrap_or_else(|| panic!("no {name}"));
        let (offset, size) = section.file_range(LittleEndian).expect("bytes in the file");
        offset as usize..(offset + size) as usize
    }

    /// Where the file has the byte at an address.
    fn offset_of(&self, address: u64) -> usize {
        let header = FileHeader64::<LittleEndian>::parse(&*self.0).expect("an ELF file");
        let segments = header.program_headers(LittleEndian, &*self.0).expect("its segments");
        let offset = segments.iter().filter(|segment| segment.p_type(LittleEndian) == PT_LOAD).find_map(|segment| {
            let into = address.checked_sub(segment.p_vaddr(LittleEndian))?;
            (into < segment.p_filesz(LittleEndian)).then(|| segment.p_offset(LittleEndian) + into)
        });
        offset.expect("an address that is in the file") as usize
    }

    fn word(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.0[offset..offset + 8].try_into().expect("8 bytes"))
    }

    fn name_of(&self, symbol: usize) -> (usize, &str) {
        let offset = self.section(".dynstr").start + self.word(symbol) as u32 as usize;
        let length = self.0[offset..].iter().position(|&byte| byte == 0).expect("the end of the name");
        (offset, std::str::from_utf8(&self.0[offset..offset + length]).expect("UTF-8"))
    }

    /// The offsets of the dynamic symbols with such names.
    fn symbols(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<usize> {
        self.section(".dynsym").step_by(Self::ENTRY).filter(|&symbol| is_wanted(self.name_of(symbol).1)).collect()
    }

    fn vtable(&self, class: &str) -> usize {
        let name = format!("_ZTVN5mongo{class}E");
        self.symbols(|found| found == name)[0]
    }

    /// The offset of the relocation of a slot.
    fn slot(&self, class: &str, slot: usize) -> usize {
        let address = self.word(self.vtable(class) + 8) + 8 * (Self::HEADER_WORDS + slot) as u64;
        let mut relocations = self.section(".rela.dyn").step_by(Self::ENTRY);
        relocations.find(|&relocation| self.word(relocation) == address).expect("the slot's relocation")
    }

    fn apply(&mut self, difference: &Difference) {
        match *difference {
            Difference::Renamed(part) => {
                let symbols = self.symbols(|name| name.contains(part));
                assert!(!symbols.is_empty(), "{part}");
                for symbol in symbols {
                    let (name, _) = self.name_of(symbol);
                    self.0[name] = b'#';
                }
            }
            Difference::ResizedVtable(class, functions) => {
                let size = self.vtable(class) + 16;
                let resized = self.word(size).wrapping_add_signed(8 * functions);
                self.0[size..size + 8].copy_from_slice(&resized.to_le_bytes());
            }
            Difference::SwappedSlots(class, slots) => {
                // Their addresses: the loader needs the relocations in the order of their kinds.
                let [one, other] = slots.map(|slot| self.slot(class, slot));
                for at in 0..8 {
                    self.0.swap(one + at, other + at);
                }
            }
            Difference::NullSlot(class, slot) => {
                // Slot 0 of an abstract class has no relocation of its own, and nobody reads it.
                let relocation = self.slot(class, slot);
                let address = self.word(relocation);
                let unused = address - 8 * slot as u64;
                self.0[relocation..relocation + 8].copy_from_slice(&unused.to_le_bytes());
                let offset = self.offset_of(address);
                self.0[offset..offset + 8].fill(0);
            }
        }
    }
}

/// A command line of a double, with the plugin.
struct Options {
    words: Vec<String>,
    preload: bool,
}

impl Options {
    fn of(program: &Path) -> Self {
        Self { words: vec![program.to_str().expect("UTF-8").to_owned()], preload: true }
    }

    fn of_series(series: &str) -> Self {
        Self::of(&double_of(series, None))
    }

    fn without_plugin(mut self) -> Self {
        self.preload = false;
        self
    }

    fn mechanisms(self, names: &str) -> Self {
        self.option("--mechanisms", names)
    }

    fn parameter(self, name: &str, value: impl ToString) -> Self {
        self.option("--parameter", &format!("{name}={}", value.to_string()))
    }

    fn option(mut self, name: &str, value: &str) -> Self {
        self.words.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Runs the command line under another program, with its options.
    fn under(mut self, words: &[&str]) -> Self {
        self.words.splice(0..0, words.iter().map(|&word| word.to_owned()));
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        // Cargo adds the folder of another build to LD_LIBRARY_PATH.
        command.args(&self.words[1..]).env_remove("LD_LIBRARY_PATH").env_remove("LD_PRELOAD");
        if self.preload {
            command.env("LD_PRELOAD", plugin());
        }
        command
    }

    /// Gives a double all its commands at once.
    fn run(&self, commands: &[&str]) -> Output {
        let mut child = self
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the double starts");
        let mut input = child.stdin.take().expect("a pipe");
        // The double may end before it reads.
        let _ = input.write_all(commands.join("\n").as_bytes());
        drop(input);
        child.wait_with_output().expect("its output")
    }

    fn start(&self) -> Double {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut child = self
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.path().join("stderr")).expect("a file"))
            .spawn()
            .expect("the double starts");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut double = Double { child, input, output, log: Vec::new(), folder };
        double.read_reply();
        double
    }
}

/// A running double.
struct Double {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// What it has logged so far.
    log: Vec<Value>,
    folder: TempDir,
}

impl Double {
    fn read_reply(&mut self) -> Value {
        loop {
            let mut line = String::new();
            self.output.read_line(&mut line).expect("UTF-8");
            if line.is_empty() {
                let status = self.child.wait().expect("its exit status");
                panic!("the double has ended: {status}\n{}", self.stderr());
            }
            let parse = |text| serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {line}"));
            match line.strip_prefix("= ") {
                Some(reply) => return parse(reply),
                None => self.log.push(parse(&line)),
            }
        }
    }

    fn request(&mut self, command: &str) -> Value {
        writeln!(self.input, "{command}").expect("the double reads");
        self.read_reply()
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).expect("UTF-8")
    }

    fn parameter(&mut self, name: &str) -> Bson {
        let reply = self.request(&format!("getParameter {name}"));
        document(&reply["bson"]).get(name).unwrap_or_else(|| panic!("no {name} in {reply}")).clone()
    }

    fn set_parameter(&mut self, name: &str, value: Bson) -> Value {
        let message = doc! { name: value }.to_vec().expect("BSON");
        self.request(&format!("setParameterBson {name} {}", hex::encode(message)))
    }

    /// Exchanges the first messages. Returns the host and the nonce to sign.
    fn start_login(&mut self) -> (String, Vec<u8>) {
        let reply = self.request(&format!("saslStart {}", hex::encode(client_first(&[5; 32]))));
        assert_eq!((&reply["ok"], &reply["done"]), (&json!(1), &json!(false)), "{reply}");
        let message = document(&reply["payload"]);
        let nonce = message.get_binary_generic("s").expect("a nonce");
        assert_eq!((nonce.len(), &nonce[..32]), (64, &[5; 32][..]));
        (message.get_str("h").expect("a host").to_owned(), nonce.clone())
    }

    /// Logs in as a driver does.
    fn login(&mut self, credentials: &Credentials) -> Value {
        let (host, nonce) = self.start_login();
        assert_eq!(host, STS_HOST);
        let message = client_second(&Signer::new(credentials, &host, &nonce).sign());
        self.request(&format!("saslContinue {}", hex::encode(message)))
    }

    /// Asserts that the double exits with success and an empty stderr.
    fn quit(mut self) {
        self.request("quit");
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("UTF-8");
        let status = self.child.wait().expect("its exit status");
        assert_eq!((status.code(), &*rest, &*self.stderr()), (Some(0), "", ""));
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A BSON document in hexadecimal digits.
fn document(digits: &Value) -> Document {
    let digits = digits.as_str().unwrap_or_else(|| panic!("not a text: {digits}"));
    Document::from_reader(&hex::decode(digits).expect("hexadecimal digits")[..]).expect("BSON")
}

impl TestSts {
    /// Sets a double's mechanism and its STS.
    fn options(&self, options: Options) -> Options {
        options
            .mechanisms("MONGODB-AWS,PLAIN")
            .parameter("awsStsEndpoint", self.sts.endpoint())
            .parameter("awsStsCAFile", self.ca_file().display())
    }

    fn start(&self, series: &str) -> Double {
        self.options(Options::of_series(series)).start()
    }

    /// Asserts that the user and the role log in.
    fn assert_lets_in(&self, double: &mut Double) {
        for (identity, name) in [(&self.user, &*self.user.arn), (&self.role, ROLE_USER_NAME)] {
            let reply = double.login(&credentials(identity));
            assert_eq!((&reply["ok"], &reply["done"]), (&json!(1), &json!(true)), "{reply}");
            assert_eq!(reply["principal"], name);
            let extra = document(&reply["extraInfo"]);
            assert_eq!(extra.get_str("awsArn").unwrap(), identity.arn);
            assert_eq!(extra.get_str("awsId").unwrap(), identity.user_id);
        }
    }
}

fn is_ours(line: &Value) -> bool {
    line["id"] == 88_000_001
}

in_each_series! {
    fn a_mechanism_that_is_not_enabled_is_not_registered(series: &str) {
        let mut double = Options::of_series(series).mechanisms("PLAIN").start();
        assert_eq!(double.request("mechanisms"), json!([["PLAIN"]]));
        let reply = double.request(&format!("saslStart {}", hex::encode(client_first(&[5; 32]))));
        assert_eq!(reply["code"], MECHANISM_UNAVAILABLE, "{reply}");
        assert!(!double.log.iter().any(is_ours));
        assert_eq!(double.parameter("awsStsHost"), bson!(STS_HOST));
        double.quit();
    }

    fn an_enabled_mechanism_is_registered_and_logged(series: &str) {
        let mut double = Options::of_series(series).mechanisms("MONGODB-AWS,PLAIN").start();
        assert_eq!(double.request("mechanisms"), json!([["PLAIN", MECHANISM]]));
        assert_eq!(double.log.iter().filter(|line| is_ours(line)).count(), 1);
        assert_eq!((&double.log[0]["s"], &double.log[0]["c"]), (&json!("I"), &json!("ACCESS")));
        let factories = double.request("factories");
        let ours = &factories[1];
        assert_eq!((&ours["name"], &ours["list"]), (&json!(MECHANISM), &json!("external")), "{factories}");
        assert_eq!(ours["internal"], false);
        double.quit();
    }

    fn without_the_plugin_an_enabled_mechanism_stops_the_server(series: &str) {
        let output = Options::of_series(series).without_plugin().mechanisms("MONGODB-AWS,PLAIN").run(&["quit"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stdout).contains(MECHANISM));
    }

    fn parameters_are_read_and_set(series: &str) {
        let mut double = Options::of_series(series)
            .parameter("awsStsHost", "sts.eu-central-1.amazonaws.com")
            .parameter("awsStsFallbackHosts", format!("sts.eu-west-1.amazonaws.com,{STS_HOST}"))
            .start();
        let all = double.request("getParameters");
        for (name, at_startup, text, value) in [
            ("awsStsHost", bson!("sts.eu-central-1.amazonaws.com"), "sts.eu-west-1.amazonaws.com", bson!(STS_HOST)),
            ("awsStsEndpoint", bson!(""), "https://127.0.0.1:1", bson!("https://127.0.0.1")),
            ("awsStsTimeoutMS", bson!(10_000), "2500", bson!(100)),
        ] {
            assert_eq!(document(&all[name]), doc! { name: at_startup.clone() });
            assert_eq!(double.parameter(name), at_startup);
            let reply = double.request(&format!("setParameter {name} {text}"));
            assert_eq!(reply["ok"], 1, "{reply}");
            assert_eq!(double.parameter(name).to_string().trim_matches('"'), text);
            let reply = double.set_parameter(name, value.clone());
            assert_eq!(reply["ok"], 1, "{reply}");
            assert_eq!(double.parameter(name), value);
        }
        assert_eq!(document(&all["awsStsCAFile"]), doc! { "awsStsCAFile": "" });
        double.quit();
    }

    fn bad_values_are_refused_with_a_sentence_and_change_nothing(series: &str) {
        let mut double = Options::of_series(series).mechanisms("MONGODB-AWS,PLAIN").start();
        for (name, value) in [
            ("awsStsHost", bson!("sts.attacker.example")),
            ("awsStsHost", bson!("sts.amazonaws.com:443")),
            ("awsStsHost", bson!(1)),
            ("awsStsHost", bson!({ "a": 1 })),
            ("awsStsHost", bson!(null)),
            ("awsStsEndpoint", bson!("https://host/path")),
            ("awsStsEndpoint", bson!(true)),
            ("awsStsCAFile", bson!("/etc/hostname")),
            ("awsStsTimeoutMS", bson!(99)),
            ("awsStsTimeoutMS", bson!(1000.5)),
            ("awsStsTimeoutMS", bson!("1000")),
        ] {
            let before = double.parameter(name);
            let mut replies = Vec::new();
            // As text too: the rule about changes at runtime holds once the mechanism is
            // registered.
            if let (Bson::String(text), false) = (&value, name == "awsStsTimeoutMS") {
                replies.push(double.request(&format!("setParameter {name} {text}")));
            }
            replies.push(double.set_parameter(name, value.clone()));
            for reply in replies {
                assert_eq!((&reply["ok"], &reply["code"]), (&json!(0), &json!(BAD_VALUE)), "{name}: {value}");
                let reason = reply["reason"].as_str().unwrap();
                let says_what = reason.contains("must be") || reason.contains("allowed");
                assert!(reason.contains(name) && says_what, "{reason}");
            }
            assert_eq!(double.parameter(name), before);
        }
        double.quit();
    }

    fn a_bad_value_at_startup_stops_the_server_with_a_sentence(series: &str) {
        for (name, value, reason) in [
            ("awsStsHost", "https://sts.amazonaws.com", "must be a host name in lower case"),
            ("awsStsTimeoutMS", "5", "between 100 and 60000 milliseconds"),
        ] {
            let output = Options::of_series(series).parameter(name, value).run(&["quit"]);
            assert_eq!(output.status.code(), Some(1));
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(stderr.contains(reason), "{stderr}");
        }
    }

    fn a_user_and_a_role_log_in(series: &str) {
        let world = TestSts::new();
        let mut double = world.start(series);
        world.assert_lets_in(&mut double);
        assert_eq!(world.sts.request_count(), 2);
        double.quit();
    }

    fn a_wrong_secret_is_refused_with_the_reason(series: &str) {
        let world = TestSts::new();
        let mut double = world.start(series);
        let reply = double.login(&Credentials::new(&world.user.access_key_id, "not-the-secret"));
        assert_eq!((&reply["ok"], &reply["code"]), (&json!(0), &json!(AUTHENTICATION_FAILED)), "{reply}");
        assert!(reply["reason"].as_str().unwrap().contains("SignatureDoesNotMatch"), "{reply}");
        world.assert_lets_in(&mut double);
        double.quit();
    }

    fn what_is_no_message_is_refused_without_asking_sts(series: &str) {
        let world = TestSts::new();
        let mut double = world.start(series);
        for garbage in ["", "ff", "67617262616765"] {
            let reply = double.request(&format!("saslStart {garbage}"));
            assert_eq!(reply["code"], AUTHENTICATION_FAILED, "{reply}");
            double.start_login();
            let reply = double.request(&format!("saslContinue {garbage}"));
            assert_eq!(reply["code"], AUTHENTICATION_FAILED, "{reply}");
        }
        assert_eq!(world.sts.request_count(), 0);
        double.quit();
    }

    fn a_conversation_that_nobody_ends_is_freed(series: &str) {
        let world = TestSts::new();
        let mut double = world.start(series);
        double.start_login();
        double.start_login();
        double.quit();
    }

    fn server_status_has_the_plugin_s_section(series: &str) {
        let world = TestSts::new();
        let mut double = world.start(series);
        world.assert_lets_in(&mut double);
        let sections = double.request("serverStatus");
        let ours = &sections["awsIam"];
        assert_eq!((&ours["byDefault"], &ours["allowed"]), (&json!(true), &json!(true)), "{sections}");
        let message = document(&ours["bson"]);
        let section = message.get_document("awsIam").expect("the section");
        assert_eq!(section.get_str("serverAbi").unwrap(), series.replace('_', "."), "{section}");
        assert!(document(&sections["asserts"]["bson"]).contains_key("asserts"));
        double.quit();
    }

    fn a_login_frees_what_it_allocates(series: &str) {
        let Some(checker) = memory::leak_checker() else { return };
        let world = TestSts::new();
        let mut double = world.options(Options::of_series(series)).under(checker).start();
        world.assert_lets_in(&mut double);
        let reply = double.login(&Credentials::new(&world.user.access_key_id, "not-the-secret"));
        assert_eq!(reply["code"], AUTHENTICATION_FAILED, "{reply}");
        double.request("serverStatus");
        double.request("getParameters");
        double.request("setParameter awsStsTimeoutMS 5");
        for garbage in ["saslStart 00", "saslContinue 00"] {
            double.start_login();
            double.request(garbage);
        }
        double.start_login();
        double.quit();
    }

    fn it_exports_the_names_that_are_known_of_the_series(series: &str) {
        let exported = exports_of(&double_of(series, None));
        let (known, unknown) = names_of(series);
        for name in known {
            assert!(exported.contains_key(&name), "{name} is missing");
        }
        for name in unknown {
            assert!(!exported.contains_key(&name), "{name} is of another series");
        }
        for (class, functions) in VTABLES {
            let slots = functions[usize::from(series != "6_0") + usize::from(series == "8_2")];
            assert_eq!(exported[&format!("_ZTVN5mongo{class}E")], 8 * (slots + 2), "{class}");
        }
    }
}

/// Makes one test per difference of a server: the series, the difference, what the plugin reports.
macro_rules! is_left_alone {
    ($($name:ident: $series:literal, $difference:expr, $differs:literal;)*) => {
        mod a_server_that_differs_is_left_alone {
            use super::Difference::*;
            use super::{Variant, assert_left_alone};

            $(
                #[test]
                fn $name() {
                    assert_left_alone(&Variant::new($series, &$difference).program, $differs);
                }
            )*

            // These two are compiled, since they run differently.
            #[test]
            fn in_its_texts() {
                assert_left_alone(&super::double_of("7_0", Some("WRONG_STRING_DATA")), "the layout of StringData");
            }

            #[test]
            fn in_a_function_that_plain_does_not_inherit() {
                let program = super::double_of("7_0", Some("WRONG_INHERITANCE"));
                assert_left_alone(&program, "the remaining slots of the mechanism vtable");
            }
        }
    };
}

is_left_alone! {
    in_the_order_of_a_mechanism: "7_0", SwappedSlots("24SASLPlainServerMechanism", [3, 4]), "version 7.0.14, is not supported: it differs in: the slot of a mechanism's properties";
    in_the_size_of_a_mechanism: "8_0", ResizedVtable("24SASLPlainServerMechanism", 1), "the vtable of the SASL mechanism PLAIN";
    in_the_order_of_a_parameter: "8_0", SwappedSlots("15ServerParameter", [2, 3]), "the slots of a server parameter's functions";
    in_the_size_of_a_parameter: "7_0", ResizedVtable("15ServerParameter", 1), "the vtable of server parameters";
    in_who_may_act_as_whom: "6_0", Renamed("19ServerMechanismBase19isAuthorizedToActAs"), "the inherited function isAuthorizedToActAs";
    in_an_optional_function_of_a_mechanism: "8_2", Renamed("19ServerMechanismBase15isClusterMember"), "the remaining slots of the mechanism vtable";
    in_the_pure_functions_of_a_parameter: "7_0", SwappedSlots("15ServerParameter", [6, 7]), "the slots of a server parameter's functions";
    in_a_parameter_s_function_that_is_null: "8_0", NullSlot("15ServerParameter", 9), "the remaining slots of the server parameter vtable";
    in_its_errors: "8_2", Renamed("6Status16_createErrorInfo"), "version 8.2.1, is not supported: it differs in: the constructor of errors";
    in_its_builder_of_documents: "7_0", Renamed("14appendElementsERKNS_7BSONObjE"), "the BSON document builder";
    in_its_registration: "8_0", Renamed("31ConstructorActionRegistererTypeINS_7ServiceEEC1E"), "version 8.0.4, is not supported: it differs in: the registration of constructor actions";
    in_its_registry: "8_0", Renamed("27SASLServerMechanismRegistry3getE"), "it differs in: the registry of SASL mechanisms";
}

/// The layout is found when the registry is created, and the parameters are registered already.
#[test]
fn a_registry_of_unknown_form_is_left_alone() {
    let options = || Options::of_series("8_0").mechanisms("MONGODB-AWS,PLAIN").option("--unknown-registry", "yes");
    let commands = ["mechanisms", "factories", "quit"];
    let (with, without) = (options().run(&commands), options().without_plugin().run(&commands));
    assert_refused_in_a_line(&with, &without, "the registry of SASL mechanisms has an unknown layout");
    assert_eq!(String::from_utf8_lossy(&with.stdout), String::from_utf8_lossy(&without.stdout));
}

/// The commands for a double that the plugin leaves alone.
const COMMANDS: [&str; 9] = [
    "mechanisms",
    "factories",
    "getParameters",
    "setParameter quiet maybe",
    "setParameter awsStsHost sts.amazonaws.com",
    "serverStatus",
    "saslStart 0075007269676874 PLAIN",
    "saslStart 00750077726f6e67 PLAIN",
    "quit",
];

/// Asserts that a program runs with the plugin as without it, and that the plugin says in one line
/// what differs.
fn assert_left_alone(program: &Path, differs: &str) {
    for mechanisms in ["PLAIN", "MONGODB-AWS,PLAIN"] {
        let with = Options::of(program).mechanisms(mechanisms).run(&COMMANDS);
        let without = Options::of(program).mechanisms(mechanisms).without_plugin().run(&COMMANDS);
        assert_refused_in_a_line(&with, &without, differs);
        assert_eq!(String::from_utf8_lossy(&with.stdout), String::from_utf8_lossy(&without.stdout), "{differs}");
    }
}

/// Asserts that the plugin reported the difference in one line, and that the double exited as
/// without it.
fn assert_refused_in_a_line(with: &Output, without: &Output, differs: &str) {
    let stderr = String::from_utf8_lossy(&with.stderr);
    assert_eq!(with.status.code(), without.status.code(), "{stderr}");
    assert_ne!(with.status.code(), Some(VIOLATION), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&without.stderr), "");
    let lines: Vec<_> = stderr.lines().collect();
    assert!(
        lines.len() == 1 && lines[0].starts_with("psmdb-aws-iam") && lines[0].contains("not registered"),
        "{stderr:?}"
    );
    assert!(lines[0].ends_with(differs), "{stderr:?}");
}

/// Logins do not depend on the section: the plugin registers none whose form it does not know.
#[test]
fn a_section_of_unknown_form_is_not_registered() {
    const SECTION: &str = "19ServerStatusSection";
    let world = TestSts::new();
    for difference in [Difference::ResizedVtable(SECTION, -1), Difference::NullSlot(SECTION, 3)] {
        let variant = Variant::new("8_2", &difference);
        let mut double = world.options(Options::of(&variant.program)).start();
        world.assert_lets_in(&mut double);
        let sections = double.request("serverStatus");
        assert!(sections.get("asserts").is_some() && sections.get("awsIam").is_none(), "{sections}");
        double.quit();
    }
}

/// A server with an embedded router has two services, each with its own registry.
#[test]
fn two_services_have_the_mechanism_each() {
    let world = TestSts::new();
    for series in ["8_0", "8_2"] {
        let mut double = world.options(Options::of_series(series)).option("--services", "2").start();
        assert_eq!(double.request("mechanisms"), json!([["PLAIN", MECHANISM], ["PLAIN", MECHANISM]]));
        world.assert_lets_in(&mut double);
        double.quit();
    }
}

/// The last virtual function of a parameter of 7.0 has one of two forms.
#[test]
fn either_last_function_of_a_parameter_of_7_0_will_do() {
    let world = TestSts::new();
    let program = double_of("7_0", Some("FCV_PARAMETERS"));
    let mut double = world.options(Options::of(&program)).start();
    world.assert_lets_in(&mut double);
    double.request("getParameters");
    double.quit();
}

/// The dynamic symbols that a program defines, with their sizes.
fn exports_of(program: &Path) -> HashMap<String, usize> {
    let output =
        Command::new("readelf").args(["-W", "--dyn-syms"]).arg(program).output().expect("readelf, of binutils");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let symbol = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let defined = words.len() == 8 && words[6] != "UND";
        defined.then(|| Some((words[7].to_owned(), words[2].parse().ok()?))).flatten()
    };
    text.lines().filter_map(symbol).collect()
}

/// How many virtual functions each class has: in 6.0, in 7.0 and 8.0, in 8.2.
const VTABLES: [(&str, [usize; 3]); 5] = [
    ("24SASLPlainServerMechanism", [11, 15, 16]),
    ("19ServerMechanismBase", [11, 15, 16]),
    ("18PLAINServerFactory", [8, 8, 8]),
    ("15ServerParameter", [10, 10, 13]),
    ("19ServerStatusSection", [6, 6, 6]),
];

/// The mangled names that a series is known to have, and those that it is known to lack.
fn names_of(series: &str) -> (Vec<String>, Vec<String>) {
    const STRING: &str = "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE";
    let parameters = format!(
        "C1E{STRING}St8functionIFvPNS_18InitializerContextEEES7_IFvPNS_20DeinitializerContextEEESt6vectorIS6_SaIS6_EESI_"
    );
    let in_all = [
        format!("_ZN5mongo27GlobalInitializerRegisterer{parameters}"),
        "_ZNK5mongo27SASLServerMechanismRegistry17getMechanismNamesB5cxx11Ev".to_owned(),
        "_ZNK5mongo27SASLServerMechanismRegistry27_mechanismSupportedByConfigENS_10StringDataE".to_owned(),
        "_ZN5mongo15ServerParameterC1ENS_10StringDataENS_19ServerParameterTypeE".to_owned(),
        "_ZN5mongo15ServerParameterC2ENS_10StringDataENS_19ServerParameterTypeE".to_owned(),
        "_ZN5mongo18ServerParameterSet19getNodeParameterSetEv".to_owned(),
        format!("_ZN5mongo18ServerParameterSet6removeERK{STRING}"),
        "_ZN5mongo18BSONObjBuilderBaseINS_14BSONObjBuilderENS_10BufBuilderEE14appendElementsERKNS_7BSONObjE".to_owned(),
        "_ZN5mongo24SASLPlainServerMechanism8stepImplB5cxx11EPNS_16OperationContextENS_10StringDataE".to_owned(),
        "_ZNK5mongo19MakeServerMechanismINS_11PLAINPolicyEE13mechanismNameEv".to_owned(),
        format!("_ZN5mongo17MakeServerFactoryINS_24SASLPlainServerMechanismEE10createImplE{STRING}"),
        "_ZN5mongo5logv210LogOptionsC1ENS0_12LogComponentE".to_owned(),
        "_ZN5mongo5logv26detail9doLogImplEiRKNS0_11LogSeverityERKNS0_10LogOptionsENS_10StringDataERKNS0_\
         26TypeErasedAttributeStorageE"
            .to_owned(),
        "_Znwm".to_owned(),
        "_ZdlPv".to_owned(),
    ];
    let until_7_0 = [
        "_ZN5mongo27SASLServerMechanismRegistry3getEPNS_14ServiceContextE".to_owned(),
        format!(
            "_ZN5mongo14ServiceContext27ConstructorActionRegistererC1E{STRING}St6vectorIS7_SaIS7_EESA_St8functionIFvPS0_\
             EESE_"
        ),
        "_ZN5mongo18ServerParameterSet3addEPNS_15ServerParameterE".to_owned(),
        "_ZN5mongo23registerServerParameterEPNS_15ServerParameterE".to_owned(),
        format!("_ZN5mongo19ServerStatusSectionC1ERK{STRING}"),
        "_ZN5mongo27ServerStatusSectionRegistry3getEv".to_owned(),
        "_ZN5mongo27ServerStatusSectionRegistry10addSectionEPNS_19ServerStatusSectionE".to_owned(),
        format!("_ZN5mongo6StatusC1ENS_10ErrorCodes5ErrorE{STRING}"),
    ];
    let from_8_0 = [
        "_ZN5mongo27SASLServerMechanismRegistry3getEPNS_7ServiceE".to_owned(),
        format!(
            "_ZN5mongo31ConstructorActionRegistererTypeINS_7ServiceEEC1E{STRING}St6vectorIS8_SaIS8_EESB_St8functionIFvPS1_\
             EESF_"
        ),
        "_ZN5mongo18ServerParameterSet3addESt10unique_ptrINS_15ServerParameterESt14default_deleteIS2_EE".to_owned(),
        "_ZN5mongo23registerServerParameterESt10unique_ptrINS_15ServerParameterESt14default_deleteIS1_EE".to_owned(),
        "_ZN5mongo27ServerStatusSectionRegistry8instanceEv".to_owned(),
        "_ZN5mongo27ServerStatusSectionRegistry10addSectionESt10unique_ptrINS_19ServerStatusSectionESt14default_delete\
         IS2_EE"
            .to_owned(),
        format!(
            "_ZN5mongo6Status16_createErrorInfoENS_10ErrorCodes5ErrorE{STRING}St10shared_ptrIKNS_14ErrorExtraInfoEE"
        ),
    ];
    let tenant = "RKN5boost8optionalINS_8TenantIdEEE";
    let old_parameter = [
        "_ZN5mongo15ServerParameter3setERKNS_11BSONElementE".to_owned(),
        "_ZN5mongo15ServerParameter5resetEv".to_owned(),
    ];
    let new_parameter = [
        format!("_ZN5mongo15ServerParameter3setERKNS_11BSONElementE{tenant}"),
        format!("_ZN5mongo15ServerParameter5resetE{tenant}"),
    ];
    let request = "_ZNK5mongo19ServerMechanismBase14getUserRequestEv".to_owned();
    let make_request = "_ZNK5mongo19ServerMechanismBase15makeUserRequestEPNS_16OperationContextE".to_owned();

    let (mut known, mut unknown) = (in_all.to_vec(), Vec::new());
    let is_new = series.starts_with('8');
    let mut sort = |names: &[String], is_known: bool| {
        if is_known { &mut known } else { &mut unknown }.extend_from_slice(names);
    };
    sort(&until_7_0, !is_new);
    sort(&from_8_0, is_new);
    sort(&old_parameter, series == "6_0");
    sort(&new_parameter, series != "6_0");
    sort(&[request], matches!(series, "7_0" | "8_0"));
    sort(&[make_request], series == "8_2");
    (known, unknown)
}
