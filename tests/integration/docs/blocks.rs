//! Finding the examples in a page.

use std::fmt;
use std::path::PathBuf;

/// One fenced block.
#[derive(Clone, Debug)]
pub struct Block {
    pub file: PathBuf,
    /// The line of the opening fence, counted from 1.
    pub line: usize,
    pub language: String,
    /// The second word after the fence, or nothing.
    pub what: String,
    /// The third word.
    pub detail: String,
    /// Without the indentation of the fence.
    pub text: String,
}

impl Block {
    pub fn is(&self, language: &str, what: &str) -> bool {
        self.language == language && self.what == what
    }
}

/// Where it stands.
impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// The fenced blocks of pages, in order.
pub fn blocks(pages: &[(PathBuf, String)]) -> Vec<Block> {
    let mut found = Vec::new();
    for (file, text) in pages {
        let mut open: Option<(usize, Block)> = None;
        for (number, line) in text.lines().enumerate() {
            let indentation = line.len() - line.trim_start().len();
            let fence = line.trim_start().strip_prefix("```");
            match (&mut open, fence) {
                (None, Some(info)) => {
                    let mut words = info.split_whitespace().map(str::to_owned);
                    let mut word = || words.next().unwrap_or_default();
                    let (language, what, detail) = (word(), word(), word());
                    let block =
                        Block { file: file.clone(), line: number + 1, language, what, detail, text: String::new() };
                    open = Some((indentation, block));
                }
                (Some(_), Some(_)) => found.extend(open.take().map(|(_, block)| block)),
                (Some((outer, block)), None) => {
                    block.text.push_str(line.get(*outer..).unwrap_or_default());
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block has no end", file.display());
    }
    found
}

#[test]
fn blocks_are_found_with_what_they_are_and_without_their_indentation() {
    let page = "a\n```yaml\nb:\n  c\n```\n   ```text error clockSkew\n   d\n\n   ```\n";
    let found = blocks(&[(PathBuf::from("p.md"), page.to_owned())]);
    let short: Vec<_> = found.iter().map(|b| (b.line, &*b.language, &*b.what, &*b.detail, &*b.text)).collect();
    assert_eq!(short, [(2, "yaml", "", "", "b:\n  c\n"), (6, "text", "error", "clockSkew", "d\n\n")]);
}
