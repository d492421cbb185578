//! A wall clock that stands still until a test moves it.
//!
//! A server into which this library is preloaded takes `clock_gettime`, `gettimeofday` and `time` from
//! here. The time is in a file that the environment variable `DISTKIT_CLOCK` names and that the test
//! writes; `testkit/src/clock.rs` is the other end. Monotonic clocks go on as ever, so that timers run.
//!
//! Allocators ask for the time while they start, so nothing in here allocates. Nor is the replaced
//! function looked up by name, which may allocate: the kernel is asked instead.
//!
//! This is the one place of the workspace with unsafe code: a C library's functions cannot be replaced
//! without.
#![cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]

use std::{
    ffi::{CStr, c_char, c_int, c_long, c_void},
    process, ptr,
    sync::atomic::{
        AtomicPtr, AtomicU8, AtomicU64,
        Ordering::{AcqRel, Acquire},
    },
};

const CLOCK_REALTIME: c_int = 0;
const CLOCK_REALTIME_COARSE: c_int = 5;

#[cfg(target_arch = "x86_64")]
const SYS_CLOCK_GETTIME: c_long = 228;
#[cfg(target_arch = "aarch64")]
const SYS_CLOCK_GETTIME: c_long = 113;

const NANOS: u64 = 1_000_000_000;

/// The file's content. The process that moves the clock fills the slot that is not shown, and then
/// counts the move: one byte cannot be seen half written, whatever the kernel copies it with.
#[repr(C)]
struct Face {
    /// How often the clock was moved, modulo 256. Its lowest bit says which slot is shown.
    moves: AtomicU8,
    /// Nanoseconds since 1970.
    slots: [AtomicU64; 2],
}

impl Face {
    fn nanos(&self) -> u64 {
        loop {
            let moves = self.moves.load(Acquire);
            let nanos = self.slots[usize::from(moves % 2)].load(Acquire);
            // Moved meanwhile, and perhaps again into the slot that was just read.
            if self.moves.load(Acquire) == moves {
                return nanos;
            }
        }
    }
}

fn face() -> &'static Face {
    static FACE: AtomicPtr<Face> = AtomicPtr::new(ptr::null_mut());
    let mut face = FACE.load(Acquire);
    if face.is_null() {
        face = map();
        // Threads that come here at the same time map the same file; one of the mappings stays in use
        // and the others stay in place.
        let first = FACE.compare_exchange(ptr::null_mut(), face, AcqRel, Acquire);
        face = first.err().unwrap_or(face);
    }
    // SAFETY: `map` gives a page-aligned mapping of a whole page that is never unmapped. It is read
    // through atomics only, for which every bit pattern is a value; who writes it is another process.
    unsafe { &*face }
}

/// Maps the file. A server whose clock silently ran on would fail tests that have nothing to do with it,
/// so where that cannot be done the process ends.
fn map() -> *mut Face {
    const NAME: &CStr = c"DISTKIT_CLOCK";
    const READ_ONLY_AND_CLOSED_ON_EXEC: c_int = 0o2_000_000;
    const PROT_READ: c_int = 1;
    const MAP_SHARED: c_int = 1;
    // SAFETY: the arguments are what the functions' manual pages ask for: strings that end in a zero
    // byte (`getenv` gives null or such a string, and nobody changes the environment while a server
    // starts), an open file, and no wish for an address.
    let mapping = unsafe {
        let path = getenv(NAME.as_ptr());
        if path.is_null() {
            process::abort();
        }
        let file = open(path, READ_ONLY_AND_CLOSED_ON_EXEC);
        if file < 0 {
            process::abort();
        }
        let mapping = mmap(ptr::null_mut(), size_of::<Face>(), PROT_READ, MAP_SHARED, file, 0);
        close(file);
        mapping
    };
    if mapping.addr() == usize::MAX {
        process::abort();
    }
    mapping.cast()
}

// SAFETY: these are the C library's signatures on the two platforms; its `off_t` has 64 bits there.
unsafe extern "C" {
    fn getenv(name: *const c_char) -> *const c_char;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn close(file: c_int) -> c_int;
    fn mmap(
        at: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        file: c_int,
        offset: i64,
    ) -> *mut c_void;
    fn syscall(number: c_long, ...) -> c_long;
}

/// C's `struct timespec` and `struct timeval`: seconds, then nano- or microseconds.
type Pair = [i64; 2];

/// Replaces the C library's function.
///
/// # Safety
///
/// As there: `time` must be valid for a write.
// SAFETY: the name is meant to stand before the C library's; the signature is the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Pair) -> c_int {
    if !matches!(clock, CLOCK_REALTIME | CLOCK_REALTIME_COARSE) {
        // SAFETY: the kernel checks both arguments by itself.
        return unsafe { syscall(SYS_CLOCK_GETTIME, c_long::from(clock), time) } as c_int;
    }
    let nanos = face().nanos();
    // SAFETY: the caller vouches for the pointer.
    unsafe { time.write([(nanos / NANOS) as i64, (nanos % NANOS) as i64]) };
    0
}

/// Replaces the C library's function.
///
/// # Safety
///
/// As there: `time` must be valid for a write, and `zone` null or valid for one.
// SAFETY: the name is meant to stand before the C library's; the signature is the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(time: *mut Pair, zone: *mut [c_int; 2]) -> c_int {
    let nanos = face().nanos();
    // SAFETY: the caller vouches for both pointers.
    unsafe {
        time.write([(nanos / NANOS) as i64, (nanos % NANOS / 1000) as i64]);
        if !zone.is_null() {
            zone.write([0, 0]);
        }
    }
    0
}

/// Replaces the C library's function.
///
/// # Safety
///
/// As there: `seconds` must be null or valid for a write.
// SAFETY: the name is meant to stand before the C library's; the signature is the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(seconds: *mut i64) -> i64 {
    let now = (face().nanos() / NANOS) as i64;
    if !seconds.is_null() {
        // SAFETY: the caller vouches for the pointer.
        unsafe { seconds.write(now) };
    }
    now
}
