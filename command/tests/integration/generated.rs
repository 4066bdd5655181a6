//! Help, completions and manual pages.

use std::fs;

use super::{command, run};

/// The commands that --help lists.
const COMMANDS: [&str; 7] = ["check-server", "check-sts", "user", "whoami", "login", "setup", "completions"];

#[test]
fn the_help_of_every_command_has_examples_and_exit_statuses() {
    let overview = run(&mut command(&["--help"])).printed();
    for name in COMMANDS {
        assert!(overview.contains(&format!("\n  {name} ")), "{overview}");
        let help = run(&mut command(&[name, "--help"])).printed();
        for part in
            [&*format!("\nUsage: psmdb-aws-iam {name}"), "\nExit status:\n  0  ", "\n  2  ", "\nExamples:\n  psmdb"]
        {
            assert!(help.contains(part), "{name}: no {part:?} in\n{help}");
        }
        // Preformatted text must fit a terminal; the terminal breaks clap's own lines.
        let notes = help.split_once("Print help").expect("the last option").1;
        let wide = notes.lines().skip(1).find(|line| line.len() > 82);
        assert_eq!(wide, None, "{name}");
    }
    assert!(!overview.contains("manual"), "{overview}");
}

#[test]
fn completions_are_printed_for_three_shells() {
    for (shell, sign) in
        [("bash", "complete -F"), ("zsh", "#compdef psmdb-aws-iam"), ("fish", "complete -c psmdb-aws-iam")]
    {
        let script = run(&mut command(&["completions", shell])).printed();
        assert!(script.contains(sign), "{shell}: {script}");
        for name in COMMANDS {
            assert!(script.contains(name), "{shell}: no {name}");
        }
    }
    let refused = run(&mut command(&["completions", "cmd.exe"]));
    assert_eq!(refused.status, 2);
    assert!(refused.stderr.contains("[possible values: bash, zsh, fish]"), "{}", refused.stderr);
}

#[test]
fn a_manual_page_is_written_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man/man1");
    assert_eq!(run(&mut command(&["manual", pages.to_str().unwrap()])).printed(), "");
    let mut found: Vec<String> =
        fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    let mut expected: Vec<String> = COMMANDS.iter().map(|name| format!("psmdb-aws-iam-{name}.1")).collect();
    expected.push("psmdb-aws-iam.1".to_owned());
    expected.sort();
    assert_eq!(found, expected);
    for name in &expected {
        let page = fs::read_to_string(pages.join(name)).unwrap();
        assert!(page.contains(".SH SYNOPSIS") && page.contains("Exit status"), "{name}: {page}");
        assert!(page.contains("\n.SH NOTES\n.nf\n") && page.contains("\n.fi\n"), "{name}: {page}");
    }

    // A folder that cannot be created.
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let said = run(&mut command(&["manual", file.join("x").to_str().unwrap()])).refused(2);
    assert!(said.contains("cannot write to "), "{said}");
}
