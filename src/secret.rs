//! Text that must not be seen: redacted when printed, zeroed when dropped.

use bytes::Bytes;
use std::fmt;
use zeroize::Zeroizing;

/// A session token, a signature or a header that carries one.
///
/// It has no `Display`, its `Debug` shows only that something is there, and its memory is zeroed on drop.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over. The caller's own copies are the caller's to clear.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for the one place that has to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text joined from pieces, without a copy of any of them left behind as a buffer grows.
    pub fn concat(pieces: &[&str]) -> Self {
        // The standard library adds the lengths up first.
        Self::new(pieces.concat())
    }

    /// The text's bytes in a form that can be shared without a copy, zeroed when the last one who shares them is gone.
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
    fn miri_debug_shows_nothing_of_the_text() {
        let shown = format!("{:?}", Secret::new("hunter2".to_owned()));
        assert_eq!(shown, "Secret(…)");
    }
}
