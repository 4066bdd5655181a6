//! Imports go one way: no file of a package uses another one that uses it, directly or not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex_lite::Regex;

use crate::support::root;

/// The folders of sources that are checked.
const PACKAGES: [&str; 3] = ["src", "local-sts/src", "command/src"];

/// The modules of a package that lies in this folder, each with the modules that it uses outside of
/// its tests; the crate's root is the empty name.
fn imports(folder: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let files = files_below(folder);
    let module = |file: &PathBuf| {
        let path = file.strip_prefix(folder).expect("below it").with_extension("");
        let parts: Vec<_> = path.iter().map(|part| part.to_str().expect("UTF-8")).collect();
        let parts = match parts.split_last() {
            Some((&("mod" | "lib" | "main"), parents)) => parents.to_vec(),
            _ => parts,
        };
        parts.join("::")
    };
    let modules: BTreeSet<String> = files.iter().map(module).collect();
    let path = Regex::new(r"\b(crate|super(?:::super)*)::((?:[a-z_0-9]+::)*[a-z_0-9]*)").expect("a pattern");
    let word = Regex::new(r"(?:^|[^:\w])([a-z_0-9]+)::").expect("a pattern");
    let uses = |file: &PathBuf| {
        let text = fs::read_to_string(file).expect("a source");
        let code: Vec<_> = text.lines().take_while(|line| *line != "#[cfg(test)]").collect();
        let code = code.into_iter().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let own = module(file);
        let found = path.captures_iter(&code).map(|found| {
            let up = found[1].matches("super").count();
            let own: Vec<_> = own.split("::").filter(|part| !part.is_empty()).collect();
            let base = if up == 0 { &[][..] } else { &own[..own.len() - up] };
            let named = found[2].split("::").filter(|part| !part.is_empty());
            let mut named: Vec<_> = base.iter().copied().chain(named).collect();
            // What is no module is an item of one.
            while !modules.contains(&named.join("::")) {
                named.pop();
            }
            named.join("::")
        });
        // A module names those inside it without a prefix.
        let inside = word.captures_iter(&code).map(|found| format!("{own}::{}", &found[1]));
        let inside = inside.map(|name| name.trim_start_matches(':').to_owned()).filter(|name| modules.contains(name));
        found.chain(inside).filter(|used| *used != own).collect()
    };
    files.iter().map(|file| (module(file), uses(file))).collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|file| file.extension().is_some_and(|ending| ending == "rs"));
    files.chain(folders.iter().flat_map(|folder| files_below(folder))).collect()
}

/// The modules that are left when those are removed, again and again, that use none of the others.
fn circles(mut imports: BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    loop {
        let before = imports.len();
        let left: BTreeSet<_> = imports.keys().cloned().collect();
        imports.retain(|_, uses| uses.intersection(&left).next().is_some());
        if imports.len() == before {
            return imports;
        }
    }
}

#[test]
fn no_module_uses_one_that_uses_it() {
    for folder in PACKAGES {
        let imports = imports(&root().join(folder));
        assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 10, "{folder}: {imports:#?}");
        let circles = circles(imports);
        assert!(circles.is_empty(), "{folder}: {circles:#?}");
    }
}

#[test]
fn a_circle_is_found() {
    let imports = |pairs: &[(&str, &[&str])]| {
        let set = |uses: &[&str]| uses.iter().map(|used| (*used).to_owned()).collect();
        pairs.iter().map(|(name, uses)| ((*name).to_owned(), set(uses))).collect::<BTreeMap<_, _>>()
    };
    assert!(circles(imports(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])).is_empty());
    let found = circles(imports(&[("a", &["b"]), ("b", &["c"]), ("c", &["b", "d"]), ("d", &[])]));
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
}
