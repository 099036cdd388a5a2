//! GPU address spaces: plan, commit, roll back.
//!
//! Two layers: a [`Space`], which decides, and a [`Vm`], which is one with handles, buffers and an end (below).
//!
//! A `Space` is one GPU's virtual address space as a plain state machine: which ranges are mapped, to what, and how. It is
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
//! That is *staged* working: the space is what the page tables will be. *Immediate* working is for a bind job that must not say
//! before it runs what is mapped then: it is accepted with all memory it can need, and later worked out and carried out step by
//! step in the signalling path.
//! ```text
//!            prepare(requests)              run(space, driver)
//!   Space ───────────────────▶ Prepared ──────────────────▶ Ran
//!     ▲   may fail: memory,     │  │       against what is mapped by then; allocates and drops nothing;
//!     │   a misuse by name      │  │       what old mappings held: take_removed
//!     └── drop: room given back ┘  └─────▶ RunFailed: which request; the space is poisoned
//! ```
//! The two give the same steps and may be mixed; any number of batches may be prepared at once.
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
//! # Handles and lifetimes
//! ```text
//!  Vm ──edit()──▶ Edit ──plan──▶ VmPlan ──commit/apply──▶ Binding ──flushed──▶ done
//!   │              │ open                                    └ dropped: the VM is poisoned
//!   │              ▼
//!   │            VmBo ──close, or last drop──▶ ToClear ──drop──▶ the VM's list
//!   └──close, or last drop──────────────────▶    │                   │ on the reaper, when no job uses it any more
//!                                                │                   ▼
//!                                                └──▶ cleared ◀── StagedDriver::clear
//!                                                        │ on the reaper
//!                                                        ▼
//!                                    pages, mappings' data, page tables are freed
//! ```
//! - A mapping belongs to its VM and counts nothing. A pair ([`VmBo`]) counts the VM's inside and the driver's buffer; the VM
//!   reaches it uncounted. [`VmUse`] (what a job's payload carries), [`Edit`], [`Binding`] and [`ToClear`] count insides. Handles
//!   are counted apart, so the last `Vm` dropped closes it, whatever jobs or mappings there are.
//! - One at a time changes an address space: an [`Edit`] has the turn, and with it the space as an exclusively borrowed value. A
//!   close needs no turn: it latches, and whoever has the turn next, a driver's thread or the reaper, takes the mappings out.
//! - An [`Immediate`] address space is changed by running jobs only; see below.
//! - What has left is freed when it was said to be cleared and flushed ([`ToClear::cleared`]) and every job and change that had
//!   begun before it left has ended. Jobs that begin later do not hold it up, nor do those that name what they use
//!   ([`Vm::in_use_named`]) and have no handle on it.
//! - A `ToClear` that `clear` drops is never freed, and counted; so is what a job in quarantine uses.
//!
//! - Jobs may touch whatever is mapped: [`Vm::lock_all`] locks the address space's reservation, which its local buffers share, and
//!   those of all external ones, to hang the job's `retired` on each. Buffers that were evicted are validated first
//!   ([`VmLocks::validate`]). The turn, where somebody wants both, comes before reservations.
//! - Whoever evicts a buffer finds every address space that it is open in ([`VmBo::all`]), and takes its entries out of one after
//!   the other: no two turns are held at once, so none is waited for in a circle.
//!
//! No lock and no turn is held while a destructor runs. The lock of a VM is held for a few instructions; the turn is waited for
//! by threads only, who may be waiting for fences meanwhile, which no fence's signal waits for. Turns come in the order in which
//! they were asked for, the reaper's, too.
//!
//! # Bind jobs
//! ```text
//!  Vm::immediate ──prepare(requests)──▶ VmPrepared ──accept(room)──▶ Bind ──run(completion)──▶ its job is completed
//!    │    ▲  checked, and all memory    │  page tables are put   │  in the signalling path, against what is
//!    │    │  of the library allocated   │  aside by the driver   │  mapped then: steps, commit, flush
//!    │    └──────── drop: no trace ─────┘                        └── drop unrun: the VM is poisoned
//!    └──look()──▶ Look: the space stays as it is, for a moment
//! ```
//! As `drm_gpuvm`'s immediate mode (panthor, Tyr): the space is what the page tables are, at any time. Nobody who may wait for
//! fences has it: whoever has the space, a running batch, a [`Look`], the reaper's next slice, has it for a moment, and neither
//! waits nor allocates in it. A job that finds it taken leaves its batch there, to be carried out when the moment ends. The two ways of
//! working are types ([`Staged`], [`Immediate`]), with a trait for what a driver says of each.
//! - A buffer that is mapped by a batch is in the list that [`Vm::lock_all`] locks from when it was opened.
//! - A buffer that was closed before the batch runs is not mapped, as if it had been closed after it; a closed VM takes nothing.
//! - A driver that cannot carry out a step, or flush, poisons the VM. So does an accepted batch that is dropped before it ran, for
//!   whoever submitted jobs behind it counts on it.
//! - What mappings held that a batch takes out is dropped on the reaper when all jobs that had begun before have ended.
//!
//! ```
//! use outlive::vm::{Bo, BoCore, Edit, Flags, Flushed, Geometry, Request, Source, StagedDriver, ToClear};
//! use outlive::vm::{Vm, VmConfig, VmDriver};
//! use outlive::{Completion, Device, Driver, Executor, JobCx};
//! use std::sync::Arc;
//!
//! struct Gpu;
//! # impl Driver for Gpu {
//! #     type Job = ();
//! #     type Queue = ();
//! #     fn run(&self, _: &mut JobCx<'_, Self>, done: Completion) { done.complete(Ok(())) }
//! # }
//!
//! #[derive(Clone)]
//! struct Buffer(Arc<BoCore>); // and pages
//!
//! impl Bo for Buffer {
//!     fn core(&self) -> &BoCore {
//!         &self.0
//!     }
//! }
//!
//! impl VmDriver for Gpu {
//!     type Bo = Buffer;
//!     type Vm = (); // page tables
//!     type VmBo = ();
//!     type Mapping = ();
//! }
//!
//! impl StagedDriver for Gpu {
//!     fn clear(&self, edit: &mut Edit<Self>, to_clear: ToClear<Self>) {
//!         for mapping in edit.clearing(&to_clear) {
//!             println!("clear {:?}", mapping.range);
//!         }
//!         println!("flush");
//!         to_clear.cleared(Flushed::by_driver());
//!     }
//! }
//!
//! let executor = Executor::manual()?;
//! let device = Device::new(&executor, Gpu)?;
//! let vm = Vm::new(&device, VmConfig::new(Geometry { base: 0, len: 1 << 48, page: 0x1000 }), ())?;
//! let buffer = Buffer(Arc::new(BoCore::local(&vm, 0x4000)));
//! let texture = vm.open(&buffer, || ())?;
//! let source = Source::Bo { bo: texture.id(), offset: 0 };
//! let map = Request::Map { va: 0x10_0000, len: 0x4000, source, flags: Flags::NONE, data: () };
//! let binding = vm.edit()?.plan(&[map])?.commit();
//! for step in binding.steps() {
//!     println!("write entries: {step:?}");
//! }
//! drop(binding.flushed(Flushed::by_driver()));
//!
//! let in_use = vm.in_use()?; // in a job's payload, which is dropped after `retired`
//! let gone = vm.drained();
//! drop((vm, texture));
//! executor.run_until_idle();
//! assert!(!gone.is_drained() && Arc::strong_count(&buffer.0) == 2, "the job runs");
//! drop(in_use);
//! executor.run_until_idle();
//! assert!(gone.is_drained() && Arc::strong_count(&buffer.0) == 1, "cleared, flushed, freed");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Contexts
//! [`Space::plan`], [`Space::prepare`], [`Space::open_bo`], [`Space::fill`] and [`Space::reserve_range`] allocate. Nothing else does, closing
//! included, so a space can be torn down without memory. Of the handles, [`Vm::new`], [`Vm::immediate`], [`Vm::edit`] and [`Vm::look`]
//! (they wait), [`Edit::open`], [`Edit::plan`], [`Vm::prepare`] and [`Vm::open`] may block or allocate; everything else, every close, drop, `cleared` and `poison` among it, is legal in any
//! context, the signalling path included: what must be freed goes to the reaper.

mod apply;
mod batch;
mod bind;
mod bo;
mod body;
mod buffer;
mod change;
mod check;
mod clear;
mod close;
mod driver;
mod edit;
mod find;
mod grace;
mod handle;
mod immediate;
mod locks;
mod look;
mod mapping;
mod mode;
mod moment;
mod open_in;
mod overlay;
mod pairs;
mod plan;
mod range;
mod request;
mod shared;
mod space;
mod stage;
mod step;
mod store;
mod sweep;
mod table;
mod turn;
mod usage;
mod work;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, any(loom, shuttle)))]
mod model_gpu;
#[cfg(all(test, shuttle))]
mod shuttle_bind;
#[cfg(all(test, shuttle))]
mod shuttle_tests;

pub use apply::{Apply, RolledBack};
pub use bind::{Bind, VmPrepared};
pub use bo::{BoId, OpenRefused};
pub use buffer::VmBo;
pub use change::{Binding, VmPlan};
pub use clear::{Clearing, Flushed, ToClear};
pub use close::{Closed, Detached};
pub use driver::{BindCx, Bo, BoCore, ImmediateDriver, StagedDriver, VmDriver};
pub use edit::{Edit, EditRefused};
pub use find::Iter;
pub use handle::{Vm, VmConfig, VmError, VmStatus};
pub use immediate::{Cause, Prepared, Ran, RunFailed};
pub use locks::VmLocks;
pub use look::Look;
pub use mapping::{Flags, Mapping, Source};
pub use mode::{Immediate, Mode, Staged};
pub use pairs::OpenBo;
pub use plan::{Done, Plan};
pub use range::{RangeError, VaRange};
pub use request::{PlanError, Request, Rule};
pub use space::{Geometry, Space, SpaceError};
pub use step::Step;
pub use usage::VmUse;
