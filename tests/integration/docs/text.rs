//! What can be compared by reading.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use bson::{Bson, Document, doc};
use psmdb_aws_iam::aws::PARTITIONS;
use psmdb_aws_iam::denial::{Cause, Kind};
use psmdb_aws_iam::parameters::{self, PARAMETERS};
use psmdb_aws_iam::settings::Store;
use serde_json::Value;

use super::{blocks, examples, pages, quoted, read, root, rows};
use crate::support::mongod::Mongod;

#[test]
fn the_table_of_parameters_has_every_parameter_with_its_default() {
    let store = Store::default();
    let expected: BTreeMap<_, _> =
        PARAMETERS.iter().map(|parameter| (parameter.name.to_owned(), store.text(parameter))).collect();
    let mut shown = BTreeMap::new();
    for row in rows("docs/configure.md").iter().filter(|row| row.len() == 5) {
        let name = row[0].trim_matches('`').to_owned();
        // "empty" and "empty: all" are words.
        let default = if row[1].starts_with("empty") { "" } else { row[1].trim_matches('`') };
        assert!(shown.insert(name.clone(), default.to_owned()).is_none(), "{name} is there twice");
    }
    assert_eq!(shown, expected);
}

/// A value that a server started with others gets at runtime, for each parameter: the table says
/// which it may get.
#[test]
fn the_table_of_parameters_says_which_take_any_value_at_runtime() {
    let mut checked = 0;
    for row in rows("docs/configure.md").iter().filter(|row| row.len() == 5) {
        let name = row[0].trim_matches('`');
        let (at_startup, other) = match name {
            "awsStsHost" | "awsStsFallbackHosts" => ("sts.eu-west-1.amazonaws.com", "sts.eu-west-2.amazonaws.com"),
            "awsStsEndpoint" => ("https://10.0.0.1", "https://10.0.0.2"),
            "awsStsCAFile" => ("", "/etc/ssl/certs/ca-certificates.crt"),
            "awsStsTimeoutMS" => ("1000", "2000"),
            "awsStsProxy" => ("http://10.0.0.1:3128", "http://10.0.0.2:3128"),
            "awsIamRoleUserFormat" => ("iamRole", "assumedRole"),
            "awsIamAllowedAccounts" => ("123456789012", "210987654321"),
            other => panic!("{other} has no values here"),
        };
        let store = Store::default();
        let parameter = parameters::find(name).unwrap();
        store.set_text(parameter, at_startup).unwrap();
        store.complete_startup();
        let set = store.set_text(parameter, other);
        assert_eq!(set.is_ok(), row[4] == "any value", "{name}: {set:?}, and the page says: {}", row[4]);
        assert!(row[4] == "any value" || row[4].contains("at startup") || row[4].contains("startup value"), "{name}");
        store.set_text(parameter, at_startup).unwrap();
        checked += 1;
    }
    assert_eq!(checked, PARAMETERS.len());
}

#[test]
fn the_table_of_partitions_has_every_partition_with_its_hosts() {
    let expected: Vec<_> = PARTITIONS
        .iter()
        .map(|it| {
            let regions =
                if it.region_prefix.is_empty() { "all others".to_owned() } else { format!("`{}*`", it.region_prefix) };
            let fips = match it.fips_regions {
                [] => "none".to_owned(),
                some => format!("`{}.REGION.{}` in `{}`", it.fips_label, it.suffix, some.join("`, `")),
            };
            let dual_stack = format!("`sts.REGION.{}`", it.dual_stack_suffix);
            [format!("`{}`", it.id), regions, format!("`{}`", it.sts_host("REGION")), dual_stack, fips]
        })
        .collect();
    let rows = rows("docs/networks.md").into_iter().filter(|row| row.len() == 5);
    let shown: Vec<_> = rows
        .map(|mut row| {
            // A name for readers may follow.
            row[0] = row[0].split(" (").next().unwrap().to_owned();
            <[String; 5]>::try_from(row).unwrap()
        })
        .collect();
    assert_eq!(shown, expected);
}

#[test]
fn names_that_look_like_parameters_are_parameters() {
    let known: BTreeSet<_> = PARAMETERS.iter().map(|parameter| parameter.name).collect();
    for (path, text) in pages() {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("awsSts") || word.starts_with("awsIam") && *word != "awsIam") {
            // comparison.md and migrating.md name one of Percona's too.
            assert!(known.contains(word), "{}: {word} is not a parameter", path.display());
        }
    }
}

fn leaves(prefix: &str, document: &Document, found: &mut BTreeSet<String>) {
    for (name, value) in document {
        match value {
            Bson::Document(inner) => leaves(&format!("{prefix}{name}."), inner, found),
            _ => drop(found.insert(format!("{prefix}{name}"))),
        }
    }
}

/// Every field of the section awsIam on a real server, as "logins.started".
fn fields() -> BTreeSet<String> {
    let mongod = Mongod::builder().start();
    let status = mongod.run_as_admin("admin", doc! { "serverStatus": 1 });
    let mut found = BTreeSet::new();
    leaves("", status.get_document("awsIam").expect("the section"), &mut found);
    found
}

#[test]
fn the_table_of_fields_has_every_field_that_the_server_shows_and_no_other() {
    let mut shown = BTreeSet::new();
    for row in rows("docs/monitoring.md")
        .iter()
        .filter(|row| row[0].starts_with('`') && row.len() == 2 && !row[0].contains(' ') || row[0].contains("`, `"))
    {
        for name in quoted(&row[0]) {
            // The buckets of a histogram, whose bounds are in the other cell.
            match name.strip_suffix("BOUND") {
                Some(start) => shown.extend(quoted(&row[1]).iter().map(|bound| format!("{start}{bound}"))),
                None => drop(shown.insert(name.to_owned())),
            }
        }
    }
    // These two are documents, whose fields are in the table of denied logins.
    assert!(shown.remove("logins.denied") && shown.remove("logins.reasons"));
    for (kind, reasons) in denied_logins() {
        shown.insert(format!("logins.denied.{kind}"));
        shown.extend(reasons.iter().map(|reason| format!("logins.reasons.{reason}")));
    }
    assert_eq!(shown, fields());
}

/// The table of denied logins: each kind, with the reasons that are counted in it.
fn denied_logins() -> Vec<(String, Vec<String>)> {
    let names = |cell: &str| quoted(cell).into_iter().map(str::to_owned).collect::<Vec<_>>();
    rows("docs/monitoring.md")
        .iter()
        .filter(|row| row.len() == 3 && row[2].starts_with('`'))
        .map(|row| (names(&row[0]).concat(), names(&row[2])))
        .collect()
}

#[test]
fn the_table_of_denied_logins_has_each_reason_with_its_kind() {
    let reasons = |kind| Cause::ALL.into_iter().filter(move |(cause, _)| cause.kind() == kind);
    let expected: Vec<_> = Kind::ALL
        .into_iter()
        .map(|(kind, name)| {
            (name.as_str().to_owned(), reasons(kind).map(|(_, name)| name.as_str().to_owned()).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(denied_logins(), expected);
}

#[test]
fn metrics_are_named_after_fields_that_are_there() {
    let metrics: BTreeSet<_> =
        fields().iter().map(|field| format!("mongodb_ss_awsIam_{}", field.replace('.', "_"))).collect();
    let mut named = 0;
    for (path, text) in pages() {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("mongodb_ss_awsIam_") && !word.ends_with('_')) {
            assert!(metrics.contains(word), "{}: {word} is made from no field", path.display());
            named += 1;
        }
    }
    assert!(named > 3);
    for block in examples("yaml", "prometheus") {
        assert_is_laid_out(&block.text, &block.to_string());
    }
}

/// The heading's anchor as GitHub makes it: lower case, without punctuation, spaces as hyphens.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

fn anchors(path: &Path) -> BTreeSet<String> {
    let text = read(path);
    let mut in_block = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        if !in_block && line.starts_with('#') {
            let anchor = anchor(line.trim_start_matches('#').trim());
            assert!(found.insert(anchor.clone()), "{}: two headings are #{anchor}", path.display());
        }
    }
    found
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let mut files: Vec<_> = pages().into_iter().map(|(path, _)| path).collect();
    files.extend(["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(PathBuf::from));
    let mut checked = 0;
    for file in &files {
        let text = read(file);
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("https://") {
                continue;
            }
            let (target, heading) = link.split_once('#').unwrap_or((link, ""));
            let path = if target.is_empty() { file.clone() } else { file.parent().unwrap().join(target) };
            assert!(root().join(&path).exists(), "{}: {link} leads nowhere", file.display());
            if !heading.is_empty() {
                // CHANGELOG repeats its headings.
                let there = path.ends_with("CHANGELOG.md") || anchors(&path).contains(heading);
                assert!(there, "{}: {link}: there is no such heading", file.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 50);
}

#[test]
fn the_index_lists_every_page() {
    let index = read("docs/README.md");
    for (path, _) in pages().iter().filter(|(path, _)| path.starts_with("docs") && !path.ends_with("README.md")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(index.contains(&format!("| [{name}]({name}) |")), "docs/README.md does not list {name}");
    }
}

#[test]
fn trust_policies_are_whole() {
    for block in examples("json", "") {
        let policy: Value = serde_json::from_str(&block.text).unwrap_or_else(|error| panic!("{block}: {error}"));
        assert_eq!(policy["Version"], "2012-10-17", "{block}");
        for statement in policy["Statement"].as_array().unwrap() {
            assert_eq!(statement["Effect"], "Allow", "{block}");
            for member in ["Principal", "Action"] {
                assert!(!statement[member].is_null(), "{block}: no {member}");
            }
            if statement["Action"] == "sts:AssumeRoleWithWebIdentity" {
                let condition = statement["Condition"]["StringEquals"].as_object().unwrap();
                assert!(condition.keys().any(|key| key.ends_with(":sub")), "{block}: every pod could assume the role");
            }
        }
    }
}

#[test]
fn python_is_python() {
    for block in examples("python", "") {
        let output = Command::new("python3")
            .args(["-c", "import sys; compile(sys.argv[1], 'example', 'exec')", &block.text])
            .output()
            .unwrap();
        assert!(output.status.success(), "{block}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A small part of YAML: keys, list items, and texts that were begun by a bar. Tabs and odd
/// indentation are refused.
fn assert_is_laid_out(text: &str, place: &str) {
    let mut literal: Option<usize> = None;
    let mut deepest = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
        let depth = line.len() - line.trim_start_matches(' ').len();
        if literal.is_some_and(|outer| depth > outer) {
            continue;
        }
        literal = None;
        let content = line.trim_start();
        let item = content.strip_prefix("- ").unwrap_or(content);
        assert!(depth % 2 == 0 && depth <= deepest + 2, "{place}: odd indentation: {line}");
        let (key, value) = item.split_once(':').unwrap_or_else(|| panic!("{place}: no key: {line}"));
        assert!(!key.contains(' ') && (value.is_empty() || value.starts_with(' ')), "{place}: {line}");
        deepest = depth + content.len() - item.len();
        if value.trim() == "|" {
            literal = Some(depth);
        }
    }
}

#[test]
fn manifests_are_laid_out_as_yaml() {
    for what in ["kubernetes", "prometheus-scrape", "percona-operator", "community-operator"] {
        for block in examples("yaml", what) {
            assert_is_laid_out(&block.text, &block.to_string());
        }
    }
}

#[test]
fn other_text_holds_no_line_of_the_log() {
    for block in blocks(&pages()).iter().filter(|block| block.is("text", "")) {
        let log = block.text.contains("\"id\":") || block.text.contains("MONGODB-AWS:");
        assert!(!log, "{block}: a line of the log is an example of the kind `text log` or `text error`");
    }
}

#[test]
fn the_c_example_is_part_of_a_program_that_is_tested() {
    for block in examples("c", "conversation.c") {
        let program = read("tests/c_abi/conversation.c");
        assert!(program.contains(&block.text), "{block}: tests/c_abi/conversation.c has no such lines");
    }
}

#[test]
fn the_page_about_the_c_abi_names_what_the_header_declares() {
    let names = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let ours = |word: &&str| word.to_ascii_lowercase().starts_with("psmdb_aws_iam_") && !word.ends_with("_H");
        words.filter(ours).map(str::to_owned).collect()
    };
    let header = names(&read("include/psmdb_aws_iam.h"));
    let page = names(&read("docs/c-abi.md"));
    let of_lengths = |name: &&String| !matches!(name.as_str(), "psmdb_aws_iam_result");
    let missing: Vec<_> = header.difference(&page).filter(of_lengths).collect();
    assert!(missing.is_empty(), "docs/c-abi.md does not name {missing:?}");
    let unknown: Vec<_> = page.difference(&header).collect();
    assert!(unknown.is_empty(), "the header does not declare {unknown:?}");
}
