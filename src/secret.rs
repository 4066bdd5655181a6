//! Confidential text: redacted when printed, zeroed when dropped.

use bytes::Bytes;
use std::fmt;
use zeroize::Zeroizing;

/// A session token, a signature, or a header that contains one.
///
/// It has no `Display`, its `Debug` shows a placeholder, and its memory is zeroed on drop.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership of the text. The caller must clear its own copies.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for the code that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Joins the pieces. No copy of them is left in memory by a growing buffer.
    pub fn concat(pieces: &[&str]) -> Self {
        // The standard library allocates the total length first.
        Self::new(pieces.concat())
    }

    /// The text's bytes in a form that can be shared without a copy. They are zeroed when the last
    /// owner drops them.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn miri_debug_output_does_not_contain_the_text() {
        let shown = format!("{:?}", Secret::new("hunter2".to_owned()));
        assert_eq!(shown, "Secret(…)");
    }
}
