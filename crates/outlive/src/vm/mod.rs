//! GPU address spaces: plan, commit, roll back.
//!
//! A [`Space`] is one GPU's virtual address space as a plain state machine: which ranges are mapped, to what, and how. It is
//! told what is wanted as a batch of [`Request`]s, and answers with the [`Step`]s that a driver carries out on page tables.
//!
//! ```text
//!            plan(requests)                 commit
//!   Space ───────────────────▶ Plan ───────────────────▶ Done
//!     ▲   may fail: memory,     │ │    cannot fail          steps, and what the old
//!     │   a misuse by name      │ │    allocates nothing    mappings held
//!     │                         │ └──▶ apply(driver)
//!     └── drop: no trace ───────┘       each step, then commit;
//!                                       an error: undone in reverse
//! ```
//!
//! # Who may touch what when
//! A plan borrows its space, so nothing can change between the two, and what was planned is what is committed. Until then the
//! space's mappings stay exactly as they are: the batch is planned against an overlay, later requests on what earlier ones
//! would leave. Memory is asked for while planning only; a commit frees none, either: [`Done`] owns what is left over, to be
//! dropped where that is legal. There is no lock in here and nothing waits, so nothing can deadlock.
//!
//! # Steps
//! For each request in turn: [`Step::Unmap`] and [`Step::Remap`] in ascending order of address, [`Step::Map`] last. A mapping
//! that sticks out of the request on one side or both is remapped: it leaves, and what sticks out comes back. Mappings are
//! never merged. A map request finds at most two mappings that stick out, so it needs three nodes, an unmap request two.
//! `keep` says that the entries of the part which a map request covers lead where the new mapping leads, so a driver may leave
//! them: same buffer, window and flags, and offsets that go on (sparse to sparse with the same flags, too).
//!
//! # Cost
//! n mappings: finding, planning and committing a request O(log n) and a constant per mapping it touches; the neighbours O(1)
//! from there. 72 bytes a mapping and the driver's data, half as much again at worst while the table is not full.
//!
//! # Example
//!
//! ```
//! use outlive::vm::{Flags, Geometry, Request, Source, Space, Step};
//!
//! let mut space = Space::new(Geometry { base: 0, len: 1 << 48, page: 0x1000 })?;
//! let bo = space.open_bo(0x40_0000, "a texture")?;
//! let source = Source::Bo { bo, offset: 0 };
//! let map = Request::Map { va: 0x10_0000, len: 0x3000, source, flags: Flags::NONE, data: () };
//! let hole = Request::Unmap { va: 0x10_1000, len: 0x1000 };
//!
//! // Both or neither. Lock the reservations of `plan.bos()` and reserve page tables here; dropping the plan undoes all.
//! let plan = space.plan(&[map, hole])?;
//! let done = plan.commit();
//!
//! assert!(matches!(done.steps(), [Step::Map { .. }, Step::Remap { .. }]));
//! assert_eq!(space.iter().map(|mapping| mapping.range.base()).collect::<Vec<_>>(), [0x10_0000, 0x10_2000]);
//!
//! // The process died: no allocation, no failure.
//! for mapping in &space.close() {
//!     println!("clear {:?}, then flush", mapping.range);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Contexts
//! [`Space::plan`], [`Space::open_bo`], [`Space::fill`] and [`Space::reserve_range`] allocate. Nothing else does, closing
//! included, so a space can be torn down without memory.

mod apply;
mod bo;
mod check;
mod close;
mod find;
mod mapping;
mod overlay;
mod plan;
mod range;
mod request;
mod space;
mod stage;
mod step;
mod store;

pub use apply::{Apply, RolledBack};
pub use bo::{BoId, OpenRefused};
pub use close::{Closed, ToClear};
pub use find::Iter;
pub use mapping::{Flags, Mapping, Source};
pub use plan::{Done, Plan};
pub use range::{RangeError, VaRange};
pub use request::{PlanError, Request, Rule};
pub use space::{Geometry, Space, SpaceError};
pub use step::Step;
