//! Carrying a script out: one address space, and the names of its BOs.

use alloc::collections::BTreeMap;

use outlive::vm::{
    BoId, Flags, Geometry, Mapping, OpenRefused, PlanError, Request, Source, Space, SpaceError, Step, VaRange,
};

use super::json;
use super::script::{Behind, Change, Line, Script};
use super::tables::Tables;
use crate::error::Stop;

/// The page size of a script that says none.
const PAGE: u64 = 0x1000;
/// Mappings, in a replay.
pub(super) const MAPPINGS_MAX: usize = 10_000_000;
/// Bytes that are printed at once.
const PRINTED_MAX: usize = 1 << 16;

/// A BO is kept with its name.
type Vm = Space<String>;

/// Prints what `script` comes to, and says how many of its lines were refused. With `tables`, a device's page tables follow it, and
/// are printed with each dump and at the end. No more than `mappings_max` are taken.
pub(super) fn replay(
    script: &Script,
    tables: Option<Tables>,
    mappings_max: usize,
    print: &mut impl FnMut(&str) -> Result<(), Stop>,
) -> Result<usize, Stop> {
    let mut replay = Replay { space: None, bos: BTreeMap::new(), tables, mappings_max };
    let (mut printed, mut refused) = (String::new(), 0);
    for (at, (number, line)) in script.lines.iter().enumerate() {
        let is_dump = matches!(line, Line::Dump);
        match replay.line(line) {
            Ok(Said::Nothing) => {}
            Ok(Said::Steps(steps)) => json::steps(&mut printed, *number, &steps),
            Ok(Said::Mappings(mappings)) => json::mappings(&mut printed, *number, &mappings),
            Err(Refused { line, why }) => {
                refused += 1;
                json::error(&mut printed, line.unwrap_or(*number), &why);
            }
        }
        if let (Some(tables), Some(space)) = (&replay.tables, &replay.space)
            && (is_dump || at + 1 == script.lines.len())
        {
            json::page_tables(&mut printed, *number, &tables.held(&names(space)));
        }
        if printed.len() >= PRINTED_MAX {
            print(&printed)?;
            printed.clear();
        }
    }
    print(&printed)?;
    Ok(refused)
}

/// What a line that was carried out has to say.
enum Said {
    Nothing,
    Steps(Vec<json::Step>),
    Mappings(Vec<json::Mapping>),
}

/// Why a line was not carried out; `line` is at fault where it is another one.
struct Refused {
    line: Option<usize>,
    why: String,
}

fn refuse(why: impl ToString) -> Refused {
    Refused { line: None, why: why.to_string() }
}

fn no_space() -> Refused {
    refuse("there is no address space: the line with `space` was refused")
}

/// A space and what belongs to it.
struct Replay {
    space: Option<Vm>,
    bos: BTreeMap<String, BoId>,
    /// A device's, if wanted.
    tables: Option<Tables>,
    mappings_max: usize,
}

impl Replay {
    fn space(&mut self) -> Result<&mut Vm, Refused> {
        self.space.as_mut().ok_or_else(no_space)
    }

    fn line(&mut self, line: &Line) -> Result<Said, Refused> {
        match line {
            Line::Space { base, len } => self.open(*base, *len),
            Line::Page { bytes } => self.page(*bytes),
            Line::Reserve { va, len } => self.reserve(*va, *len),
            Line::Bo { name, size } => self.bo(name, *size),
            Line::Change(change) => self.changes(&[(0, change)]).map_err(|refused| Refused { line: None, ..refused }),
            Line::Batch(changes) => {
                self.changes(&changes.iter().map(|(number, change)| (*number, change)).collect::<Vec<_>>())
            }
            Line::CloseBo { name } => self.close_bo(name),
            Line::Dump => {
                let space = self.space()?;
                Ok(Said::Mappings(space.iter().map(|mapping| json::mapping(&copy(&mapping), &names(space))).collect()))
            }
        }
    }

    fn open(&mut self, base: u64, len: u64) -> Result<Said, Refused> {
        if self.space.is_some() {
            return Err(refuse("there is an address space already: one to a script"));
        }
        self.space = Some(self.made(Geometry { base, len, page: PAGE })?);
        Ok(Said::Nothing)
    }

    fn page(&mut self, page: u64) -> Result<Said, Refused> {
        let space = self.space()?;
        let range = space.range();
        if !space.is_unused() {
            return Err(refuse("the page size comes before all else that happens in the address space"));
        }
        let made = self.made(Geometry { base: range.base(), len: range.len(), page })?;
        self.space = Some(made);
        Ok(Said::Nothing)
    }

    /// An empty space, if a device that is to follow can.
    fn made(&self, geometry: Geometry) -> Result<Vm, Refused> {
        let mut space = Vm::new(geometry).map_err(refuse)?;
        space.set_limit(self.mappings_max);
        if self.tables.is_some() {
            Tables::check(&space).map_err(refuse)?;
        }
        Ok(space)
    }

    fn reserve(&mut self, va: u64, len: u64) -> Result<Said, Refused> {
        let space = self.space()?;
        let range = VaRange::new(va, len, space.page()).map_err(|error| refuse(SpaceError::Range(error)))?;
        space.reserve_range(range).map_err(refuse)?;
        Ok(Said::Nothing)
    }

    fn bo(&mut self, name: &str, size: u64) -> Result<Said, Refused> {
        let taken = self.bos.contains_key(name);
        let space = self.space()?;
        if taken {
            return Err(refuse(format_args!("there is a BO `{name}` already: close it first, or choose another name")));
        }
        let bo = space.open_bo(size, name.to_owned()).map_err(|refused: OpenRefused<String>| refuse(refused))?;
        if let Some(Err(unheld)) = self.tables.as_mut().map(|tables| tables.open(bo, size)) {
            let _closed = self.space()?.close_bo(bo);
            return Err(refuse(unheld));
        }
        self.bos.insert(name.to_owned(), bo);
        Ok(Said::Nothing)
    }

    /// One plan of `changes`, each with its line.
    fn changes(&mut self, changes: &[(usize, &Change)]) -> Result<Said, Refused> {
        let mut requests = Vec::with_capacity(changes.len());
        // The first name that is unknown; a request before it may be at fault, too, and is then named.
        let mut unknown = None;
        for (line, change) in changes {
            match self.request(change) {
                Ok(request) => requests.push(request),
                Err(why) => {
                    unknown = Some(Refused { line: Some(*line), why });
                    break;
                }
            }
        }
        let Self { space, tables, .. } = self;
        let space = space.as_mut().ok_or_else(no_space)?;
        let at_fault = |PlanError { request, rule }: PlanError| Refused {
            line: changes.get(request).map(|(line, _)| *line),
            why: rule.to_string(),
        };
        let plan = space.plan(&requests).map_err(at_fault)?;
        if let Some(unknown) = unknown {
            return Err(unknown);
        }
        let done = match tables {
            None => plan.commit(),
            Some(tables) => {
                let steps: Vec<_> = (0..changes.len()).map(|request| plan.steps_of(request)).collect();
                let line = |step| {
                    steps.iter().zip(changes).find(|(steps, _)| steps.contains(&step)).map(|(_, (line, _))| *line)
                };
                plan.apply(tables)
                    .map_err(|undone| Refused { line: line(undone.step), why: undone.error.to_string() })?
            }
        };
        Ok(Said::Steps(done.steps().iter().map(|step| json::step(step, &names(space))).collect()))
    }

    fn request(&self, change: &Change) -> Result<Request, String> {
        let flags = |read_only: bool| if read_only { Flags::READ_ONLY } else { Flags::NONE };
        Ok(match change {
            Change::Map { va, len, behind, read_only } => {
                let source = match behind {
                    Behind::Sparse => Source::Sparse,
                    Behind::Bo { name, offset, window } => {
                        let (bo, offset) = (self.named(name)?, *offset);
                        match *window {
                            None => Source::Bo { bo, offset },
                            Some(window) => Source::Repeated { bo, offset, window, phase: 0 },
                        }
                    }
                };
                Request::Map { va: *va, len: *len, source, flags: flags(*read_only), data: () }
            }
            Change::Unmap { va, len } => Request::Unmap { va: *va, len: *len },
            Change::Protect { va, len, read_only } => {
                let (set, clear) = (flags(*read_only), flags(!*read_only));
                Request::Protect { va: *va, len: *len, clear, set }
            }
        })
    }

    fn named(&self, name: &str) -> Result<BoId, String> {
        self.bos.get(name).copied().ok_or_else(|| format!("there is no BO `{name}`: make it with `bo {name} SIZE`"))
    }

    fn close_bo(&mut self, name: &str) -> Result<Said, Refused> {
        let bo = self.named(name).map_err(refuse)?;
        let space = self.space()?;
        let Some(to_clear) = space.close_bo(bo) else { return Ok(Said::Nothing) };
        let unmap = |mapping: Mapping<&()>| Step::Unmap { mapping: copy(&mapping), keep: false };
        let mut steps: Vec<_> = space.clearing(&to_clear).map(unmap).collect();
        steps.sort_by_key(|step| step.changes().base());
        let gone: Vec<_> = steps.iter().map(|step| *step.mapping()).collect();
        let steps = steps.iter().map(|step| json::step(step, &|_| name.to_owned())).collect();
        if let Some(tables) = &mut self.tables {
            tables.close(bo, &gone);
        }
        // No page tables hold them any more.
        let cleared = self.space()?.cleared(to_clear, drop);
        debug_assert!(cleared.is_ok(), "it came from this space");
        self.bos.remove(name);
        Ok(Said::Steps(steps))
    }
}

/// What a script calls the BOs of `space`.
fn names(space: &Vm) -> impl Fn(BoId) -> String {
    |bo| space.bo(bo).cloned().unwrap_or_default()
}

fn copy(mapping: &Mapping<&()>) -> Mapping {
    let Mapping { range, source, flags, .. } = *mapping;
    Mapping { range, source, flags, data: () }
}
