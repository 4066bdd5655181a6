//! The sources of credentials of `whoami` and `login`. Each run ends at an STS that verifies the
//! signature made with them.
//!
//! AWS's services that issue credentials are not available here. A double on loopback replaces
//! them: it checks the request and answers as AWS documents it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use local_sts::Identity;
use serde_json::json;

use super::whoami::printed;
use super::{assert_hides, command, run};
use crate::support::fixture::ACCOUNT;
use crate::support::proxy::TunnelProxy;
use crate::support::sts::TestSts;

/// The role of [`TestSts::role`].
const ROLE: &str = "arn:aws:iam::123456789012:role/reporting";

/// `sha1("corp")`, as which AWS's SDKs keep the token of the SSO session `corp`.
const TOKEN_FILE: &str = ".aws/sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json";

/// A request to the [`Double`].
struct Request {
    /// Method and target.
    line: String,
    /// All header lines, in lower case.
    head: String,
    body: String,
}

/// An HTTP service on loopback.
struct Double {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Double {
    /// Answers 404 where there is no answer.
    fn start(answer: impl Fn(&Request) -> Option<String> + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let mut reader = BufReader::new(client.try_clone().unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap_or(0) > 0 {}
                let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
                let head = head.to_lowercase();
                let length = head.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.lines().next());
                let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
                reader.read_exact(&mut body).unwrap();
                let request = Request { line, head, body: String::from_utf8(body).unwrap() };
                let (status, body) = answer(&request).map_or(("404 Not Found", String::new()), |body| ("200 OK", body));
                log.lock().unwrap().push(request);
                let _ = write!(
                    client,
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\
                     x-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Self { address, requests }
    }

    /// An STS that issues the role's session to requests with these parts in body and head.
    fn sts(role: &Identity, in_body: &'static [&'static str], in_head: String) -> Self {
        let Identity { access_key_id, secret_access_key, session_token, arn, .. } = role.clone();
        let token = session_token.unwrap();
        Self::start(move |request| {
            let asked = request.line == "POST /"
                && in_body.iter().all(|part| request.body.contains(part))
                && request.head.contains(&in_head);
            let action = request.body.split("Action=").nth(1)?.split('&').next()?;
            asked.then(|| {
                format!(
                    "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>\
                     <AssumedRoleUser><AssumedRoleId>AROAEXAMPLE:s</AssumedRoleId><Arn>{arn}</Arn></AssumedRoleUser>\
                     <Credentials><AccessKeyId>{access_key_id}</AccessKeyId><SecretAccessKey>{secret_access_key}\
                     </SecretAccessKey><SessionToken>{token}</SessionToken>\
                     <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></{action}Result></{action}Response>"
                )
            })
        })
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn request_count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

/// A run with no keys in its environment, and with these settings in AWS's files.
fn whoami(setting: &TestSts, config: &str, arguments: &[&str]) -> Command {
    let home = setting.folder.path().join("home");
    fs::create_dir_all(home.join(".aws")).unwrap();
    fs::write(home.join(".aws/config"), config).unwrap();
    let mut command = setting.whoami(&setting.user, arguments);
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        command.env_remove(name);
    }
    command.env("HOME", home);
    command
}

/// The settings of keys that are written down.
fn keys_of(identity: &Identity) -> String {
    let Identity { access_key_id, secret_access_key, session_token, .. } = identity;
    let token = session_token.as_ref().map_or(String::new(), |token| format!("aws_session_token = {token}\n"));
    format!("aws_access_key_id = {access_key_id}\naws_secret_access_key={secret_access_key}  # not this\n{token}")
}

/// Credentials as the metadata services write them.
fn metadata_of(identity: &Identity) -> String {
    let Identity { access_key_id, secret_access_key, session_token, .. } = identity;
    json!({
        "Code": "Success", "AccessKeyId": access_key_id, "SecretAccessKey": secret_access_key, "Token": session_token,
        "Expiration": "2099-01-01T00:00:00Z",
    })
    .to_string()
}

/// Asserts that a run used these credentials, from there.
fn assert_used(command: &mut Command, identity: &Identity, source: &str) {
    let text = printed(run(command), identity);
    assert!(text.starts_with(&identity.arn), "{source}: {text}");
    let line = format!("; access key id {}, from {source}\n", identity.access_key_id);
    assert!(text.contains(&line), "{source}: {text}");
}

#[test]
fn the_first_source_that_has_keys_counts() {
    let setting = TestSts::new();
    let others: Vec<_> = (0..3).map(|index| Identity::iam_user(ACCOUNT, &format!("other-{index}"))).collect();
    others.iter().for_each(|identity| setting.sts.add_identity(identity.clone()));
    let [in_environment, default, in_config] = &others[..] else { unreachable!() };
    let config = format!(
        "[default]\nregion = eu-west-1\ns3 =\n  aws_access_key_id = NESTED\n{}[profile in-config]\n{}\
         [in-config-without-prefix]\naws_access_key_id = AKIANOT\n",
        keys_of(in_config),
        keys_of(in_config)
    );
    let both = [
        ("AWS_ACCESS_KEY_ID", &*in_environment.access_key_id),
        ("AWS_SECRET_ACCESS_KEY", &*in_environment.secret_access_key),
    ];
    let with_profile = [both[0], both[1], ("AWS_PROFILE", "session")];
    for (name, variables, arguments, identity, source) in [
        ("nothing but files", &[][..], &[][..], default, "the profile default"),
        ("the environment", &both, &[], in_environment, "the environment"),
        ("a profile in the environment, too", &with_profile, &[], in_environment, "the environment"),
        ("an option before that", &with_profile, &["--profile", "default"], default, "the profile default"),
        ("AWS_PROFILE", &[("AWS_PROFILE", "session")], &[], &setting.role, "the profile session"),
        ("empty variables", &[("AWS_ACCESS_KEY_ID", ""), ("AWS_PROFILE", "")], &[], default, "the profile default"),
        ("the other file", &[], &["--profile", "in-config"], in_config, "the profile in-config"),
        (
            "no metadata before a profile",
            &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/")],
            &[],
            default,
            "the profile default",
        ),
    ] {
        let mut command = whoami(&setting, &config, arguments);
        let keys = format!("# a comment\n[default]\n{}\n[session]\n{}", keys_of(default), keys_of(&setting.role));
        fs::write(setting.folder.path().join("home/.aws/credentials"), keys).unwrap();
        eprintln!("{name}");
        assert_used(command.envs(variables.iter().copied()), identity, source);
    }
    // A session's token that goes with the keys of the environment.
    let mut command = setting.whoami(&setting.role, &[]);
    assert_used(command.env("HOME", "/nonexistent"), &setting.role, "the environment");
}

#[test]
fn what_is_missing_or_fails_is_said_and_what_to_do() {
    let setting = TestSts::new();
    let config = "\
[profile half]\naws_access_key_id = AKIAHALF\n[profile secret-half]\naws_secret_access_key = planted\n\
[profile empty]\nregion = eu-west-1\n[another]\naws_access_key_id = AKIANOT\naws_secret_access_key = planted\n\
[profile its]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = nope\n\
[profile around]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = and\n\
[profile and]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = around\n\
[profile console]\nlogin_session = arn:aws:iam::123456789012:user/x\n\
[profile sso]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = Admin\n\
[sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.awsapps.com/start\n\
[profile web]\nweb_identity_token_file = /nonexistent\nrole_arn = arn:aws:iam::123456789012:role/x\n";
    let elsewhere = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/")];
    let service_account = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent"), ("AWS_ROLE_ARN", ROLE)];
    for (name, variables, profile, reason) in [
        ("half of the keys", &[("AWS_ACCESS_KEY_ID", "AKIA")][..], "", "AWS_SECRET_ACCESS_KEY is not: set both"),
        ("the other half", &[("AWS_SECRET_ACCESS_KEY", "planted")], "", "AWS_ACCESS_KEY_ID is not: set both"),
        ("half a profile", &[], "half", "in `half`: profile missing aws_secret_access_key. "),
        ("the other half of one", &[], "secret-half", "in `secret-half`: profile missing aws_access_key_id. "),
        ("a profile without keys", &[], "empty", "no AWS credentials: the profile empty in "),
        ("no such profile", &[], "nope", "there is no profile nope in "),
        ("AWS_PROFILE", &[("AWS_PROFILE", "nope")], "", "there is no profile nope in "),
        ("another's section", &[], "another", "there is no profile another in "),
        ("a name that no profile can have", &[], "it's", "there is no profile it's in "),
        ("no such source profile", &[], "its", "could not find source profile nope referenced from its"),
        ("a circle", &[], "around", "from the profile around (assumed role): "),
        ("a login session", &[], "console", "has a login session (login_session), which is not supported"),
        ("SSO without a login", &[], "sso", "(SSO): failed to load the cached SSO token. Log in first: aws sso login "),
        (
            "a token file that is not there",
            &[],
            "web",
            "from the profile web (web identity): No such file or directory",
        ),
        ("the same in the environment", &service_account, "", "from the web identity of AWS_WEB_IDENTITY_TOKEN_FILE: "),
        (
            "a container's keys elsewhere",
            &elsewhere,
            "",
            "the container: invalid full URI for ECS provider (URI did not",
        ),
        ("a folder", &[("AWS_CONFIG_FILE", "/tmp")], "", "cannot read /tmp: "),
        (
            "nothing",
            &[("AWS_CONFIG_FILE", "/nowhere")],
            "",
            "and AWS_SECRET_ACCESS_KEY are not set, there is no profile",
        ),
        ("nothing, and what to do", &[], "", r#": eval "$(aws configure export-credentials --format env)""#),
    ] {
        let option = ["--profile", profile];
        let mut command = whoami(&setting, config, if profile.is_empty() { &[] } else { &option });
        let said = run(command.envs(variables.iter().copied())).refused(2);
        assert!(said.contains(reason), "{name}: {said}");
        assert!(!said.contains("planted"), "{name}: {said}");
    }
    let said = run(&mut whoami(&setting, "[default]\nplanted\n", &[])).refused(2);
    assert!(said.contains(": error parsing /") && said.contains("/.aws/config on line 2: "), "{said}");
    assert!(!said.contains("planted"), "{said}");
    assert_eq!(setting.sts.request_count(), 0);
}

#[test]
fn without_a_home_the_current_folder_is_not_searched_for_keys() {
    let setting = TestSts::new();
    let evil = setting.folder.path().join("evil");
    fs::create_dir_all(evil.join(".aws")).unwrap();
    let Identity { access_key_id, secret_access_key, .. } = &setting.user;
    let keys = format!("[evil]\naws_access_key_id = {access_key_id}\naws_secret_access_key = {secret_access_key}\n");
    fs::write(evil.join(".aws/credentials"), &keys).unwrap();
    fs::write(evil.join(".aws/config"), keys.replace("[evil]", "[profile evil]\nregion = eu-west-1")).unwrap();
    let whoami = |home: Option<&str>| {
        let mut command = command(&["whoami", "--profile", "evil", "--endpoint", &setting.sts.endpoint(), "--ca-file"]);
        command.arg(setting.ca_file()).current_dir(&evil).env_remove("HOME").envs(home.map(|home| ("HOME", home)));
        run(&mut command)
    };
    let uid = fs::metadata("/proc/self").unwrap().uid();
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let home = fields.filter(|fields| fields[2] == uid.to_string()).map(|fields| fields[5].to_owned()).next();
    for unset in [None, Some("")] {
        let said = whoami(unset).refused(2);
        let expected = format!("there is no profile evil in {}/.aws/credentials or ", home.as_deref().unwrap());
        assert!(said.contains(&expected), "{unset:?}: {said}");
    }
    // The keys are good where they are asked for.
    assert!(whoami(evil.to_str()).printed().starts_with(&setting.user.arn));
    assert_eq!(setting.sts.request_count(), 1);
}

#[test]
fn without_a_home_the_current_folder_is_not_searched_for_tokens_of_sso() {
    let setting = TestSts::new();
    let sso = sso_service(&setting.role);
    let (evil, config) = (setting.folder.path().join("evil"), setting.folder.path().join("sso"));
    write_token(&evil);
    fs::write(&config, SSO_CONFIG).unwrap();
    let run_with = |home: &Path| {
        let mut command = whoami(&setting, "", &["--profile", "corp"]);
        command.current_dir(&evil).env("HOME", home).env("AWS_CONFIG_FILE", &config);
        run(command.env("AWS_ENDPOINT_URL_SSO", sso.url()))
    };
    assert!(run_with(Path::new("")).refused(2).contains("failed to load the cached SSO token"));
    assert_eq!(sso.request_count(), 0);
    // The token is good where it is asked for.
    assert!(printed(run_with(&evil), &setting.role).starts_with(&setting.role.arn));
}

#[test]
fn a_program_gives_credentials() {
    let setting = TestSts::new();
    let program = setting.folder.path().join("keys");
    let Identity { access_key_id, secret_access_key, session_token, .. } = &setting.role;
    let keys = json!({
        "Version": 1, "AccessKeyId": access_key_id, "SecretAccessKey": secret_access_key, "SessionToken": session_token,
    });
    let text = format!("#!/bin/sh\n[ \"$1\" = ok ] || {{ echo locked >&2; exit 3; }}\necho '{keys}'\n");
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let program = program.display();
    let config = format!(
        "[default]\ncredential_process = {program} ok\n[profile locked]\n\
         credential_process = {program} --password planted\n[profile nonsense]\ncredential_process = echo planted\n"
    );
    assert_used(&mut whoami(&setting, &config, &[]), &setting.role, "the profile default (credential_process)");
    for (profile, reason) in [
        (
            "locked",
            "external process exited with code exit status: 3. Stderr: locked. If the AWS CLI has credentials, ",
        ),
        ("nonsense", "could not parse response: "),
    ] {
        let said = run(&mut whoami(&setting, &config, &["--profile", profile])).refused(2);
        assert!(said.contains(reason), "{profile}: {said}");
        assert!(!said.contains("planted"), "{profile}: {said}");
    }
}

#[test]
fn a_role_is_assumed_with_the_keys_of_another_profile() {
    let setting = TestSts::new();
    let key = setting.user.access_key_id.to_lowercase();
    let sts = Double::sts(
        &setting.role,
        &[
            "Action=AssumeRole&",
            "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Freporting",
            "RoleSessionName=shift",
            "ExternalId=42",
        ],
        format!("\r\nauthorization: aws4-hmac-sha256 credential={key}/"),
    );
    let profile = format!("role_arn = {ROLE}\nrole_session_name = shift\nexternal_id = 42\n");
    let config = format!(
        "[profile admin]\n{profile}source_profile = keys\nregion = eu-central-1\n\
         mfa_serial = arn:aws:iam::123456789012:mfa/x\n[profile direct]\n{profile}source_profile = keys\n\
         endpoint_url = {}\n\
         [profile from-environment]\n{profile}credential_source = Environment\n[profile keys]\n{}",
        sts.url(),
        keys_of(&setting.user)
    );
    let at_sts = |profile: &str| {
        let mut command = whoami(&setting, &config, &["--profile", profile]);
        command.env("AWS_ENDPOINT_URL_STS", sts.url());
        command
    };
    assert_used(&mut at_sts("admin"), &setting.role, "the profile admin (assumed role)");
    assert!(sts.requests.lock().unwrap()[0].head.contains("/eu-central-1/sts/aws4_request, "));
    assert_used(
        &mut whoami(&setting, &config, &["--profile", "direct"]),
        &setting.role,
        "the profile direct (assumed role)",
    );
    assert!(sts.requests.lock().unwrap()[1].head.contains("/us-east-1/sts/aws4_request, "));
    let mut with_keys = at_sts("from-environment");
    super::with_credentials(&mut with_keys, &setting.user);
    assert_used(&mut with_keys, &setting.role, "the profile from-environment (assumed role)");

    // AWS's own STS is asked by HTTPS, and by the environment's proxy, as AWS's tools do.
    let proxy = TunnelProxy::start(Some("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"));
    let mut command = whoami(&setting, &config, &["--profile", "admin"]);
    let said = run(command.env("HTTPS_PROXY", format!("http://{}", proxy.address))).refused(2);
    assert!(said.contains("from the profile admin (assumed role): ") && said.contains("(mfa_serial)"), "{said}");
    assert!(proxy.requests()[0].starts_with("CONNECT sts.eu-central-1.amazonaws.com:443 "), "{:?}", proxy.requests());
    assert_hides(&said, &setting.user);

    let refusing = Double::start(|_| None);
    let said = run(at_sts("admin").env("AWS_ENDPOINT_URL_STS", refusing.url())).refused(2);
    assert!(said.contains("from the profile admin (assumed role): service error"), "{said}");
    assert_hides(&said, &setting.user);
}

#[test]
fn a_web_identity_is_changed_into_credentials() {
    let setting = TestSts::new();
    let body = &["Action=AssumeRoleWithWebIdentity&", "%3Arole%2Freporting", "WebIdentityToken=the-pod.s-token"];
    let sts = Double::sts(&setting.role, body, "\r\ncontent-type: application/x-www-form-urlencoded\r\n".to_owned());
    let token = setting.folder.path().join("web-token");
    fs::write(&token, "the-pod.s-token").unwrap();
    let token = token.display().to_string();
    let config = format!("[profile web]\nrole_arn = {ROLE}\nweb_identity_token_file = {token}\n");

    let mut command = whoami(&setting, &config, &[]);
    command.env("AWS_ENDPOINT_URL_STS", sts.url()).env("AWS_ROLE_ARN", ROLE).env("AWS_WEB_IDENTITY_TOKEN_FILE", &token);
    assert_used(&mut command, &setting.role, "the web identity of AWS_WEB_IDENTITY_TOKEN_FILE");
    let mut command = whoami(&setting, &config, &["--profile", "web"]);
    command.env("AWS_ENDPOINT_URL_STS", sts.url());
    assert_used(&mut command, &setting.role, "the profile web (web identity)");
    assert!(sts.requests.lock().unwrap().iter().all(|request| !request.head.contains("\r\nauthorization: ")));
}

const SSO_CONFIG: &str = "\
[profile corp]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = Admin\n\
[sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.awsapps.com/start\n";

/// What `aws sso login` leaves.
fn write_token(home: &Path) {
    let file = home.join(TOKEN_FILE);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let token = json!({
        "accessToken": "the-person-s", "expiresAt": "2099-01-01T00:00:00Z", "region": "eu-west-1",
        "startUrl": "https://corp.awsapps.com/start",
    });
    fs::write(file, token.to_string()).unwrap();
}

/// SSO's GetRoleCredentials.
fn sso_service(role: &Identity) -> Double {
    let Identity { access_key_id, secret_access_key, session_token, .. } = role.clone();
    Double::start(move |request| {
        let asked = request.line.starts_with("GET /federation/credentials?")
            && ["role_name=Admin", "account_id=123456789012"].iter().all(|part| request.line.contains(part))
            && request.head.contains("\r\nx-amz-sso_bearer_token: the-person-s\r\n");
        let keys = json!({"roleCredentials": {
            "accessKeyId": access_key_id, "secretAccessKey": secret_access_key, "sessionToken": session_token,
            "expiration": 4_070_908_800_000_u64,
        }});
        asked.then(|| keys.to_string())
    })
}

#[test]
fn who_is_logged_in_by_sso_has_a_role_s_credentials() {
    let setting = TestSts::new();
    let sso = sso_service(&setting.role);
    let ask = || {
        let mut command = whoami(&setting, SSO_CONFIG, &["--profile", "corp"]);
        command.env("AWS_ENDPOINT_URL_SSO", sso.url());
        command
    };
    let said = run(&mut ask()).refused(2);
    assert!(said.contains("Log in first: aws sso login --profile corp\n"), "{said}");
    write_token(&setting.folder.path().join("home"));
    assert_used(&mut ask(), &setting.role, "the profile corp (SSO)");
}

#[test]
fn a_container_and_an_instance_have_keys_of_their_own() {
    let setting = TestSts::new();
    let answer = metadata_of(&setting.role);
    let agent = Double::start(move |request| {
        let asked = request.line == "GET /v1/credentials" && request.head.contains("\r\nauthorization: the-pod's\r\n");
        asked.then(|| answer.clone())
    });
    let token = setting.folder.path().join("pod-token");
    fs::write(&token, "the-pod's").unwrap();
    let uri = format!("{}/v1/credentials", agent.url());
    let mut in_pod = whoami(&setting, "", &[]);
    in_pod.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri).env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token);
    // A proxy would see the keys.
    for name in ["http_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        in_pod.env(name, "http://127.0.0.1:9");
    }
    assert_used(&mut in_pod, &setting.role, "the container");
    let said = run(whoami(&setting, "", &[]).env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)).refused(2);
    assert!(said.contains("cannot get AWS credentials from the container: ") && said.contains("404"), "{said}");
    // Keys in the environment come first.
    let mut command = setting.whoami(&setting.user, &[]);
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/");
    assert_used(&mut command, &setting.user, "the environment");

    let answer = metadata_of(&setting.role);
    let instance = Double::start(move |request| {
        let with_token = request.head.contains("\r\nx-aws-ec2-metadata-token: of-a-minute\r\n");
        match &*request.line {
            "PUT /latest/api/token" if request.head.contains("\r\nx-aws-ec2-metadata-token-ttl-seconds: ") => {
                Some("of-a-minute".to_owned())
            }
            "GET /latest/meta-data/iam/security-credentials/" if with_token => Some("reporting".to_owned()),
            "GET /latest/meta-data/iam/security-credentials/reporting" if with_token => Some(answer.clone()),
            _ => None,
        }
    });
    let on_instance = |double: &Double| {
        let mut command = whoami(&setting, "", &[]);
        command.env_remove("AWS_EC2_METADATA_DISABLED").env("HTTP_PROXY", "http://127.0.0.1:9");
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", double.url());
        command
    };
    assert_used(&mut on_instance(&instance), &setting.role, "the instance");
    let said = run(on_instance(&instance).env("AWS_EC2_METADATA_DISABLED", "true")).refused(2);
    assert!(said.contains("no AWS credentials: "), "{said}");
    let without_role = Double::start(|request| request.line.starts_with("PUT ").then(|| "of-a-minute".to_owned()));
    let said = run(&mut on_instance(&without_role)).refused(2);
    assert!(said.contains("no AWS credentials: "), "{said}");
    let broken = Double::start(|_| Some("planted".to_owned()));
    let said = run(&mut on_instance(&broken)).refused(2);
    assert!(said.contains("cannot get AWS credentials from the instance: ") && !said.contains("planted"), "{said}");
}
