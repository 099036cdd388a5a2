//! Loading and unloading a module.
#![expect(unsafe_code, reason = "dlopen and its kin")]

use outlive_shared::{CloseFn, OpenFn, Plugin, SubmitFn};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ops::Range;
use std::path::Path;

const RTLD_NOW: c_int = 2;
const PROT_NONE: c_int = 0;
const MAP_PRIVATE: c_int = 0x02;
const MAP_ANONYMOUS: c_int = 0x20;
const MAP_NORESERVE: c_int = 0x4000;
const MAP_FIXED_NOREPLACE: c_int = 0x10_0000;

// SAFETY: declared as POSIX says; the C library is linked in anyway.
unsafe extern "C" {
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlclose(handle: *mut c_void) -> c_int;
    fn dlerror() -> *const c_char;
    fn mmap(at: *mut c_void, bytes: usize, access: c_int, flags: c_int, file: c_int, offset: i64) -> *mut c_void;
}

/// A module that is loaded.
#[derive(Debug)]
pub(crate) struct Module {
    handle: *mut c_void,
    name: String,
}

fn last_error() -> String {
    // SAFETY: this program loads modules in one thread.
    let text = unsafe { dlerror() };
    if text.is_null() {
        return "unknown error".into();
    }
    // SAFETY: a string of the C library, copied before the next call.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

impl Module {
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or("a module without a name")?.to_owned();
        let file = CString::new(path.to_str().ok_or("not Unicode")?).map_err(|error| error.to_string())?;
        // SAFETY: a module without initialisers of its own. Its symbols stay local to it: the default of `dlopen`.
        let handle = unsafe { dlopen(file.as_ptr(), RTLD_NOW) };
        if handle.is_null() { Err(last_error()) } else { Ok(Self { handle, name }) }
    }

    fn symbol(&self, name: &CStr) -> Result<*mut c_void, String> {
        // SAFETY: loaded, until `unload`.
        let symbol = unsafe { dlsym(self.handle, name.as_ptr()) };
        if symbol.is_null() { Err(last_error()) } else { Ok(symbol) }
    }

    /// Its functions, which may be called until it is unloaded.
    pub(crate) fn plugin(&self) -> Result<Plugin, String> {
        let (open, submit, close) = (self.symbol(c"open")?, self.symbol(c"submit")?, self.symbol(c"close")?);
        Ok(Plugin {
            // SAFETY: the plugin defines it with this type, and was built together with this program.
            open: unsafe { std::mem::transmute::<*mut c_void, OpenFn>(open) },
            // SAFETY: as above.
            submit: unsafe { std::mem::transmute::<*mut c_void, SubmitFn>(submit) },
            // SAFETY: as above.
            close: unsafe { std::mem::transmute::<*mut c_void, CloseFn>(close) },
        })
    }

    /// The ranges of this process's memory that belong to it.
    pub(crate) fn mappings(name: &str) -> Vec<Range<usize>> {
        let number = |text: &str| usize::from_str_radix(text, 16).ok();
        let range = |line: &str| {
            let (from, to) = line.split_once(' ')?.0.split_once('-')?;
            Some(number(from)?..number(to)?)
        };
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        maps.lines().filter(|line| line.ends_with(name)).filter_map(range).collect()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Unloads it; says how many mappings are left. Nothing will be mapped where it was, so that whatever still reaches for
    /// it faults, also after it has been loaded again.
    pub(crate) fn unload(self) -> Result<usize, String> {
        let was = Self::mappings(&self.name);
        // SAFETY: loaded once. The caller has nothing of it any more: that is what this program is about.
        if unsafe { dlclose(self.handle) } != 0 {
            return Err(last_error());
        }
        let left = Self::mappings(&self.name).len();
        if left == 0 {
            was.into_iter().try_for_each(forbid)?;
        }
        Ok(left)
    }
}

fn forbid(range: Range<usize>) -> Result<(), String> {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    let at = std::ptr::without_provenance_mut(range.start);
    // SAFETY: replaces no mapping, by its flag, and gives access to nobody.
    let got = unsafe { mmap(at, range.len(), PROT_NONE, flags, -1, 0) };
    if got == at { Ok(()) } else { Err(format!("{range:x?} could not be kept free")) }
}
