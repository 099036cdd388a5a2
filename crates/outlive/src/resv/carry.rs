//! What a lock phase may hand to the sealed one.

use super::attempt::{Locked, Slot, Slots};
use crate::mem::HeapVec;

/// Something that a lock phase hands to the sealed phase of the same attempt, with that attempt's brand in place of any other:
/// tokens, and tuples, arrays, options and vectors of them; for the rest, [`Plain`]. Name it when running a transaction, with
/// `'_` for the brand: `run::<(Slot<'_>, Vec<Slot<'_>>), _>(...)`. A type of one's own is `In<'a> = Own<'a>`.
pub trait Carry {
    /// It, within the attempt `'a`.
    type In<'a>;
}

/// Something without tokens in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plain<T>(pub T);

impl<T> Carry for Plain<T> {
    type In<'a> = Self;
}

impl Carry for Locked<'_> {
    type In<'a> = Locked<'a>;
}

impl Carry for Slot<'_> {
    type In<'a> = Slot<'a>;
}

impl Carry for Slots<'_> {
    type In<'a> = Slots<'a>;
}

impl<C: Carry> Carry for Option<C> {
    type In<'a> = Option<C::In<'a>>;
}

impl<C: Carry> Carry for HeapVec<C> {
    type In<'a> = HeapVec<C::In<'a>>;
}

impl<C: Carry, const N: usize> Carry for [C; N] {
    type In<'a> = [C::In<'a>; N];
}

macro_rules! tuples {
    ($(($($name:ident)*))*) => {
        $(impl<$($name: Carry),*> Carry for ($($name,)*) {
            type In<'a> = ($($name::In<'a>,)*);
        })*
    };
}

tuples! { () (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) }
