//! The host's clocks.
#![expect(unsafe_code, reason = "clock_gettime and localtime_r")]

/// CLOCK_MONOTONIC in ns.
#[inline]
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec; CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t) };
    (t.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(t.tv_nsec as u64)
}

/// Seconds east of UTC in the host's time zone at `seconds`.
pub(crate) fn utc_offset(seconds: i64) -> i64 {
    // SAFETY: a tm is plain data, for which zero is valid.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values.
    let ok = unsafe { !libc::localtime_r(&raw const seconds, &raw mut tm).is_null() };
    if ok { tm.tm_gmtoff } else { 0 }
}

/// Lets the calling thread's timed waits end on time (the default slack is 50 µs).
pub(crate) fn exact_waits() {
    // SAFETY: sets a number of the calling thread; failure changes nothing.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000usize, 0usize, 0usize, 0usize) };
}

/// Waits until `word` is not `expected`, CLOCK_MONOTONIC reaches `deadline`, or for no reason.
pub(crate) fn futex_wait_until(word: &std::sync::atomic::AtomicU32, expected: u32, deadline: Option<u64>) {
    let t = deadline.map(|d| libc::timespec {
        tv_sec: (d / 1_000_000_000) as libc::time_t,
        tv_nsec: (d % 1_000_000_000) as libc::c_long,
    });
    let timeout = t.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: word and timeout are live; FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG,
            expected,
            timeout,
            std::ptr::null::<u32>(),
            u32::MAX,
        );
    }
}

/// Wakes all waiters of `word`.
pub(crate) fn futex_wake(word: &std::sync::atomic::AtomicU32) {
    // SAFETY: word is live; waking has no other effect.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, i32::MAX);
    }
}
