//! What README.md and the pages in `docs/` show is true: each example is run, produced, or compared
//! with the one place that it comes from.
//!
//! An example is a fenced block. The first word after the fence is its language, the second says
//! what it is, and [`KINDS`] says which test looks at it. A new kind of example, a command of the
//! shell that no row of [`SHELL`] knows, and a statement of the database's shell that
//! [`shell::command`] does not know all fail, so that whoever adds one says here how it is kept
//! true.

mod blocks;
mod errors;
mod leak;
mod log_lines;
mod recovery;
mod servers;
mod shell;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

use blocks::{Block, blocks};

/// Where packages and the pages put the object.
const INSTALLED: &str = "/usr/lib/psmdb-aws-iam/libpsmdb_aws_iam.so";

/// What examples are, by language and what they say they are, and the test that looks at them.
const KINDS: [(&str, &str, &str); 18] = [
    ("c", "conversation.c", "text::the_c_example_is_part_of_a_program_that_is_tested"),
    ("dockerfile", "", "servers::a_container_s_file_installs_and_starts_the_server"),
    ("ini", "", "servers::the_environment_of_a_unit_loads_the_plugin"),
    ("js", "", "servers::the_database_s_shell_does_what_is_shown"),
    ("json", "", "text::trust_policies_are_whole"),
    ("python", "", "text::python_is_python"),
    ("sh", "", "shell::every_command_is_run_or_has_a_reason_why_not"),
    ("text", "", "text::other_text_holds_no_line_of_the_log"),
    ("text", "error", "errors::a_login_is_refused_with_the_reasons_that_are_shown"),
    ("text", "log", "log_lines::the_server_writes_the_lines_that_are_shown"),
    ("text", "start", "servers::a_server_that_cannot_start_says_what_is_shown_and_where"),
    ("yaml", "", "servers::a_server_starts_with_each_configuration_and_has_its_values"),
    ("yaml", "community-operator", "servers::a_server_starts_with_each_configuration_and_has_its_values"),
    ("yaml", "kubernetes", "text::manifests_are_laid_out_as_yaml"),
    ("yaml", "percona-operator", "servers::a_server_starts_with_each_configuration_and_has_its_values"),
    ("yaml", "prometheus", "text::metrics_are_named_after_fields_that_are_there"),
    ("yaml", "prometheus-scrape", "text::manifests_are_laid_out_as_yaml"),
    ("yaml", "tls", "servers::options_that_need_certificates_are_known_to_the_server"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and the pages, as paths from the root, with their text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut pages = vec![PathBuf::from("README.md")];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
    pages.sort();
    pages.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The examples of a language that say they are this.
fn examples(language: &str, what: &str) -> Vec<Block> {
    let found: Vec<_> = blocks(&pages()).into_iter().filter(|block| block.is(language, what)).collect();
    assert!(!found.is_empty(), "there is no example of {language} {what}");
    found
}

/// The rows of the tables of a page, each as its cells; the rows of heads and lines are left out.
fn rows(page: &str) -> Vec<Vec<String>> {
    let text = read(page);
    let mut rows = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let head = lines.peek().is_some_and(|next| next.starts_with("|---"));
        if !line.starts_with('|') || line.starts_with("|---") || head {
            continue;
        }
        let cells = line.trim_matches('|').split(" | ");
        rows.push(cells.map(|cell| cell.trim().to_owned()).collect());
    }
    rows
}

/// Says of an example whether it is below this heading, before the next one.
fn section(page: &str, heading: &str) -> impl Fn(&Block) -> bool {
    let text = read(page);
    let headings: Vec<_> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(at, line)| (at + 1, line.to_owned()))
        .collect();
    let at = headings.iter().position(|(_, line)| line.trim_start_matches('#').trim() == heading);
    let at = at.unwrap_or_else(|| panic!("{page} has no heading {heading:?}"));
    let (from, to) = (headings[at].0, headings.get(at + 1).map_or(usize::MAX, |(line, _)| *line));
    let page = PathBuf::from(page);
    move |block| block.file == page && (from..to).contains(&block.line)
}

/// What stands in code quotes in a text.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_example_has_a_test_that_looks_at_it() {
    let sources: String = ["blocks", "errors", "log_lines", "servers", "shell", "text"]
        .map(|name| format!("mod {name} {}", read(format!("tests/integration/docs/{name}.rs"))))
        .concat();
    for (_, _, test) in KINDS {
        let name = test.split("::").last().unwrap();
        assert!(sources.contains(&format!("#[test]\nfn {name}()")), "{test} is not a test");
    }
    for block in blocks(&pages()) {
        let known = KINDS.iter().any(|(language, what, _)| block.is(language, what));
        assert!(known, "{block}: no test looks at an example of this kind: {:?} {:?}", block.language, block.what);
    }
}
