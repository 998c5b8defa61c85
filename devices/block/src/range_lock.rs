//! Requests that must not run at the same time: those that change the mapping of a range, and those that use it.

use parking_lot::{Condvar, Mutex};

#[derive(Default)]
struct List {
    next: u64,
    waiting: usize,
    /// In order of arrival; a request waits for all earlier ones it conflicts with, so nobody starves.
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    ticket: u64,
    start: u64,
    end: u64,
    exclusive: bool,
}

/// Locks over byte ranges.
#[derive(Default)]
pub(crate) struct RangeLock {
    list: Mutex<List>,
    released: Condvar,
}

/// A locked range.
pub(crate) struct RangeGuard<'a> {
    lock: &'a RangeLock,
    ticket: u64,
}

impl RangeLock {
    fn conflicts(list: &List, mine: Entry) -> bool {
        list.entries
            .iter()
            .take_while(|e| e.ticket != mine.ticket)
            .any(|e| (e.exclusive || mine.exclusive) && e.start < mine.end && mine.start < e.end)
    }
    fn entry(list: &mut List, start: u64, len: u64, exclusive: bool) -> Entry {
        let entry = Entry { ticket: list.next, start, end: start.saturating_add(len), exclusive };
        list.next += 1;
        list.entries.push(entry);
        entry
    }
    /// Waits for the range. Shared holders do not exclude each other.
    pub(crate) fn lock(&self, start: u64, len: u64, exclusive: bool) -> RangeGuard<'_> {
        let mut list = self.list.lock();
        let mine = Self::entry(&mut list, start, len, exclusive);
        while Self::conflicts(&list, mine) {
            list.waiting += 1;
            self.released.wait(&mut list);
            list.waiting -= 1;
        }
        RangeGuard { lock: self, ticket: mine.ticket }
    }
    /// The range, if it is free now.
    pub(crate) fn try_shared(&self, start: u64, len: u64) -> Option<RangeGuard<'_>> {
        let mut list = self.list.try_lock()?;
        let mine = Self::entry(&mut list, start, len, false);
        if Self::conflicts(&list, mine) {
            list.entries.pop();
            return None;
        }
        Some(RangeGuard { lock: self, ticket: mine.ticket })
    }
    /// Everything, for changes of the whole image.
    pub(crate) fn all(&self) -> RangeGuard<'_> {
        self.lock(0, u64::MAX, true)
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut list = self.lock.list.lock();
        if let Some(at) = list.entries.iter().position(|e| e.ticket == self.ticket) {
            list.entries.remove(at);
        }
        if list.waiting > 0 {
            self.lock.released.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RangeLock;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    #[test]
    fn excludes_only_what_overlaps() {
        let lock = RangeLock::default();
        let a = lock.lock(0, 10, true);
        assert!(lock.try_shared(5, 1).is_none() && lock.try_shared(10, 5).is_some());
        drop(a);
        let b = lock.try_shared(0, 10);
        assert!(b.is_some() && lock.try_shared(5, 1).is_some());
    }

    #[test]
    fn waits_in_turn() {
        let (lock, wrong, sum) = (Arc::new(RangeLock::default()), AtomicBool::new(false), AtomicU64::new(0));
        let inside = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for t in 0..4u64 {
                let (lock, wrong, sum, inside) = (lock.clone(), &wrong, &sum, &inside);
                scope.spawn(move || {
                    for n in 0..500 {
                        let exclusive = (n + t) % 3 == 0;
                        let _guard = lock.lock(n % 7, 8, exclusive);
                        let before = inside.fetch_add(if exclusive { 1 << 32 } else { 1 }, Ordering::SeqCst);
                        if before >> 32 != 0 || (exclusive && before != 0) {
                            wrong.store(true, Ordering::SeqCst);
                        }
                        sum.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(if exclusive { 1 << 32 } else { 1 }, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(!wrong.load(Ordering::SeqCst));
        assert_eq!(sum.load(Ordering::SeqCst), 2000);
    }
}
