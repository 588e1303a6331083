//! A password on its way through: it cannot be printed, and it is overwritten when it goes.

use std::fmt;
use std::hint::black_box;

/// Text that never shows itself: `Debug` is redacted, there is no `Display`, and dropping it
/// overwrites the bytes.
///
/// The overwriting is as good as safe code can make it: copies made by a caller, or left behind by
/// the allocator when a buffer grew, are out of reach. So a secret is decoded into a buffer of its
/// final size.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes over; they are wiped with the secret.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The one way to the bytes. The name is meant to stand out in a review.
    #[must_use]
    pub fn expose_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The secret as text; empty if it is not UTF-8. A [`crate::LoginRequest`]'s password always is
    /// UTF-8.
    #[must_use]
    pub fn expose(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is nothing to hide.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Without a use after the writes the optimiser may take them for dead.
        black_box(self.0.as_slice());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(secret.expose(), "hunter2");
        assert_eq!(secret.len(), 7);
    }

    #[test]
    fn not_utf8_is_shown_as_nothing() {
        assert_eq!(Secret::new(vec![0xff]).expose(), "");
    }
}
