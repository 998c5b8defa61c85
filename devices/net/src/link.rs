//! The wire between a back end and the guest's card, which can be unplugged.

use crate::{NetBackend, NetFrontend, Offload, Offloads, ReceiveFilter};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Told when the guest has changed which frames it wants.
pub type FilterWatcher = Arc<dyn Fn() + Send + Sync>;

/// The card at a link's other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its id, or its model with a number: `net0`, `e1000e.0`.
    pub name: String,
    pub model: String,
}

#[derive(Default)]
struct Parts {
    card: Option<Card>,
    frontend: Option<Arc<dyn NetFrontend>>,
    watcher: Option<FilterWatcher>,
}

/// A back end behind a wire. While it is down frames are lost both ways.
pub struct Link {
    backend: Arc<dyn NetBackend>,
    up: Arc<AtomicBool>,
    /// The watcher was told, and nobody has looked since.
    told: AtomicBool,
    parts: Mutex<Parts>,
}

/// The card as the back end sees it.
struct FarEnd {
    up: Arc<AtomicBool>,
    frontend: Arc<dyn NetFrontend>,
}

impl NetFrontend for FarEnd {
    fn receive(&self, frame: &[u8], offload: Offload) -> bool {
        !self.up.load(Ordering::Acquire) || self.frontend.receive(frame, offload)
    }
}

impl Link {
    #[must_use]
    pub fn new(backend: Arc<dyn NetBackend>) -> Arc<Self> {
        let (up, told, parts) = (Arc::new(AtomicBool::new(true)), AtomicBool::new(false), Mutex::default());
        Arc::new(Self { backend, up, told, parts })
    }
    /// Notes who is at the other end, and who is told of its filter.
    pub fn fit(&self, card: Card, watcher: FilterWatcher) {
        let mut parts = self.parts.lock();
        (parts.card, parts.watcher) = (Some(card), Some(watcher));
    }
    /// The card is gone; the link is up for the next one.
    pub fn take_card(&self) {
        *self.parts.lock() = Parts::default();
        self.up.store(true, Ordering::Release);
        self.told.store(false, Ordering::Release);
    }
    #[must_use]
    pub fn card(&self) -> Option<Card> {
        self.parts.lock().card.clone()
    }
    /// Plugs the wire in or pulls it out; the card notices.
    pub fn set_link(&self, up: bool) {
        if self.up.swap(up, Ordering::AcqRel) == up {
            return;
        }
        let frontend = self.parts.lock().frontend.clone();
        if let Some(frontend) = frontend {
            frontend.link_changed(up);
        }
        // A frame that waits for room is lost now.
        self.backend.receive_ready();
    }
    /// Which frames the guest wants, if the card tells; from now on the watcher is told of the next change.
    #[must_use]
    pub fn filter(&self) -> Option<ReceiveFilter> {
        let frontend = self.parts.lock().frontend.clone();
        self.told.store(false, Ordering::Release);
        frontend.and_then(|f| f.filter())
    }
}

impl NetBackend for Link {
    fn send(&self, frame: &[u8], offload: Offload) {
        if self.up.load(Ordering::Acquire) {
            self.backend.send(frame, offload);
        }
    }
    fn flush(&self) {
        self.backend.flush();
    }
    fn set_frontend(&self, frontend: Arc<dyn NetFrontend>) {
        self.parts.lock().frontend = Some(frontend.clone());
        self.backend.set_frontend(Arc::new(FarEnd { up: self.up.clone(), frontend }));
    }
    fn receive_ready(&self) {
        self.backend.receive_ready();
    }
    fn offloads(&self) -> Offloads {
        self.backend.offloads()
    }
    fn set_frontend_offloads(&self, offloads: Offloads) {
        self.backend.set_frontend_offloads(offloads);
    }
    fn link_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }
    fn restore_link(&self, up: bool) {
        self.up.store(up, Ordering::Release);
    }
    fn filter_changed(&self) {
        if !self.told.swap(true, Ordering::AcqRel) {
            let watcher = self.parts.lock().watcher.clone();
            if let Some(watcher) = watcher {
                watcher();
            }
        }
    }
    fn description(&self) -> String {
        let state = if self.link_up() { "up" } else { "down" };
        match self.card() {
            Some(Card { name, model }) => {
                format!("{}\n \\ {name}: type=nic,model={model},link={state}", self.backend.description())
            }
            None => self.backend.description(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Host {
        sent: AtomicUsize,
        front: Mutex<Option<Arc<dyn NetFrontend>>>,
    }
    impl NetBackend for Host {
        fn send(&self, _frame: &[u8], _offload: Offload) {
            self.sent.fetch_add(1, Ordering::SeqCst);
        }
        fn set_frontend(&self, frontend: Arc<dyn NetFrontend>) {
            *self.front.lock() = Some(frontend);
        }
        fn receive_ready(&self) {}
        fn description(&self) -> String {
            "host".to_owned()
        }
    }
    #[derive(Default)]
    struct Guest {
        received: AtomicUsize,
        changes: Mutex<Vec<bool>>,
    }
    impl NetFrontend for Guest {
        fn receive(&self, _frame: &[u8], _offload: Offload) -> bool {
            self.received.fetch_add(1, Ordering::SeqCst);
            false
        }
        fn link_changed(&self, up: bool) {
            self.changes.lock().push(up);
        }
    }

    #[test]
    fn frames_are_lost_while_the_link_is_down() {
        let (host, guest, tells) =
            (Arc::new(Host::default()), Arc::new(Guest::default()), Arc::new(AtomicUsize::new(0)));
        let link = Link::new(host.clone());
        let count = tells.clone();
        let watcher: FilterWatcher = Arc::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        link.fit(Card { name: "a".to_owned(), model: "m".to_owned() }, watcher);
        link.set_frontend(guest.clone());
        let exchange = || {
            link.send(&[0; 14], Offload::default());
            let front = host.front.lock().clone();
            front.is_some_and(|f| f.receive(&[0; 14], Offload::default()))
        };
        assert!(!exchange(), "the guest has no room");
        link.set_link(true);
        link.set_link(false);
        assert!(exchange(), "the frame is lost");
        assert!(link.description().ends_with("a: type=nic,model=m,link=down"), "{}", link.description());
        link.set_link(true);
        assert!(!exchange());
        let seen = (host.sent.load(Ordering::SeqCst), guest.received.load(Ordering::SeqCst));
        assert_eq!((seen, guest.changes.lock().clone()), ((2, 2), vec![false, true]));
        // One is told once until it has looked.
        link.filter_changed();
        link.filter_changed();
        assert_eq!(tells.load(Ordering::SeqCst), 1);
        assert_eq!(link.filter(), None);
        link.filter_changed();
        assert_eq!(tells.load(Ordering::SeqCst), 2);
    }
}
