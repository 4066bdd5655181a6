//! The authenticationMechanisms of a server's configuration file, read as mongod does.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, StrInput};

use crate::output::shown;

/// The name of the parameter that lists the mechanisms.
pub const MECHANISMS: &str = "authenticationMechanisms";

/// The format of a configuration file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// YAML, or empty.
    #[default]
    Yaml,
    /// The older `name = value` lines.
    Ini,
}

/// The relevant content of a configuration file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Its format.
    pub style: Style,
    /// The mechanisms in it; `None` if it does not set them.
    pub mechanisms: Option<Vec<String>>,
}

impl Config {
    /// Reads the text of a configuration file.
    ///
    /// # Errors
    /// When mongod 6.0 would refuse it, or the list comes from elsewhere.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (style, listed) = if lines().next().is_some() && lines().all(is_ini_line) {
            (Style::Ini, in_ini(lines())?)
        } else {
            (Style::Yaml, in_yaml(text)?)
        };
        Ok(Self { style, mechanisms: listed.as_deref().map(mechanisms).transpose()? })
    }
}

/// The names in a list of mechanisms.
///
/// # Errors
/// When it is empty, or an entry is not a valid name.
pub fn mechanisms(list: &str) -> Result<Vec<String>, String> {
    if list.trim().is_empty() {
        return Err(format!(
            "{MECHANISMS} is empty: it must list the mechanisms of your users, or be removed for the default"
        ));
    }
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    list.split(',')
        .map(str::trim)
        .map(|name| {
            if is_name(name) {
                Ok(name.to_owned())
            } else {
                Err(format!("{MECHANISMS} has {name:?}, which is not the name of a mechanism"))
            }
        })
        .collect()
}

/// Whether a line is `name = value`. In a YAML configuration, mongod accepts no such line.
fn is_ini_line(line: &str) -> bool {
    line.split_once('=').is_some_and(|(name, _)| {
        let name = name.trim_end();
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    })
}

fn in_ini<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Option<String>, String> {
    let assignments = lines.filter_map(|line| line.split('#').next()?.split_once('='));
    let parameters = assignments.filter(|(name, _)| name.trim() == "setParameter").map(|(_, value)| value);
    let mut lists =
        parameters.filter_map(|parameter| parameter.split_once('=')).filter(|(name, _)| name.trim() == MECHANISMS);
    let list = lists.next().map(|(_, list)| list.to_owned());
    if lists.next().is_some() { Err(format!("it sets {MECHANISMS} twice, which mongod refuses")) } else { Ok(list) }
}

fn in_yaml(text: &str) -> Result<Option<String>, String> {
    let Some(top) = Reader { parser: Parser::new_from_str(text), anchors: HashMap::new() }.first_document()? else {
        return Ok(None);
    };
    let top = match &*top {
        Node::Map(top) => top,
        Node::Scalar(text) if matches!(&**text, "" | "~" | "null") => return Ok(None),
        _ => return Err("it must be a YAML map, or lines of name = value".to_owned()),
    };
    expect_no_directive(top, "the file")?;
    if top.keys().any(|key| key.starts_with("setParameter.")) {
        return Err("it has a dotted name that begins with setParameter, which mongod refuses: use a map".to_owned());
    }
    let Some(parameters) = top.get("setParameter") else { return Ok(None) };
    let Node::Map(parameters) = &**parameters else {
        return Err("setParameter must be a map".to_owned());
    };
    expect_no_directive(parameters, "setParameter")?;
    let is_other = |name: &str, value: &Node| name != MECHANISMS && !matches!(value, Node::Scalar(_));
    if let Some((name, _)) = parameters.iter().find(|(name, value)| is_other(name, value)) {
        return Err(format!("setParameter: the value of {} must not be a list or a map", shown(name)));
    }
    match parameters.get(MECHANISMS).map(|list| &**list) {
        None => Ok(None),
        Some(Node::Scalar(list)) => Ok(Some(list.to_owned())),
        Some(Node::Map(list)) => {
            expect_no_directive(list, MECHANISMS)?;
            Err(format!("{MECHANISMS} must be one string of comma-separated names, not a map"))
        }
        Some(Node::List) => Err(format!("{MECHANISMS} must be one string of comma-separated names, not a YAML list")),
    }
}

/// Checks that mongod does not get the value from elsewhere.
fn expect_no_directive(map: &BTreeMap<String, Rc<Node>>, what: &str) -> Result<(), String> {
    match ["__exec", "__rest"].iter().find(|name| map.contains_key(**name)) {
        Some(name) => Err(format!(
            "{what} has {name}, so mongod gets the value, with its {MECHANISMS}, from elsewhere: add MONGODB-AWS to \
             them there"
        )),
        None => Ok(()),
    }
}

/// The relevant content of a YAML node. A scalar is kept as its text, whatever its type.
enum Node {
    Scalar(String),
    List,
    Map(BTreeMap<String, Rc<Node>>),
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// The targets of aliases. They are shared, so a small file cannot become a large tree.
    anchors: HashMap<usize, Rc<Node>>,
}

impl<'a> Reader<'a> {
    /// The root of the first document, the only one that mongod reads; `None` if the file is empty.
    fn first_document(mut self) -> Result<Option<Rc<Node>>, String> {
        loop {
            match self.event()? {
                (Event::StreamEnd, _) => return Ok(None),
                (Event::DocumentStart(_), _) => break,
                _ => {}
            }
        }
        let first = self.event()?;
        let root = self.node(first, 0)?;
        // Finds a missing end, such as that of a flow map.
        self.event()?;
        Ok(Some(root))
    }

    fn event(&mut self) -> Result<(Event<'a>, usize), String> {
        match self.parser.next() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(error)) => Err(format!("it is not valid YAML: {error}")),
            None => Err("it is not valid YAML: it ends early".to_owned()),
        }
    }

    fn node(&mut self, (event, line): (Event<'a>, usize), depth: usize) -> Result<Rc<Node>, String> {
        /// Bounds the recursion; no real configuration has as many levels.
        const MAX_DEPTH: usize = 50;
        if depth > MAX_DEPTH {
            return Err(format!("line {line} is nested more than {MAX_DEPTH} levels deep"));
        }
        let (node, anchor) = match event {
            Event::Scalar(text, _, anchor, _) => (Node::Scalar(text.into_owned()), anchor),
            Event::Alias(anchor) => {
                return self.anchors.get(&anchor).cloned().ok_or_else(|| format!("line {line} has an unknown alias"));
            }
            Event::SequenceStart(anchor, _) => {
                loop {
                    match self.event()? {
                        (Event::SequenceEnd, _) => break,
                        item => self.node(item, depth + 1)?,
                    };
                }
                (Node::List, anchor)
            }
            Event::MappingStart(anchor, _) => {
                let mut map = BTreeMap::new();
                loop {
                    let (key, line) = match self.event()? {
                        (Event::MappingEnd, _) => break,
                        (event, line) => (self.node((event, line), depth + 1)?, line),
                    };
                    let Node::Scalar(key) = &*key else {
                        return Err(format!("line {line} has a key that is not a string"));
                    };
                    let event = self.event()?;
                    let value = self.node(event, depth + 1)?;
                    if map.insert(key.clone(), value).is_some() {
                        return Err(format!("line {line} repeats the key {}, which mongod refuses", shown(key)));
                    }
                }
                (Node::Map(map), anchor)
            }
            _ => return Err(format!("line {line} is not valid YAML")),
        };
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        Ok(node)
    }
}
