//! A display as those see it who look at it: rendered when somebody asks, or regularly while somebody watches.

use crate::image::{self, ImageFormat};
use crate::{ByteOrder, Rect, Surface};
use parking_lot::{Condvar, Mutex};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How blinking things (cursor, text) are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blink {
    pub cursor: bool,
    pub text: bool,
}

impl Blink {
    /// All is shown: a picture that does not depend on the moment.
    pub const SHOWN: Self = Self { cursor: true, text: true };

    /// At a time in nanoseconds: the cursor changes every 8 frames of 1/60 s, text every 16.
    #[must_use]
    pub fn at(ns: u64) -> Self {
        let frame = ns / (1_000_000_000 / 60);
        Self { cursor: frame & 8 == 0, text: frame & 16 == 0 }
    }
}

/// A device that shows a picture.
pub trait Display: Send + Sync {
    /// Name for lists, like `VGA`.
    fn name(&self) -> &str;
    /// Brings the surface up to date: resizes it if needed and puts the lines. The frame has begun.
    fn render(&self, surface: &mut Surface, blink: Blink);
    /// The user would like this size (a window was resized); true if the guest can learn of it.
    fn prefer_size(&self, _width: u32, _height: u32) -> bool {
        false
    }
    /// The order of bytes in pixels that the guest means, unless it has said so itself.
    fn set_byte_order(&self, _order: ByteOrder) {}
}

/// Time between frames while things move, and while nothing does.
const FAST: Duration = Duration::from_millis(30);
const SLOW: Duration = Duration::from_millis(120);
/// Nothing moves if nothing did for this long.
const QUIET: Duration = Duration::from_secs(2);

#[derive(Default)]
struct State {
    surface: Surface,
    /// The frame of the last change.
    changed: u64,
    watchers: usize,
    /// A thread renders.
    running: bool,
    /// Somebody did something: render soon.
    poked: bool,
    /// Told after a frame with changes.
    listeners: Vec<(u64, Arc<dyn Fn() + Send + Sync>)>,
    next_listener: u64,
}

/// A display with its picture.
pub struct Console {
    display: Arc<dyn Display>,
    state: Mutex<State>,
    /// Told after a frame with changes.
    news: Condvar,
    /// Told to the rendering thread.
    poke: Condvar,
}

impl Console {
    #[must_use]
    pub fn new(display: Arc<dyn Display>) -> Arc<Self> {
        Arc::new(Self { display, state: Mutex::default(), news: Condvar::new(), poke: Condvar::new() })
    }
    #[must_use]
    pub fn display(&self) -> &Arc<dyn Display> {
        &self.display
    }
    /// The picture of now, with everything that blinks shown.
    #[must_use]
    pub fn picture(&self) -> Surface {
        let mut surface = Surface::default();
        surface.begin();
        self.display.render(&mut surface, Blink::SHOWN);
        surface
    }
    /// The picture of now as a file.
    ///
    /// # Errors
    /// The encoder's error.
    pub fn screendump(&self, format: ImageFormat) -> std::io::Result<Vec<u8>> {
        image::encode(&self.picture(), format)
    }
    /// Renders regularly as long as the handle lives.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn watch(self: &Arc<Self>) -> std::io::Result<Watcher> {
        self.watch_with(|| ())
    }
    /// The same; `changed` is called after each frame with changes.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn watch_with(self: &Arc<Self>, changed: impl Fn() + Send + Sync + 'static) -> std::io::Result<Watcher> {
        let mut state = self.state.lock();
        if !state.running {
            self.render(&mut state);
            let weak = Arc::downgrade(self);
            std::thread::Builder::new().name("rhea-display".to_owned()).spawn(move || run(&weak))?;
            state.running = true;
        }
        state.watchers += 1;
        state.next_listener += 1;
        let id = state.next_listener;
        state.listeners.push((id, Arc::new(changed)));
        drop(state);
        Ok(Watcher { console: self.clone(), id })
    }
    /// One frame.
    fn render(&self, state: &mut State) {
        let surface = &mut state.surface;
        surface.begin();
        self.display.render(surface, Blink::at(rhea_clock::monotonic_ns()));
        let before = surface.frame() - 1;
        let all = Rect { x: 0, y: 0, width: surface.width(), height: surface.height() };
        if !surface.changes(before, all).is_empty() {
            state.changed = surface.frame();
            self.news.notify_all();
        }
    }
}

fn run(console: &Weak<Console>) {
    let mut moved = Instant::now();
    while let Some(console) = console.upgrade() {
        let mut state = console.state.lock();
        let wait = if moved.elapsed() < QUIET { FAST } else { SLOW };
        if !state.poked {
            console.poke.wait_for(&mut state, wait);
        }
        if state.watchers == 0 {
            state.running = false;
            return;
        }
        if std::mem::take(&mut state.poked) {
            moved = Instant::now();
        }
        let before = state.changed;
        console.render(&mut state);
        let listeners = if state.changed != before { state.listeners.clone() } else { Vec::new() };
        drop(state);
        if !listeners.is_empty() {
            moved = Instant::now();
            listeners.iter().for_each(|(_, changed)| changed());
        }
        // Pokes do not make frames come faster.
        if wait == FAST {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Keeps a console rendering.
pub struct Watcher {
    console: Arc<Console>,
    id: u64,
}

impl Watcher {
    /// Looks at the picture, which does not change meanwhile.
    pub fn with<R>(&self, f: impl FnOnce(&Surface) -> R) -> R {
        f(&self.console.state.lock().surface)
    }
    /// Waits until the picture has changed after `frame`, at most `timeout`; true if it has.
    #[must_use]
    pub fn wait(&self, frame: u64, timeout: Duration) -> bool {
        let mut state = self.console.state.lock();
        let end = Instant::now() + timeout;
        while state.changed <= frame {
            if self.console.news.wait_until(&mut state, end).timed_out() {
                break;
            }
        }
        state.changed > frame
    }
    /// The user did something: the picture may change soon.
    pub fn poke(&self) {
        self.console.state.lock().poked = true;
        self.console.poke.notify_one();
    }
    #[must_use]
    pub fn console(&self) -> &Arc<Console> {
        &self.console
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        {
            let mut state = self.console.state.lock();
            state.watchers -= 1;
            state.listeners.retain(|(id, _)| *id != self.id);
        }
        self.console.poke.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Colour(AtomicU32);
    impl Display for Colour {
        fn name(&self) -> &str {
            "colour"
        }
        fn render(&self, surface: &mut Surface, _blink: Blink) {
            surface.resize(32, 16);
            surface.fill(self.0.load(Ordering::SeqCst));
        }
    }

    #[test]
    fn watching() {
        let colour = Arc::new(Colour(AtomicU32::new(1)));
        let console = Console::new(colour.clone());
        assert_eq!(console.picture().pixel(0, 0), 1);
        let watcher = console.watch().unwrap();
        let seen = watcher.with(Surface::frame);
        assert!(!watcher.wait(seen, Duration::from_millis(60)));
        colour.0.store(2, Ordering::SeqCst);
        watcher.poke();
        assert!(watcher.wait(seen, Duration::from_secs(10)));
        assert_eq!(watcher.with(|s| s.pixel(31, 15)), 2);
        drop(watcher);
        let end = Instant::now() + Duration::from_secs(10);
        while console.state.lock().running && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!console.state.lock().running);
    }
}
