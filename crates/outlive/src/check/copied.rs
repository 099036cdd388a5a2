//! What a report keeps: copies of names and places. A report may be read long after it was made, and the module whose text
//! it names may be unloaded by then.

use core::fmt;
use core::ops::Deref;
use core::panic::Location;

/// Text of at most `N` bytes, copied. Of a longer one the end is kept, which says most of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    /// Any context; never allocates.
    fn copy(from: &str) -> Self {
        let mut cut = from.len().saturating_sub(N);
        while !from.is_char_boundary(cut) {
            cut += 1;
        }
        let mut bytes = [0; N];
        let mut len = 0;
        for (to, byte) in bytes.iter_mut().zip(from.bytes().skip(cut)) {
            *to = byte;
            len += 1;
        }
        Self { bytes, len }
    }
}

impl<const N: usize> From<&str> for Text<N> {
    fn from(from: &str) -> Self {
        Self::copy(from)
    }
}

impl<const N: usize> Deref for Text<N> {
    type Target = str;

    fn deref(&self) -> &str {
        // Whole characters were copied.
        self.bytes.get(..self.len).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or("")
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// A place in a source file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place {
    file: Text<120>,
    line: u32,
    column: u32,
}

impl Place {
    /// The file's path as the compiler was given it; of a long one the last 120 bytes.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// From 1.
    #[must_use]
    pub const fn line(&self) -> u32 {
        self.line
    }

    /// From 1.
    #[must_use]
    pub const fn column(&self) -> u32 {
        self.column
    }
}

impl From<&Location<'_>> for Place {
    fn from(at: &Location<'_>) -> Self {
        Self { file: Text::copy(at.file()), line: at.line(), column: at.column() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file(), self.line, self.column)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::{Place, Text};
    use core::panic::Location;

    #[test]
    fn text_keeps_its_end_in_whole_characters() {
        let text = |from: &str| Text::<4>::from(from);
        assert_eq!((&*text(""), &*text("abc"), &*text("abcd"), &*text("abcde")), ("", "abc", "abcd", "bcde"));
        assert_eq!((&*text("abcé"), &*text("aéce")), ("bcé", "éce"));
        assert_eq!(&*text("ééé"), "éé");
        assert_eq!(&*text("aé語"), "語", "the é would be cut in half");
    }

    #[test]
    fn a_place_reads_as_the_location_it_was_copied_from() {
        let at = Location::caller();
        assert_eq!(std::format!("{}", Place::from(at)), std::format!("{at}"));
    }
}
