//! How an address space with handles is changed, chosen when it is made and part of its type.

/// Changes are planned and committed by whoever has the turn ([`Vm::edit`](super::Vm::edit)); the page tables follow, then or in
/// a bind job.
#[derive(Debug, Clone, Copy)]
pub enum Staged {}

/// Changes are accepted ([`Vm::prepare`](super::Vm::prepare)), and worked out and carried out when their bind job runs. Nobody has
/// the space for longer than a moment.
#[derive(Debug, Clone, Copy)]
pub enum Immediate {}

mod sealed {
    #[expect(unnameable_types, reason = "so that nobody else has a way of working")]
    pub trait Sealed {}
    impl Sealed for super::Staged {}
    impl Sealed for super::Immediate {}
}

/// [`Staged`] or [`Immediate`].
pub trait Mode: sealed::Sealed + 'static {}

impl Mode for Staged {}
impl Mode for Immediate {}
