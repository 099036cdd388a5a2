//! What can be said of a request without looking at other mappings; and filling an empty space, which needs no more.

use super::mapping::{Mapping, Source};
use super::range::VaRange;
use super::request::{PlanError, Request, Rule};
use super::space::Space;
use super::store::Store;

impl<V, M> Space<V, M> {
    /// Maps everything at once in an empty space: `requests` are map requests, ascending, that do not overlap. Allocates.
    /// One pass, and mappings that are side by side in addresses are so in memory.
    ///
    /// # Errors
    /// The first request that breaks a rule, and which; or no memory. Nothing was changed.
    pub fn fill(&mut self, requests: &[Request<M>]) -> Result<(), PlanError>
    where
        M: Clone,
    {
        if !self.store.tree.is_bare() {
            return Err(PlanError { request: 0, rule: Rule::NotEmpty });
        }
        let mut above = None;
        for (request, wanted) in requests.iter().enumerate() {
            let refuse = |rule| PlanError { request, rule };
            let range = self.check(wanted).map_err(refuse)?;
            let ascends = above.is_none_or(|last| last < range.base());
            if !ascends || !matches!(wanted, Request::Map { .. }) {
                return Err(refuse(Rule::OutOfOrder { range }));
            }
            if request.saturating_add(self.store.promised()) >= self.limit() {
                return Err(refuse(Rule::TooMany { limit: self.limit() }));
            }
            above = Some(range.last());
        }
        let mappings = requests.iter().filter_map(|wanted| match wanted {
            Request::Map { va, len, source, flags, data } => {
                // OVERFLOW: it was checked.
                let range = VaRange::between(*va, va + (len - 1));
                Some(Mapping { range, source: *source, flags: *flags, data: data.clone() })
            }
            Request::Unmap { .. } | Request::Protect { .. } => None,
        });
        let tree = Store::<V, M>::tree_of(requests.len(), mappings);
        let filled = tree.and_then(|tree| self.store.fill(tree));
        filled.map_err(|error| PlanError { request: 0, rule: error.into() })
    }

    /// Checks everything about `request` that does not depend on other mappings.
    pub(super) fn check(&self, request: &Request<M>) -> Result<VaRange, Rule> {
        let range = self.check_span(request)?;
        if let Request::Map { source, .. } = request {
            self.check_source(*source, range.len())?;
        }
        Ok(range)
    }

    /// As [`Space::check`], but for what is behind a mapping.
    pub(super) fn check_span(&self, request: &Request<M>) -> Result<VaRange, Rule> {
        if self.is_closed() {
            return Err(Rule::Closed);
        }
        if self.is_poisoned() && !matches!(request, Request::Unmap { .. }) {
            return Err(Rule::Poisoned);
        }
        let (va, len) = request.span();
        let range = VaRange::new(va, len, self.page()).map_err(Rule::Range)?;
        if !self.range().contains(range) {
            return Err(Rule::Outside { range, space: self.range() });
        }
        if let Some(reserved) = self.reserved_in(range) {
            return Err(Rule::ReservedRange { range, reserved });
        }
        Ok(range)
    }

    fn check_source(&self, source: Source, len: u64) -> Result<(), Rule> {
        let (bo, offset, used) = match source {
            Source::Bo { bo, offset } => (bo, offset, len),
            Source::Repeated { bo, offset, window, phase } => {
                let whole = |bytes: u64| bytes % self.page() == 0;
                if window == 0 || !whole(window) || len % window != 0 || phase >= window || !whole(phase) {
                    return Err(Rule::Window { window, phase, len });
                }
                (bo, offset, window)
            }
            Source::Sparse => return Ok(()),
        };
        let size = self.store.bos.find(bo).ok_or(Rule::NotOpen { bo })?.size;
        if offset % self.page() != 0 {
            return Err(Rule::MisalignedOffset { offset, page: self.page() });
        }
        match offset.checked_add(used) {
            Some(end) if end <= size => Ok(()),
            _ => Err(Rule::BeyondBo { offset, len: used, size }),
        }
    }
}
