//! Back ends by name, which come, go and are changed while the machine runs.

use super::{CharBackend, CharEvent, CharFrontend, NullChar};
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;

/// A back end that can be exchanged for another one under its front end.
struct Named {
    now: RwLock<Arc<dyn CharBackend>>,
    frontend: Mutex<Option<Arc<dyn CharFrontend>>>,
    /// One that others share with it stays what it is.
    fixed: bool,
}

impl Named {
    fn now(&self) -> Arc<dyn CharBackend> {
        self.now.read().clone()
    }
    fn exchange(&self, next: Arc<dyn CharBackend>) {
        let frontend = self.frontend.lock().clone();
        let old = std::mem::replace(&mut *self.now.write(), next.clone());
        old.set_frontend(Arc::new(Nobody));
        if let Some(frontend) = frontend {
            if old.connected() && !next.connected() {
                frontend.event(CharEvent::Closed);
            }
            next.set_frontend(frontend);
        }
    }
}

/// Takes what a back end that was replaced still has.
struct Nobody;

impl CharFrontend for Nobody {
    fn can_receive(&self) -> usize {
        usize::MAX
    }
    fn receive(&self, _data: &[u8]) {}
}

impl CharBackend for Named {
    fn write(&self, data: &[u8]) {
        self.now().write(data);
    }
    fn set_frontend(&self, frontend: Arc<dyn CharFrontend>) {
        *self.frontend.lock() = Some(frontend.clone());
        self.now().set_frontend(frontend);
    }
    fn accept_input(&self) {
        self.now().accept_input();
    }
    fn connected(&self) -> bool {
        self.now().connected()
    }
    fn send_break(&self) {
        self.now().send_break();
    }
    fn description(&self) -> String {
        self.now().description()
    }
}

/// Back ends by name.
#[derive(Default)]
pub struct Chardevs(RwLock<Vec<(String, Arc<Named>)>>);

/// A back end as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChardevEntry {
    pub name: String,
    pub description: String,
    /// Something in the machine, or a monitor, is at its other side.
    pub used: bool,
}

impl Chardevs {
    /// Adds a back end. `fixed`: it cannot be changed or removed.
    ///
    /// # Errors
    /// The name is taken.
    pub fn add(&self, name: &str, backend: Arc<dyn CharBackend>, fixed: bool) -> Result<(), String> {
        let mut all = self.0.write();
        if all.iter().any(|(n, _)| n == name) {
            return Err(format!("Chardev with id '{name}' already exists"));
        }
        let named = Named { now: RwLock::new(backend), frontend: Mutex::default(), fixed };
        all.push((name.to_owned(), Arc::new(named)));
        Ok(())
    }
    /// The back end of this name, for a front end.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<dyn CharBackend>> {
        self.0.read().iter().find(|(n, _)| n == name).map(|(_, b)| b.clone() as Arc<dyn CharBackend>)
    }
    /// The device at this back end receives a break; false: there is none of this name.
    #[must_use]
    pub fn send_break(&self, name: &str) -> bool {
        let named = self.0.read().iter().find(|(n, _)| n == name).map(|(_, b)| b.clone());
        let frontend = named.as_ref().and_then(|n| n.frontend.lock().clone());
        frontend.iter().for_each(|f| f.event(CharEvent::Break));
        named.is_some()
    }
    /// Closes a back end that nothing uses.
    ///
    /// # Errors
    /// There is none, or it is in use.
    pub fn remove(&self, name: &str) -> Result<(), String> {
        let mut all = self.0.write();
        let at = all.iter().position(|(n, _)| n == name).ok_or_else(|| format!("Chardev '{name}' not found"))?;
        // One reference is the table's.
        if all[at].1.fixed || Arc::strong_count(&all[at].1) > 1 {
            return Err(format!("Chardev '{name}' is busy"));
        }
        let gone = all.remove(at);
        drop(all);
        drop(gone);
        Ok(())
    }
    /// Puts another back end in the place of one, whatever uses it.
    ///
    /// # Errors
    /// There is none, it cannot be changed, or those of `open`, which makes the other one.
    pub fn change<R>(
        &self,
        name: &str,
        open: impl FnOnce() -> Result<(Arc<dyn CharBackend>, R), String>,
    ) -> Result<R, String> {
        let named = self.0.read().iter().find(|(n, _)| n == name).map(|(_, b)| b.clone());
        let named = named.ok_or_else(|| format!("Chardev '{name}' does not exist"))?;
        if named.fixed {
            return Err(format!("Chardev '{name}' cannot be changed: others share it"));
        }
        let (next, told) = open()?;
        named.exchange(next);
        Ok(told)
    }
    /// All of them.
    #[must_use]
    pub fn list(&self) -> Vec<ChardevEntry> {
        let one = |(name, b): &(String, Arc<Named>)| ChardevEntry {
            name: name.clone(),
            description: b.description(),
            used: b.fixed || Arc::strong_count(b) > 1,
        };
        self.0.read().iter().map(one).collect()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // The front end may hold what it is connected to.
        *self.frontend.lock() = None;
        *self.now.write() = Arc::new(NullChar);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chardev::{FileChar, MemoryChar};

    #[test]
    fn back_ends_come_go_and_change() {
        let all = Chardevs::default();
        let first = MemoryChar::new();
        all.add("a", first.clone(), false).unwrap();
        all.add("shared", Arc::new(NullChar), true).unwrap();
        assert!(all.add("a", Arc::new(NullChar), false).is_err());
        assert_eq!(all.list().iter().map(|e| e.used).collect::<Vec<_>>(), [false, true]);
        let used = all.get("a").unwrap();
        used.write(b"one");
        assert!(all.remove("a").unwrap_err().contains("busy") && all.remove("b").is_err());
        let second = MemoryChar::new();
        all.change("a", || Ok((second.clone(), ()))).unwrap();
        used.write(b"two");
        assert_eq!((first.take_output(), second.take_output()), (b"one".to_vec(), b"two".to_vec()));
        let failed =
            all.change("a", || FileChar::new("/nonexistent/x", false).map(|f| (f as _, ())).map_err(|e| e.to_string()));
        assert!(failed.is_err() && all.change("shared", || Ok((second.clone(), ()))).is_err());
        assert_eq!(used.description(), second.description());
        drop(used);
        all.remove("a").unwrap();
        assert!(all.get("a").is_none() && all.remove("shared").is_err());
    }
}
