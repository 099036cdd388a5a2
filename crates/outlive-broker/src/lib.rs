//! Many processes, one GPU. Built so far: handles that belong to a client. The daemon, its protocol and its client library are
//! still to come.
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::collections::BTreeMap;
use core::fmt;

/// One client's objects, by numbers that mean nothing to another client: brokers with one table for all let any client
/// destroy any other's objects. Numbers start at 1 and are not used again, so a stale one finds nothing.
///
/// Dropping the table, as happens when its client dies, drops everything in it, newest first.
#[derive(Debug)]
pub struct Handles<T> {
    objects: BTreeMap<u32, T>,
    last: u32,
    most: usize,
}

/// Why a handle was not made or found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandleError {
    /// The client has no such object.
    Unknown(
        /// The number it gave.
        u32,
    ),
    /// The client has as many objects as it may.
    TooMany {
        /// The most.
        most: usize,
    },
}

impl fmt::Display for HandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(handle) => write!(f, "this client has no object {handle}"),
            Self::TooMany { most } => write!(f, "this client has {most} objects, the most it may: destroy some"),
        }
    }
}

impl core::error::Error for HandleError {}

impl<T> Handles<T> {
    /// An empty table for at most `most` objects.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { objects: BTreeMap::new(), last: 0, most }
    }

    /// Puts `object` in.
    ///
    /// # Errors
    /// [`HandleError::TooMany`], with the object back.
    pub fn insert(&mut self, object: T) -> Result<u32, (HandleError, T)> {
        if self.objects.len() >= self.most || self.last == u32::MAX {
            return Err((HandleError::TooMany { most: self.most }, object));
        }
        self.last += 1;
        self.objects.insert(self.last, object);
        Ok(self.last)
    }

    /// The object behind `handle`.
    ///
    /// # Errors
    /// [`HandleError::Unknown`].
    pub fn get(&self, handle: u32) -> Result<&T, HandleError> {
        self.objects.get(&handle).ok_or(HandleError::Unknown(handle))
    }

    /// Takes the object behind `handle` out.
    ///
    /// # Errors
    /// [`HandleError::Unknown`].
    pub fn remove(&mut self, handle: u32) -> Result<T, HandleError> {
        self.objects.remove(&handle).ok_or(HandleError::Unknown(handle))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

impl<T> Drop for Handles<T> {
    fn drop(&mut self) {
        while self.objects.pop_last().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::{HandleError, Handles};
    use alloc::rc::Rc;
    use core::cell::RefCell;

    #[test]
    fn a_handle_is_its_clients_alone_and_never_used_again() {
        let mut mine = Handles::new(2);
        let yours: Handles<&str> = Handles::new(2);
        let handle = mine.insert("buffer").unwrap();
        assert_eq!(mine.get(handle), Ok(&"buffer"));
        assert_eq!(yours.get(handle), Err(HandleError::Unknown(handle)));
        assert_eq!(mine.remove(handle), Ok("buffer"));
        let next = mine.insert("other").unwrap();
        assert_ne!(next, handle);
        assert_eq!(mine.remove(handle), Err(HandleError::Unknown(handle)), "a stale number finds nothing");
        mine.insert("second").unwrap();
        assert_eq!(mine.insert("third"), Err((HandleError::TooMany { most: 2 }, "third")));
    }

    #[test]
    fn a_dead_clients_objects_go_newest_first() {
        struct Object(u32, Rc<RefCell<Vec<u32>>>);
        impl Drop for Object {
            fn drop(&mut self) {
                self.1.borrow_mut().push(self.0);
            }
        }
        let gone = Rc::new(RefCell::new(Vec::new()));
        let mut table = Handles::new(9);
        for number in 0..3 {
            assert!(table.insert(Object(number, gone.clone())).is_ok());
        }
        drop(table);
        assert_eq!(*gone.borrow(), [2, 1, 0]);
    }
}
