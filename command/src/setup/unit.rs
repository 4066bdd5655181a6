//! A server's systemd unit with its drop-ins and environment files: its command line, its user, and
//! the preloaded objects.
//!
//! Source: systemd.unit(5), systemd.service(5), systemd.exec(5).

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::config;
use super::object::User;
use super::system::{Root, read};
use crate::output::shown;

/// The folders in which systemd searches units, in order of precedence.
const FOLDERS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// The units of the servers' packages.
const NAMES: [&str; 3] = ["mongod", "mongos", "mongodb"];

/// The variable that makes the loader preload objects.
pub const LD_PRELOAD: &str = "LD_PRELOAD";

/// The file name of the drop-in that this command prints.
pub const DROP_IN: &str = "psmdb-aws-iam.conf";

/// A line of a file, with the file's path on the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: PathBuf,
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of {}", self.line, self.file.display())
    }
}

/// An assignment in the section `[Service]`.
#[derive(Debug)]
struct Directive {
    key: String,
    value: String,
    place: Place,
}

/// A variable's value, and the place that sets it.
#[derive(Clone, Debug)]
pub struct Variable {
    pub value: String,
    pub place: Place,
}

/// The LD_PRELOAD that results from all files of the unit.
#[derive(Debug, Default)]
pub struct Preload {
    /// The effective assignment.
    pub assigned: Option<Variable>,
    /// The place that removes LD_PRELOAD from the environment.
    pub removed: Option<Place>,
    /// The last empty `Environment=`, which discards those before it.
    pub reset: Option<Place>,
    /// The place that passes systemd's own LD_PRELOAD, which any assignment overrides.
    pub passed: Option<Place>,
}

/// The command line of the unit.
#[derive(Debug, Default)]
pub struct Start {
    /// The server's path on the system; `None` if the command line does not contain it.
    pub server: Option<PathBuf>,
    /// The configuration file on the command line.
    pub config: Option<PathBuf>,
    /// The mechanisms on the command line, which override those of the file.
    pub mechanisms: Option<Variable>,
    /// An LD_PRELOAD on the command line, which overrides that of the environment.
    preload: Option<Variable>,
}

/// A unit with its drop-ins.
pub struct Unit {
    /// Without `.service`.
    pub name: String,
    /// The names and paths of its file and its drop-ins, in the order in which they apply.
    sources: Vec<(String, PathBuf)>,
    root: Root,
}

impl Unit {
    /// The unit with the given name, else that of this server, else the first one.
    ///
    /// # Errors
    /// When the given unit does not exist, or there are only templates.
    pub fn find(root: &Root, named: Option<&str>, server: Option<&Path>) -> Result<Option<Self>, String> {
        if let Some(name) = named {
            let name = name.strip_suffix(".service").unwrap_or(name);
            let is_name = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
            if name.is_empty() || !name.chars().all(is_name) {
                return Err(format!("--unit: {name:?} must be a name such as mongod"));
            }
            let found = Self::read(root, name)?;
            return found.map(Some).ok_or_else(|| format!("--unit: {name}.service does not exist, or is masked"));
        }
        let wanted = server.and_then(Path::file_name).and_then(|name| name.to_str());
        let mut names = NAMES;
        names.sort_by_key(|name| wanted != Some(name));
        for name in names {
            if let Some(found) = Self::read(root, name)? {
                return Ok(Some(found));
            }
        }
        for name in names {
            if FOLDERS.iter().any(|folder| root.0.join(folder).join(format!("{name}@.service")).exists()) {
                return Err(format!("{name}@.service is a template: give the instance, as --unit {name}@NAME"));
            }
        }
        Ok(None)
    }

    fn read(root: &Root, name: &str) -> Result<Option<Self>, String> {
        let template = name.split_once('@').map(|(prefix, _)| format!("{prefix}@"));
        let names: Vec<&str> = [Some(name), template.as_deref()].into_iter().flatten().collect();
        let file = names
            .iter()
            .flat_map(|name| FOLDERS.map(|folder| Path::new("/").join(folder).join(format!("{name}.service"))));
        let mut main = None;
        for path in file {
            if let Some(text) = text_of(root, &path)? {
                main = Some((path, text));
                break;
            }
        }
        // An empty file masks the unit.
        let Some((path, _)) = main.filter(|(_, text)| !text.trim().is_empty()) else { return Ok(None) };
        let mut sources = vec![(String::new(), path)];
        sources.extend(drop_ins(root, &names)?);
        Ok(Some(Self { name: name.to_owned(), sources, root: root.clone() }))
    }

    /// The path of the drop-in that this command prints.
    pub fn drop_in(&self) -> PathBuf {
        Path::new("/etc/systemd/system").join(format!("{}.service.d", self.name)).join(DROP_IN)
    }

    /// The assignments of all files in order, with this text as the drop-in of this command.
    fn directives(&self, drop_in: Option<&str>) -> Result<Vec<Directive>, String> {
        let mut sources = self.sources.clone();
        if drop_in.is_some() {
            sources.retain(|(name, _)| name != DROP_IN);
            sources.push((DROP_IN.to_owned(), self.drop_in()));
            sources.sort();
        }
        let mut directives = Vec::new();
        for (name, path) in &sources {
            match drop_in {
                Some(text) if name == DROP_IN => directives.extend(parse(text, path)?),
                _ => directives.extend(parse(&text_of(&self.root, path)?.unwrap_or_default(), path)?),
            }
        }
        Ok(directives)
    }

    /// The effective LD_PRELOAD, with this text as the drop-in of this command.
    ///
    /// # Errors
    /// When a file cannot be read or parsed.
    pub fn preload(&self, drop_in: Option<&str>) -> Result<Preload, String> {
        let directives = self.directives(drop_in)?;
        let (mut variables, reset) = self.environment(&directives)?;
        let assigned = self.start_of(&directives, &variables)?.preload.or_else(|| variables.remove(LD_PRELOAD));
        let words = |key: &str| -> Result<Vec<(String, Place)>, String> {
            let mut all = Vec::new();
            for directive in directives.iter().filter(|directive| directive.key == key) {
                if directive.value.is_empty() {
                    all.clear();
                }
                all.extend(self.words(directive)?.into_iter().map(|word| (word, directive.place.clone())));
            }
            Ok(all)
        };
        let value = assigned.as_ref().map(|assigned| format!("{LD_PRELOAD}={}", assigned.value));
        let removes = |word: &str| word == LD_PRELOAD || Some(word) == value.as_deref();
        Ok(Preload {
            removed: words("UnsetEnvironment")?.into_iter().find(|(word, _)| removes(word)).map(|(_, place)| place),
            passed: words("PassEnvironment")?.into_iter().find(|(word, _)| word == LD_PRELOAD).map(|(_, place)| place),
            assigned: assigned.filter(|assigned| !assigned.value.is_empty() || drop_in.is_some()),
            reset,
        })
    }

    /// The command line.
    ///
    /// # Errors
    /// When a file cannot be read or parsed.
    pub fn start(&self) -> Result<Start, String> {
        let directives = self.directives(None)?;
        let (variables, _) = self.environment(&directives)?;
        self.start_of(&directives, &variables)
    }

    /// The user that runs the server, and its groups, from passwd and group of this root.
    ///
    /// # Errors
    /// When a file cannot be read or parsed.
    pub fn user(&self) -> Result<User, String> {
        let directives = self.directives(None)?;
        let last = |key: &str| {
            let found = directives.iter().rfind(|directive| directive.key == key);
            found.map(|directive| self.specified(&directive.value)).filter(|value| !value.is_empty())
        };
        let Some(name) = last("User") else {
            return Ok(User { name: "root".to_owned(), id: Some(0), groups: Vec::new() });
        };
        let table = |path: &str| text_of(&self.root, Path::new(path)).map(Option::unwrap_or_default);
        let (users, groups) = (table("/etc/passwd")?, table("/etc/group")?);
        let row = |table: &str, name: &str| -> Option<Vec<String>> {
            let mut rows = table.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
            rows.find(|row| row.len() > 3 && (row[0] == name || row[2] == name))
        };
        let user = row(&users, &name);
        let mut ids: Vec<String> = groups
            .lines()
            .filter_map(|line| {
                let row: Vec<_> = line.split(':').collect();
                (row.len() > 3 && row[3].split(',').any(|member| member == name)).then(|| row[2].to_owned())
            })
            .collect();
        let id_of_group = |group: &str| row(&groups, group).map_or_else(|| group.to_owned(), |row| row[2].clone());
        ids.extend(last("Group").map(|group| id_of_group(&group)).or_else(|| user.as_ref().map(|row| row[3].clone())));
        ids.extend(last("SupplementaryGroups").iter().flat_map(|groups| groups.split_whitespace()).map(id_of_group));
        let id = user.map_or_else(|| name.parse().ok(), |row| row[2].parse().ok());
        Ok(User { name, id, groups: ids.iter().filter_map(|id| id.parse().ok()).collect() })
    }

    /// The variables, and the place of the last empty `Environment=`.
    fn environment(&self, directives: &[Directive]) -> Result<(HashMap<String, Variable>, Option<Place>), String> {
        let (mut variables, mut files, mut reset) = (HashMap::new(), Vec::new(), None);
        for directive in directives {
            match directive.key.as_str() {
                "Environment" if directive.value.is_empty() => {
                    variables.clear();
                    reset = Some(directive.place.clone());
                }
                "Environment" => {
                    for word in self.words(directive)? {
                        if let Some((name, value)) = word.split_once('=') {
                            let variable = Variable { value: value.to_owned(), place: directive.place.clone() };
                            variables.insert(name.to_owned(), variable);
                        }
                    }
                }
                "EnvironmentFile" if directive.value.is_empty() => files.clear(),
                "EnvironmentFile" => files.push(directive),
                _ => {}
            }
        }
        // systemd reads them last, so they override Environment=.
        for directive in files {
            let value = self.specified(&directive.value);
            let (path, is_optional) = value.strip_prefix('-').map_or((&*value, false), |path| (path, true));
            let why = if path.contains(['*', '?', '[']) {
                "patterns are not supported"
            } else if path.contains('%') {
                "its specifier is not supported"
            } else if !path.starts_with('/') {
                "it must be an absolute path"
            } else {
                match text_of(&self.root, Path::new(path))? {
                    Some(text) => {
                        variables.extend(parse_environment(&text, Path::new(path)));
                        continue;
                    }
                    None if is_optional => continue,
                    None => "the file does not exist, so systemd cannot start the unit",
                }
            };
            return Err(format!("{}: EnvironmentFile={}: {why}", directive.place, directive.value));
        }
        Ok((variables, reset))
    }

    fn start_of(&self, directives: &[Directive], variables: &HashMap<String, Variable>) -> Result<Start, String> {
        let start = directives.iter().rfind(|directive| directive.key == "ExecStart" && !directive.value.is_empty());
        let Some(start) = start else { return Err(format!("the unit {} has no ExecStart", self.name)) };
        let mut words = Vec::new();
        for word in self.words(start)? {
            let value = |name: &str| variables.get(name).map_or("", |variable| variable.value.as_str());
            match word.strip_prefix('$').filter(|name| is_name(name)) {
                // A variable that is a whole word may expand to several.
                Some(name) => words.extend(split(value(name)).map_err(|why| format!("${name}: {why}"))?),
                None => words.push(substituted(&word, &value)),
            }
        }
        // Prefixes of ExecStart.
        if let Some(first) = words.first_mut() {
            *first = first.trim_start_matches(['@', '-', ':', '+', '!', '|']).to_owned();
        }
        if !words.iter().any(|word| is_server(word)) {
            // The server may be in a shell command: bash -c "... mongod $OPTIONS > FILE".
            let mut inner = Vec::new();
            for word in words {
                let parts = split(&word).unwrap_or_default();
                if parts.iter().any(|part| is_server(part)) { inner.extend(parts) } else { inner.push(word) }
            }
            words = inner;
        }
        // Another program, such as numactl or env, may start the server.
        let Some(at) = words.iter().position(|word| is_server(word)) else { return Ok(Start::default()) };
        let preload = words[..at].iter().filter_map(|word| word.strip_prefix("LD_PRELOAD=")).next_back();
        let here = |value: &str| Variable { value: value.trim_end_matches(';').to_owned(), place: start.place.clone() };
        let mut found =
            Start { server: Some(PathBuf::from(&words[at])), preload: preload.map(here), ..Start::default() };
        let mut options = words[at + 1..].iter().take_while(|word| ![";", "&&", "||", "|", "&"].contains(&&***word));
        while let Some(option) = options.next() {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ if option.len() > 2 && option.starts_with("-f") => ("-f", Some(option[2..].to_owned())),
                _ => (option.as_str(), None),
            };
            if !["-f", "--config", "--setParameter"].contains(&name) {
                continue;
            }
            let value = value.or_else(|| options.next().cloned()).unwrap_or_default();
            if name != "--setParameter" {
                if !value.starts_with('/') || value.contains(|c: char| c.is_control() || "%$`".contains(c)) {
                    return Err(format!(
                        "{}: the configuration file {value:?} must be an absolute path without variables: give --config",
                        start.place
                    ));
                }
                found.config = Some(PathBuf::from(value));
            } else if let Some(list) = value.strip_prefix(config::MECHANISMS).and_then(|rest| rest.strip_prefix('=')) {
                // The option may come from a variable.
                let wanted = format!("{}={list}", config::MECHANISMS);
                let place = variables.values().find(|variable| variable.value.contains(&wanted));
                let place = place.map_or(&start.place, |variable| &variable.place).clone();
                found.mechanisms = Some(Variable { value: list.to_owned(), place });
            }
        }
        Ok(found)
    }

    fn words(&self, directive: &Directive) -> Result<Vec<String>, String> {
        let words = split(&directive.value).map_err(|why| format!("{}: {why}", directive.place))?;
        Ok(words.iter().map(|word| self.specified(word)).collect())
    }

    /// The text with specifiers of the unit's name expanded. Others are kept.
    fn specified(&self, text: &str) -> String {
        let (prefix, instance) = self.name.split_once('@').unwrap_or((&self.name, ""));
        let mut specified = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            specified.push_str(&rest[..at]);
            let end = rest[at + 1..].chars().next().map_or(at + 1, |c| at + 1 + c.len_utf8());
            match &rest[at..end] {
                "%%" => specified.push('%'),
                "%i" => specified.push_str(instance),
                // An escaped name would have to be unescaped.
                "%I" if !instance.contains(['-', '\\']) => specified.push_str(instance),
                "%p" => specified.push_str(prefix),
                "%N" => specified.push_str(&self.name),
                "%n" => specified.push_str(&format!("{}.service", self.name)),
                other => specified.push_str(other),
            }
            rest = &rest[end..];
        }
        specified + rest
    }
}

/// The text of a file of the system: `None` if it does not exist, empty if it is masked.
fn text_of(root: &Root, path: &Path) -> Result<Option<String>, String> {
    let there = root.resolve(path);
    if there.canonicalize().is_ok_and(|real| real == Path::new("/dev/null")) {
        return Ok(Some(String::new()));
    }
    read(&there)
}

/// The drop-ins of a unit with these names, sorted by file name. Of two with one name, the first
/// counts.
fn drop_ins(root: &Root, names: &[&str]) -> Result<Vec<(String, PathBuf)>, String> {
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    // Those for all services have the lowest precedence.
    let names = names.iter().map(|name| format!("{name}.service.d")).chain(["service.d".to_owned()]);
    for folder in names.flat_map(|name| FOLDERS.map(|folder| Path::new("/").join(folder).join(&name))) {
        let cannot = |error| format!("cannot read {}: {error}", folder.display());
        let entries = match fs::read_dir(root.resolve(&folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(cannot(error)),
        };
        for entry in entries {
            let name = entry.map_err(cannot)?.file_name();
            let name =
                name.to_str().ok_or_else(|| format!("{} contains a file whose name is not UTF-8", folder.display()))?;
            if name.contains(char::is_control) {
                return Err(format!("{} contains a file with a control character in its name", folder.display()));
            }
            if name.ends_with(".conf") && found.iter().all(|(other, _)| other != name) {
                found.push((name.to_owned(), folder.join(name)));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The assignments in `[Service]`.
fn parse(text: &str, file: &Path) -> Result<Vec<Directive>, String> {
    let mut directives = Vec::new();
    let (mut in_service, mut continued) = (false, None::<(usize, String)>);
    // The end of the file ends a continued line too.
    for (number, line) in (1..).zip(text.lines().chain([""])) {
        let line = line.trim_start();
        if line.starts_with(['#', ';']) {
            continue;
        }
        let (number, mut whole) = continued.take().unwrap_or((number, String::new()));
        let slashes = line.len() - line.trim_end_matches('\\').len();
        if slashes % 2 == 1 {
            whole.push_str(&line[..line.len() - 1]);
            whole.push(' ');
            continued = Some((number, whole));
            continue;
        }
        whole.push_str(line);
        let whole = whole.trim();
        let place = Place { file: file.to_owned(), line: number };
        if whole.starts_with('[') {
            if !whole.ends_with(']') {
                return Err(format!("{place} must be a section in brackets: {}", shown(whole)));
            }
            in_service = whole == "[Service]";
        } else if in_service && !whole.is_empty() {
            let Some((key, value)) = whole.split_once('=') else {
                return Err(format!("{place} must be an assignment, KEY=VALUE: {}", shown(whole)));
            };
            directives.push(Directive { key: key.trim().to_owned(), value: value.trim().to_owned(), place });
        }
    }
    Ok(directives)
}

/// The variables of an environment file. Lines that systemd ignores are ignored.
fn parse_environment(text: &str, file: &Path) -> Vec<(String, Variable)> {
    let mut variables = Vec::new();
    let mut rest = text.chars().peekable();
    let mut line = 1;
    while let Some(&first) = rest.peek() {
        if first.is_whitespace() {
            line += usize::from(first == '\n');
            rest.next();
            continue;
        }
        let start = line;
        let is_comment = matches!(first, '#' | ';');
        // A line without "=" has no value; a backslash continues a comment.
        let (mut name, mut has_value) = (String::new(), false);
        while let Some(c) = rest.next() {
            match c {
                '\n' => {
                    line += 1;
                    break;
                }
                '\\' if is_comment => line += usize::from(rest.next() == Some('\n')),
                '=' if !is_comment => {
                    has_value = true;
                    break;
                }
                _ => name.push(c),
            }
        }
        if !has_value {
            continue;
        }
        // Trailing spaces count only if they are quoted or escaped.
        let (mut value, mut kept, mut quote, mut is_begun) = (String::new(), 0, None, false);
        while let Some(c) = rest.next() {
            line += usize::from(c == '\n');
            match (quote, c) {
                (Some(open), _) if c == open => (quote, is_begun, kept) = (None, false, value.len()),
                (Some('"'), '\\') => match rest.next() {
                    Some('\n') => line += 1,
                    Some(c @ ('"' | '\\' | '`' | '$')) => value.push(c),
                    Some(c) => value.extend(['\\', c]),
                    None => {}
                },
                (Some(_), _) => value.push(c),
                (None, '\n') => break,
                (None, '\\') => match rest.next() {
                    Some('\n') => line += 1,
                    Some(c) => {
                        value.push(c);
                        (is_begun, kept) = (true, value.len());
                    }
                    None => {}
                },
                (None, '"' | '\'') if !is_begun => quote = Some(c),
                (None, _) if c.is_whitespace() && !is_begun => {}
                (None, _) => {
                    value.push(c);
                    is_begun = true;
                    if !c.is_whitespace() {
                        kept = value.len();
                    }
                }
            }
        }
        value.truncate(kept.max(if quote.is_some() { value.len() } else { 0 }));
        let place = Place { file: file.to_owned(), line: start };
        variables.push((name.trim().to_owned(), Variable { value, place }));
    }
    variables
}

fn is_server(word: &str) -> bool {
    word.starts_with('/') && matches!(word.rsplit('/').next(), Some("mongod" | "mongos"))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The word with `${NAME}` replaced by values, and `$$` by `$`.
fn substituted<'a>(word: &str, value: &impl Fn(&str) -> &'a str) -> String {
    let mut text = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}')).filter(|(name, _)| is_name(name));
        if let Some((name, behind)) = braced {
            text.push_str(value(name));
            rest = behind;
        } else {
            text.push('$');
            rest = after.strip_prefix('$').unwrap_or(after);
        }
    }
    text + rest
}

/// The words of a text, split as systemd does.
fn split(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if quote == Some(c) {
            quote = None;
        } else if c == '\\' {
            let escaped = rest.next().ok_or("it ends in a backslash")?;
            let meant = match escaped {
                's' => ' ',
                't' => '\t',
                'n' => '\n',
                '"' | '\'' | '\\' | ' ' | '$' | ';' | '%' => escaped,
                _ => return Err(format!("the escape \\{escaped} is not supported")),
            };
            word.get_or_insert_default().push(meant);
        } else if quote.is_none() && matches!(c, '"' | '\'') {
            quote = Some(c);
            word.get_or_insert_default();
        } else if quote.is_none() && c.is_whitespace() {
            words.extend(word.take());
        } else {
            word.get_or_insert_default().push(c);
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}
