//! The one intrusive list: doubly linked, circular, its head a single pointer, so that a list costs eight bytes in a fence.
//!
//! # States
//! A [`Link`] is in no list or in exactly one. The list does not know which; its owner does (a flag beside the link,
//! changed under the same lock as the list).
//!
//! # Fields
//! A link's two pointers are read and written only under the lock that guards the list it is in. A link that is in no
//! list has both null.
//!
//! # Why not `intrusive-collections`
//! It was tried first: its head is two words (a fence would exceed 64 bytes), its links are `!Sync` cells which every
//! shared object here would have to wrap, and an adapter per list is more unsafe text than this file.
#![expect(unsafe_code, reason = "raw links; docs/unsafe.md, `mem::list`")]

use core::cell::UnsafeCell;
use core::fmt;
use core::ptr::{self, NonNull};

/// The part of an object by which it hangs in a list.
pub(crate) struct Link {
    ends: UnsafeCell<Ends>,
}

#[derive(Clone, Copy)]
struct Ends {
    prev: *const Link,
    next: *const Link,
}

// SAFETY: the pointers are only touched through `List`, whose unsafe functions demand the list's lock.
unsafe impl Send for Link {}
// SAFETY: as above.
unsafe impl Sync for Link {}

impl Link {
    pub(crate) const fn new() -> Self {
        Self { ends: UnsafeCell::new(Ends { prev: ptr::null(), next: ptr::null() }) }
    }

    /// Both ends; the caller holds the lock of the list this link is in.
    unsafe fn ends<'a>(link: *const Self) -> &'a mut Ends {
        // SAFETY: `link` is alive (the caller's promise) and the cell gives a valid pointer.
        let cell = unsafe { &(*link).ends };
        // SAFETY: the list's lock makes this the only access.
        unsafe { &mut *cell.get() }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

/// A list of links. It owns nothing: whoever puts a link in sees to it that the object outlives its stay.
pub(crate) struct List {
    head: *const Link,
}

// SAFETY: a list is a pointer that is only followed under its lock; moving it between threads is moving that right.
unsafe impl Send for List {}

impl List {
    pub(crate) const fn new() -> Self {
        Self { head: ptr::null() }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    pub(crate) fn front(&self) -> Option<NonNull<Link>> {
        NonNull::new(self.head.cast_mut())
    }

    /// Appends `link`.
    ///
    /// # Safety
    /// `link` is in no list, stays alive and in place until it is taken out, and the list's lock is held.
    pub(crate) unsafe fn push_back(&mut self, link: NonNull<Link>) {
        let link = link.as_ptr().cast_const();
        // SAFETY: in no list, so nobody else touches its ends.
        let ends = unsafe { Link::ends(link) };
        if self.head.is_null() {
            *ends = Ends { prev: link, next: link };
            self.head = link;
            return;
        }
        // SAFETY: the head is in this list, whose lock is held.
        let tail = unsafe { Link::ends(self.head) }.prev;
        *ends = Ends { prev: tail, next: self.head };
        // SAFETY: the tail is in this list. It may be the head itself; each borrow ends with its statement.
        unsafe { Link::ends(tail) }.next = link;
        // SAFETY: as above.
        unsafe { Link::ends(self.head) }.prev = link;
    }

    /// Puts `link` first.
    ///
    /// # Safety
    /// As for [`List::push_back`].
    pub(crate) unsafe fn push_front(&mut self, link: NonNull<Link>) {
        // SAFETY: the caller's promise. In a circular list, the last element is the one before the head.
        unsafe { self.push_back(link) };
        self.head = link.as_ptr();
    }

    /// Takes `link` out.
    ///
    /// # Safety
    /// `link` is in this list and the list's lock is held.
    pub(crate) unsafe fn remove(&mut self, link: NonNull<Link>) {
        let link = link.as_ptr().cast_const();
        // SAFETY: in this list, under its lock.
        let ends = unsafe { Link::ends(link) };
        let Ends { prev, next } = *ends;
        debug_assert!(!prev.is_null() && !next.is_null(), "a link that is in no list was taken out of one");
        *ends = Ends { prev: ptr::null(), next: ptr::null() };
        if ptr::eq(next, link) {
            self.head = ptr::null();
            return;
        }
        // SAFETY: a neighbour in this list.
        unsafe { Link::ends(prev) }.next = next;
        // SAFETY: as above.
        unsafe { Link::ends(next) }.prev = prev;
        if ptr::eq(self.head, link) {
            self.head = next;
        }
    }

    /// Takes the first link out.
    ///
    /// # Safety
    /// The list's lock is held.
    pub(crate) unsafe fn pop_front(&mut self) -> Option<NonNull<Link>> {
        let first = self.front()?;
        // SAFETY: the head is in this list.
        unsafe { self.remove(first) };
        Some(first)
    }

    /// The link after `link`, `None` at the end.
    ///
    /// # Safety
    /// `link` is in this list and the list's lock is held.
    pub(crate) unsafe fn next(&self, link: NonNull<Link>) -> Option<NonNull<Link>> {
        // SAFETY: in this list, under its lock.
        let next = unsafe { Link::ends(link.as_ptr()) }.next;
        if ptr::eq(next, self.head) { None } else { NonNull::new(next.cast_mut()) }
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "List(empty)" } else { "List(..)" })
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
#[expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::{Link, List};
    use crate::mem::HeapVec as Vec;
    use core::ptr::NonNull;

    fn order(list: &List, links: &[Link]) -> Vec<usize> {
        let mut out = Vec::new();
        let mut at = list.front();
        while let Some(link) = at {
            out.push(links.iter().position(|l| NonNull::from(l) == link).unwrap());
            // SAFETY: single-threaded test; the link is in the list.
            at = unsafe { list.next(link) };
        }
        out
    }

    #[test]
    fn a_list_keeps_its_order_whatever_is_taken_out() {
        let links: Vec<Link> = (0..4).map(|_| Link::new()).collect();
        for taken in 0..4 {
            let mut list = List::new();
            for link in &links[1..] {
                // SAFETY: single-threaded; each link is in no list.
                unsafe { list.push_back(NonNull::from(link)) };
            }
            // SAFETY: as above.
            unsafe { list.push_front(NonNull::from(&links[0])) };
            assert_eq!(order(&list, &links), [0, 1, 2, 3]);
            // SAFETY: it is in the list.
            unsafe { list.remove(NonNull::from(&links[taken])) };
            let rest: Vec<usize> = (0..4).filter(|i| *i != taken).collect();
            assert_eq!(order(&list, &links), rest);
            for i in rest {
                // SAFETY: single-threaded.
                assert_eq!(unsafe { list.pop_front() }, Some(NonNull::from(&links[i])));
            }
            assert!(list.is_empty());
        }
    }
}
