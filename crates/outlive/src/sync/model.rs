//! What model-checked tests have in common: a watch over freed memory, which model checkers do not keep themselves, and
//! one way to run a model.
//!
//! # Memory
//! Every block of `mem` is counted, so that a model can end with [`assert_none_left`]. A freed block is overwritten and kept
//! back for a while: who reads it finds nonsense instead of its old contents, and who writes to it is found when the
//! block is given to the allocator at last. Both checkers run all threads of one model on one thread of the system,
//! so the books are that thread's.

#![expect(unsafe_code, reason = "the allocator's side of `mem`; docs/unsafe.md, `sync::model`")]

use core::alloc::Layout;
use core::cell::{Cell, RefCell};
use core::ptr::NonNull;
use std::collections::VecDeque;

const DEAD: u8 = 0xdd;
/// Freed blocks kept back.
const KEPT: usize = 512;

std::thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static GRAVES: RefCell<VecDeque<(usize, Layout)>> = const { RefCell::new(VecDeque::new()) };
}

/// A block was allocated.
pub(crate) fn born() {
    LIVE.with(|live| live.set(live.get() + 1));
}

/// A block has gone to somebody who will free it by other means.
pub(crate) fn moved_out() {
    LIVE.with(|live| live.set(live.get() - 1));
}

/// Buries a block instead of freeing it, and gives the oldest one kept to the allocator.
///
/// # Safety
/// As for `mem::free`.
pub(crate) unsafe fn bury(raw: NonNull<u8>, layout: Layout) {
    LIVE.with(|live| live.set(live.get() - 1));
    // SAFETY: the caller gives the whole block up.
    unsafe { raw.as_ptr().write_bytes(DEAD, layout.size()) };
    let oldest = GRAVES.with_borrow_mut(|graves| {
        graves.push_back((raw.as_ptr().expose_provenance(), layout));
        if graves.len() > KEPT { graves.pop_front() } else { None }
    });
    if let Some((at, layout)) = oldest {
        let at = core::ptr::with_exposed_provenance_mut::<u8>(at);
        // SAFETY: kept back since it was buried, and initialised then.
        let intact = (0..layout.size()).all(|offset| unsafe { at.add(offset).read() } == DEAD);
        assert!(intact, "a block of {} bytes was written to after it was freed", layout.size());
        // SAFETY: as the caller of `bury` promised for this block.
        unsafe { alloc::alloc::dealloc(at, layout) };
    }
}

/// Blocks that were allocated and not freed, on this thread of the system.
pub(crate) fn live_blocks() -> isize {
    LIVE.with(Cell::get)
}

/// Counts what was allocated since `before` as if it had been freed: it is meant to stay for ever.
#[cfg(loom)]
pub(crate) fn forgive(before: isize) {
    LIVE.with(|live| live.set(before));
}

/// Fails if a block is left since `before` was [`live_blocks`].
pub(crate) fn assert_none_left(before: isize) {
    let left = live_blocks() - before;
    assert_eq!(left, 0, "{left} blocks of memory were never freed");
}

#[cfg(loom)]
pub(crate) use loomed::{Model, race, race3};
#[cfg(shuttle)]
pub(crate) use shuttled::{clock, explore, explore_by_priority};

#[cfg(loom)]
mod loomed {
    use super::{assert_none_left, live_blocks};
    use loom::thread;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    /// The longest one model may take.
    const TIME_MAX: Duration = Duration::from_secs(25);

    /// How a model is explored.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Model {
        /// Its name in the output.
        pub(crate) name: &'static str,
        /// How many preemptions fewer than asked for (`LOOM_MAX_PREEMPTIONS`, by default 3) it can afford.
        pub(crate) fewer: usize,
    }

    impl Model {
        /// With as many preemptions as asked for.
        pub(crate) const fn new(name: &'static str) -> Self {
            Self { name, fewer: 0 }
        }

        /// With one preemption fewer: the protocol is too long for more.
        pub(crate) const fn shallow(name: &'static str) -> Self {
            Self { name, fewer: 1 }
        }

        /// Runs `body` in every order, prints how many those were, and fails if one leaves memory behind.
        #[expect(clippy::disallowed_methods, reason = "a test that says how long it took")]
        pub(crate) fn check(self, body: impl Fn() + Send + Sync + 'static) {
            let asked = std::env::var("LOOM_MAX_PREEMPTIONS").ok().and_then(|asked| asked.parse().ok());
            let bound = asked.unwrap_or(3_usize).saturating_sub(self.fewer);
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound = Some(bound);
            builder.max_branches = 50_000;
            builder.max_duration = Some(builder.max_duration.unwrap_or(TIME_MAX));
            // The time is looked at this often.
            builder.checkpoint_interval = 200;
            builder.expect_explicit_explore = true;
            let limit = builder.max_duration.unwrap_or(TIME_MAX);
            let count = Arc::new(AtomicUsize::new(0));
            let counted = count.clone();
            let began = Instant::now();
            builder.check(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                let before = live_blocks();
                body();
                assert_none_left(before);
            });
            let took = began.elapsed();
            let whole = if took < limit { "all" } else { "STOPPED after" };
            let count = count.load(Ordering::Relaxed);
            std::println!("loom: {}: {whole} {count} executions, bound {bound}, {took:.1?}", self.name);
        }
    }

    /// Explores the orders of `there`, on a thread of its own, and `here`.
    pub(crate) fn race(there: impl FnOnce() + 'static, here: impl FnOnce()) {
        loom::explore();
        let there = thread::spawn(there);
        here();
        there.join().unwrap();
        loom::stop_exploring();
    }

    /// As [`race`], with two others.
    pub(crate) fn race3(one: impl FnOnce() + 'static, two: impl FnOnce() + 'static, here: impl FnOnce()) {
        loom::explore();
        let one = thread::spawn(one);
        let two = thread::spawn(two);
        here();
        one.join().unwrap();
        two.join().unwrap();
        loom::stop_exploring();
    }
}

#[cfg(shuttle)]
mod shuttled {
    use super::{assert_none_left, live_blocks};
    use crate::sync::backend::{forget_spawned, join_spawned};
    use core::cell::Cell;
    use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
    use std::time::Instant;

    /// How many times the iterations a test asks for (`SHUTTLE_TIMES`, by default 1).
    fn times() -> usize {
        std::env::var("SHUTTLE_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
    }

    /// From `SHUTTLE_RANDOM_SEED`; else always the same, so that a failure comes back.
    fn seed() -> u64 {
        std::env::var("SHUTTLE_RANDOM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x6f75_746c)
    }

    /// Runs `body` in `iterations` random orders.
    pub(crate) fn explore(name: &str, iterations: usize, body: impl Fn() + Send + Sync + 'static) {
        let iterations = iterations * times();
        let seed = seed();
        run(name, &std::format!("random, seed {seed}"), RandomScheduler::new_from_seed(seed, iterations), body);
    }

    /// Runs `body` in `iterations` orders with `depth` changes of priority, which find rarer ones.
    pub(crate) fn explore_by_priority(
        name: &str,
        depth: usize,
        iterations: usize,
        body: impl Fn() + Send + Sync + 'static,
    ) {
        let iterations = iterations * times();
        let seed = seed();
        let how = std::format!("priorities, depth {depth}, seed {seed}");
        run(name, &how, PctScheduler::new_from_seed(seed, depth, iterations), body);
    }

    std::thread_local! {
        static NOW: Cell<u64> = const { Cell::new(0) };
    }

    /// A clock that goes on a little whenever it is read, the same in each execution of one order.
    pub(crate) fn clock() -> u64 {
        NOW.set(NOW.get() + 20_000);
        NOW.get()
    }

    /// Ends once all threads have ended and all memory is free, or fails.
    #[expect(clippy::disallowed_methods, reason = "a test that says how long it took")]
    fn run(name: &str, how: &str, scheduler: impl Scheduler + 'static, body: impl Fn() + Send + Sync + 'static) {
        let mut config = shuttle::Config::new();
        config.stack_size = 0x4_0000;
        std::println!("shuttle: {name}: {how}");
        let began = Instant::now();
        forget_spawned();
        let count = shuttle::Runner::new(scheduler, config).run(move || {
            let before = live_blocks();
            NOW.set(0);
            body();
            join_spawned();
            assert_none_left(before);
        });
        std::println!("shuttle: {name}: {count} executions, {:.1?}", began.elapsed());
    }
}
