//! The buffers that are open in a space: a table, so that a mapping names its buffer in four bytes and a buffer finds its
//! mappings through a list that runs through them.
//!
//! # States
//! A place is open (it has data) or free. Opening gives it a serial number that is never used again in this process, so an
//! id of a closed buffer, or of another space, is known for what it is.

use crate::exec::next_id;
use crate::mem::tree::Slot;
use crate::mem::{AllocError, HeapVec, try_reserve};
use core::fmt;

/// A buffer that is open in a space. Never reused, also across spaces.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BoId {
    serial: u64,
    place: u32,
}

impl fmt::Debug for BoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BoId({})", self.serial)
    }
}

impl fmt::Display for BoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "buffer {}", self.serial)
    }
}

impl BoId {
    /// Where its entry is; mappings keep this.
    pub(super) const fn place(self) -> u32 {
        self.place
    }
}

/// Why a buffer was not opened; its data comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenRefused<V> {
    /// It has no bytes.
    Empty(V),
    /// The space is closed.
    Closed(V),
    /// No memory for its entry.
    NoMemory(AllocError, V),
}

impl<V> fmt::Display for OpenRefused<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty(_) => f.write_str("a buffer of no bytes cannot be mapped: give it at least one page"),
            Self::Closed(_) => f.write_str("the address space is closed: make another one"),
            Self::NoMemory(error, _) => error.fmt(f),
        }
    }
}

impl<V: fmt::Debug> core::error::Error for OpenRefused<V> {}

/// A place of the table. Between [`Bos::take_place`] and [`Bos::set`] it is neither open nor free.
pub(super) struct Place<V> {
    serial: u64,
    /// In bytes.
    pub(super) size: u64,
    /// The first of its mappings.
    pub(super) head: Slot,
    pub(super) mappings: usize,
    /// When it was last mapped, counted in mappings of the whole space.
    pub(super) mapped_at: u64,
    /// `None` if the place is free.
    data: Option<V>,
    next_free: u32,
}

/// No place. There is none as high as this, nor right below.
const NOWHERE: u32 = u32::MAX;

pub(super) struct Bos<V> {
    places: HeapVec<Place<V>>,
    free: u32,
}

impl<V> Bos<V> {
    pub(super) const fn new() -> Self {
        Self { places: HeapVec::new(), free: NOWHERE }
    }

    pub(super) fn open(&mut self, size: u64, data: V) -> Result<BoId, (AllocError, V)> {
        if let Some(places) = self.places_for_one() {
            let more = places - self.places.len();
            if let Err(error) = try_reserve(&mut self.places, more) {
                return Err((error, data));
            }
        }
        let Some(id) = self.take_place(size) else {
            return Err((AllocError { bytes: size_of::<Place<V>>() }, data));
        };
        self.places[id.place as usize].data = Some(data);
        Ok(id)
    }

    /// How many places there must be for one more buffer; none if there is one.
    pub(super) fn places_for_one(&self) -> Option<usize> {
        let count = self.places.len();
        (self.free == NOWHERE && count == self.places.capacity()).then(|| count + count.max(4))
    }

    /// Moves into `wider`, which is empty. Allocates nothing, frees nothing; `wider` has the old memory then.
    pub(super) fn move_to(&mut self, wider: &mut HeapVec<Place<V>>) {
        if wider.capacity() > self.places.len() {
            wider.append(&mut self.places);
            core::mem::swap(&mut self.places, wider);
        }
    }

    /// A place for a buffer that is not open before it is [`Bos::set`]; none if there is no room. Allocates nothing.
    pub(super) fn take_place(&mut self, size: u64) -> Option<BoId> {
        let head = Slot::NONE;
        if self.free == NOWHERE {
            let count = self.places.len();
            let place = u32::try_from(count).ok().filter(|place| *place < NOWHERE - 1)?;
            if count == self.places.capacity() {
                return None;
            }
            #[expect(clippy::disallowed_methods, reason = "there is room")]
            self.places.push(Place {
                serial: 0,
                size: 0,
                head,
                mappings: 0,
                mapped_at: 0,
                data: None,
                next_free: NOWHERE,
            });
            self.free = place;
        }
        let place = self.free;
        let id = BoId { serial: next_id(), place };
        let entry = &mut self.places[place as usize];
        self.free = entry.next_free;
        let serial = id.serial;
        *entry = Place { serial, size, head, mappings: 0, mapped_at: 0, data: None, next_free: NOWHERE };
        Some(id)
    }

    /// Opens the buffer whose place was taken; its data back if that place is gone.
    pub(super) fn set(&mut self, id: BoId, data: V) -> Result<(), V> {
        match self.places.get_mut(id.place as usize).filter(|entry| entry.serial == id.serial) {
            Some(entry) => {
                entry.data = Some(data);
                Ok(())
            }
            None => Err(data),
        }
    }

    /// Gives a place back that was taken and not set.
    pub(super) fn give_back(&mut self, id: BoId) {
        if let Some(entry) = self.places.get_mut(id.place as usize).filter(|entry| entry.serial == id.serial) {
            (entry.serial, entry.next_free) = (0, self.free);
            self.free = id.place;
        }
    }

    /// The place of `id` if that is open here.
    pub(super) fn find(&self, id: BoId) -> Option<&Place<V>> {
        self.places.get(id.place as usize).filter(|place| place.serial == id.serial && place.data.is_some())
    }

    pub(super) fn data(&self, id: BoId) -> Option<&V> {
        self.find(id)?.data.as_ref()
    }

    pub(super) fn data_mut(&mut self, id: BoId) -> Option<&mut V> {
        self.find(id)?;
        self.places.get_mut(id.place as usize)?.data.as_mut()
    }

    /// Closes `id`, which has no mappings in its list any more.
    pub(super) fn close(&mut self, id: BoId) -> Option<V> {
        self.find(id)?;
        let entry = &mut self.places[id.place as usize];
        let data = entry.data.take();
        entry.next_free = self.free;
        entry.head = Slot::NONE;
        entry.mappings = 0;
        self.free = id.place;
        data
    }

    /// The id of the open buffer at `place`, which a mapping named.
    pub(super) fn id_at(&self, place: u32) -> BoId {
        BoId { serial: self.places[place as usize].serial, place }
    }

    pub(super) fn at_mut(&mut self, place: u32) -> Option<&mut Place<V>> {
        self.places.get_mut(place as usize)
    }

    /// All that are open.
    pub(super) fn iter(&self) -> impl Iterator<Item = (BoId, &V)> {
        let named = self.places.iter().zip(0_u32..);
        named.filter_map(|(entry, place)| Some((BoId { serial: entry.serial, place }, entry.data.as_ref()?)))
    }

    pub(super) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<Place<V>>()
    }
}
