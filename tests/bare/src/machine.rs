//! The machine below: start, system calls, the functions that compiled code expects, and the end on a panic.
//!
//! System calls are made directly, so nothing is linked in but this program, the core,
//! `alloc` and `core`.
#![expect(unsafe_code, reason = "system calls, the start of the program and its memory functions")]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("this program makes system calls of Linux on x86-64");

use core::arch::{asm, naked_asm};
use core::fmt::{self, Write};
use core::panic::PanicInfo;

const WRITE: usize = 1;
const EXIT_GROUP: usize = 231;

/// A system call that touches at most memory its caller has borrowed.
pub(crate) fn system_call(number: usize, arguments: [usize; 4]) -> isize {
    let result;
    // SAFETY: this program writes live slices, sets a timer and a handler, and exits; the kernel changes `rax`, `rcx` and
    // `r11` alone.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Ends the program.
pub(crate) fn exit(code: u8) -> ! {
    loop {
        system_call(EXIT_GROUP, [usize::from(code), 0, 0, 0]);
    }
}

/// A standard stream, by its number.
#[derive(Debug)]
pub(crate) struct Stream(pub(crate) usize);

impl Write for Stream {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let written = system_call(WRITE, [self.0, rest.as_ptr().addr(), rest.len(), 0]);
            rest = usize::try_from(written).ok().and_then(|written| rest.get(written..)).ok_or(fmt::Error)?;
        }
        Ok(())
    }
}

/// Prints a line to standard output.
macro_rules! say {
    ($($argument:tt)*) => {{
        use core::fmt::Write as _;
        // Nothing is left to tell it to.
        let _ = writeln!($crate::machine::Stream(1), $($argument)*);
    }};
}
pub(crate) use say;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Stream(2), "{info}");
    exit(101)
}

/// Where the kernel begins: the stack is aligned to 16 bytes, as before a call.
///
/// # Safety
/// For the kernel only.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "call {main}", "ud2", main = sym crate::main)
}

/// Named by the precompiled `core` and `alloc`, which could unwind; this program cannot.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As [`rust_eh_personality`].
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    exit(102)
}

/// # Safety
/// As for C: both ranges are valid for `count` bytes and do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise; the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As for C: both ranges are valid for `count` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= count {
        // SAFETY: copying upwards reads each byte before it is overwritten; the caller's promise.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: the ranges overlap with `to` above `from`, so they are copied downwards, and `count` is not zero; the
    // direction flag is restored.
    unsafe {
        asm!(
            "std", "rep movsb", "cld",
            inout("rcx") count => _,
            inout("rdi") to.wrapping_add(count - 1) => _,
            inout("rsi") from.wrapping_add(count - 1) => _,
            options(nostack),
        );
    }
    to
}

/// # Safety
/// As for C: the range is valid for `count` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise; the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8, options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As for C: both ranges are valid for `count` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    for at in 0..count {
        // SAFETY: in range, the caller's promise.
        let a = unsafe { left.wrapping_add(at).read_volatile() };
        // SAFETY: as above.
        let b = unsafe { right.wrapping_add(at).read_volatile() };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// # Safety
/// As for C: both ranges are valid for `count` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(left, right, count) }
}

/// # Safety
/// As for C: a string that ends with a zero byte.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: up to and including the zero byte the string is valid.
    while unsafe { text.wrapping_add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}
