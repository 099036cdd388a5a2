//! Carrying a plan out through a driver, all or nothing.

use super::plan::{Done, Plan};
use super::space::Space;
use super::step::Step;
use core::fmt;

/// What carries steps out: page tables. The space, as it was before the batch, says what is behind a buffer's number.
pub trait Apply<V, M> {
    /// Why a step cannot be carried out.
    type Error;

    /// Carries `step` out. Steps come in order; all before it have been.
    ///
    /// # Errors
    /// It cannot be done, and nothing of it was. The steps before it will be undone.
    fn apply(&mut self, space: &Space<V, M>, step: &Step<M>) -> Result<(), Self::Error>;

    /// Undoes `step`, which was carried out last of all that are. Must succeed: keep what it takes.
    fn undo(&mut self, space: &Space<V, M>, step: &Step<M>);
}

/// A driver's error: which step it could not carry out. The steps before it were undone in reverse, and the space is as it
/// was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RolledBack<E> {
    /// The step, counted from zero over the whole batch.
    pub step: usize,
    /// The driver's reason.
    pub error: E,
}

impl<E: fmt::Display> fmt::Display for RolledBack<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} failed and all was undone: {}", self.step, self.error)
    }
}

impl<E: core::error::Error> core::error::Error for RolledBack<E> {}

impl<V, M: Clone> Plan<'_, V, M> {
    /// Has `driver` carry out every step, then commits. May do what the driver does; the library allocates nothing.
    ///
    /// # Errors
    /// The driver's, after everything was undone.
    pub fn apply<A: Apply<V, M>>(self, driver: &mut A) -> Result<Done<M>, RolledBack<A::Error>> {
        for (number, step) in self.steps().iter().enumerate() {
            if let Err(error) = driver.apply(self.space, step) {
                for done in self.steps()[..number].iter().rev() {
                    driver.undo(self.space, done);
                }
                return Err(RolledBack { step: number, error });
            }
        }
        Ok(self.commit())
    }
}
