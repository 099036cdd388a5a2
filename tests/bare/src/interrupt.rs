//! Interrupts: a timer's signal, which may come between any two instructions, and their mask.
//!
//! The mask is one flag, as kernels do it that mask lazily: a signal that finds it set is remembered, and served when it is
//! cleared. Locks are taken with interrupts masked, so the handler never finds one held.
#![expect(unsafe_code, reason = "a signal handler and its way back")]

use crate::check;
use crate::heap;
use crate::machine::system_call;
use core::arch::naked_asm;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};

const RT_SIGACTION: usize = 13;
const SETITIMER: usize = 38;
const SIGALRM: usize = 14;
const SA_RESTORER: usize = 0x0400_0000;

static MASKED: AtomicBool = AtomicBool::new(false);
static PENDING: AtomicBool = AtomicBool::new(false);
static SERVING: AtomicBool = AtomicBool::new(false);
static SERVED: AtomicUsize = AtomicUsize::new(0);
static DEFERRED: AtomicUsize = AtomicUsize::new(0);
static SERVICE: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Masks interrupts; says whether they were.
pub(crate) fn mask() -> bool {
    MASKED.swap(true, SeqCst)
}

/// Puts the mask back to what [`mask`] said, and serves what came meanwhile.
pub(crate) fn unmask(was_masked: bool) {
    if was_masked {
        return;
    }
    MASKED.store(false, SeqCst);
    while PENDING.swap(false, SeqCst) {
        MASKED.store(true, SeqCst);
        serve();
        MASKED.store(false, SeqCst);
    }
}

/// Whether an interrupt is being served.
pub(crate) fn is_serving() -> bool {
    SERVING.load(SeqCst)
}

/// Interrupts served so far, and how many of these came while they were masked.
pub(crate) fn counts() -> (usize, usize) {
    (SERVED.load(SeqCst), DEFERRED.load(SeqCst))
}

fn serve() {
    let service = SERVICE.load(SeqCst);
    if service.is_null() {
        return;
    }
    // SAFETY: `start` stored a function of this type.
    let service = unsafe { core::mem::transmute::<*mut (), fn()>(service) };
    let before = heap::allocations();
    SERVING.store(true, SeqCst);
    service();
    SERVING.store(false, SeqCst);
    check!(heap::allocations() == before, "an interrupt may not allocate");
    SERVED.fetch_add(1, SeqCst);
}

extern "C" fn on_signal(_number: i32) {
    if mask() {
        PENDING.store(true, SeqCst);
        DEFERRED.fetch_add(1, SeqCst);
        return;
    }
    serve();
    MASKED.store(false, SeqCst);
}

/// # Safety
/// For the kernel only, which returns here from a handler.
#[unsafe(naked)]
unsafe extern "C" fn restorer() -> ! {
    naked_asm!("mov eax, 15", "syscall", "ud2")
}

fn timer(period_us: usize) {
    let seconds_and_us = [0, period_us, 0, period_us];
    check!(system_call(SETITIMER, [0, seconds_and_us.as_ptr().addr(), 0, 0]) == 0);
}

/// Runs `service` as an interrupt handler every `period_us` microseconds.
pub(crate) fn start(service: fn(), period_us: usize) {
    SERVICE.store(service as *mut (), SeqCst);
    let handler = on_signal as extern "C" fn(i32) as *const ();
    let restorer = restorer as unsafe extern "C" fn() -> ! as *const ();
    let action = [handler.expose_provenance(), SA_RESTORER, restorer.expose_provenance(), 0];
    check!(system_call(RT_SIGACTION, [SIGALRM, action.as_ptr().addr(), 0, size_of::<u64>()]) == 0);
    timer(period_us);
}

/// No interrupt comes after this.
pub(crate) fn stop() {
    timer(0);
    unmask(false);
    SERVICE.store(ptr::null_mut(), SeqCst);
}
