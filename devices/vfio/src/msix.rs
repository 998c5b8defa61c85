//! MSI-X's table and pending bits as the guest sees them (PCI Express base specification 7.7.2). Those of the function are the host's.

use crate::config::MsixPlace;
use crate::interrupts::Message;
use parking_lot::Mutex;
use std::sync::OnceLock;

pub const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;
const ENTRY: u64 = 16;
const MASKED: u32 = 1;

/// What is done about a vector that changed: its number.
type Changed = Box<dyn Fn(u32) + Send + Sync>;
/// 64 pending bits, from a vector on.
type Pending = Box<dyn Fn(u32) -> u64 + Send + Sync>;

struct State {
    control: u16,
    /// Address, low and high, data, control.
    entries: Vec<[u32; 4]>,
}

/// The table.
pub struct Table {
    place: MsixPlace,
    state: Mutex<State>,
    changed: OnceLock<Changed>,
    pending: OnceLock<Pending>,
}

impl Table {
    pub fn new(place: MsixPlace) -> Self {
        let entries = vec![[0, 0, 0, MASKED]; usize::from(place.vectors)];
        Self {
            place,
            state: Mutex::new(State { control: 0, entries }),
            changed: OnceLock::new(),
            pending: OnceLock::new(),
        }
    }
    /// Whom to tell of changed vectors, and to ask what is pending; once.
    pub fn connect(&self, changed: Changed, pending: Pending) {
        let _ = self.changed.set(changed);
        let _ = self.pending.set(pending);
    }
    pub fn vectors(&self) -> u32 {
        self.place.vectors.into()
    }
    /// Writes a message, not its mask.
    pub fn program(&self, vector: u32, address: u64, data: u32) {
        let ((bar, start), at) = (self.place.table, u64::from(vector) * ENTRY);
        if at < self.table_len() {
            self.write(bar, start + at, 8, address);
            self.write(bar, start + at + 8, 4, data.into());
        }
    }
    fn table_len(&self) -> u64 {
        u64::from(self.place.vectors) * ENTRY
    }
    fn pending_len(&self) -> u64 {
        u64::from(self.place.vectors).div_ceil(64) * 8
    }
    /// Start and length of what is in a BAR.
    pub fn places(&self, bar: usize) -> Vec<(u64, u64)> {
        let all = [(self.place.table, self.table_len()), (self.place.pending, self.pending_len())];
        all.into_iter().filter(|((b, _), _)| *b == bar).map(|((_, at), len)| (at, len)).collect()
    }
    fn inside((of, start): (usize, u64), len: u64, bar: usize, offset: u64) -> Option<u64> {
        offset.checked_sub(start).filter(|at| of == bar && *at < len)
    }
    /// `None`: this is something else of the BAR.
    pub fn read(&self, bar: usize, offset: u64, size: u8) -> Option<u64> {
        let cut = |low: u64, at: u64| {
            let value = low >> (at % 8 * 8);
            if size >= 8 { value } else { value & ((1 << (size * 8)) - 1) }
        };
        if let Some(at) = Self::inside(self.place.table, self.table_len(), bar, offset) {
            let state = self.state.lock();
            let entry = state.entries.get((at / ENTRY) as usize)?;
            let half = if at % ENTRY < 8 { [entry[0], entry[1]] } else { [entry[2], entry[3]] };
            return Some(cut(u64::from(half[0]) | u64::from(half[1]) << 32, at));
        }
        let at = Self::inside(self.place.pending, self.pending_len(), bar, offset)?;
        let bits = self.pending.get().map_or(0, |f| f((at / 8 * 64) as u32));
        Some(cut(bits, at))
    }
    /// False: this is something else of the BAR. Writes are of 4 or 8 aligned bytes; others are not allowed, and lost.
    pub fn write(&self, bar: usize, offset: u64, size: u8, value: u64) -> bool {
        if let Some(at) = Self::inside(self.place.table, self.table_len(), bar, offset) {
            if !matches!(size, 4 | 8) || !at.is_multiple_of(size.into()) {
                return true;
            }
            let n = (at / ENTRY) as usize;
            let changed = {
                let mut state = self.state.lock();
                let Some(entry) = state.entries.get_mut(n) else { return true };
                let before = *entry;
                let first = (at % ENTRY / 4) as usize;
                for (word, value) in (first..4).zip([value as u32, (value >> 32) as u32]).take(usize::from(size / 4)) {
                    entry[word] = match word {
                        0 => value & !3,
                        3 => value & MASKED,
                        _ => value,
                    };
                }
                before != *entry
            };
            if changed && let Some(f) = self.changed.get() {
                f(n as u32);
            }
            return true;
        }
        Self::inside(self.place.pending, self.pending_len(), bar, offset).is_some()
    }
    /// Takes over Message Control; true: it changed.
    pub fn set_control(&self, control: u16) -> bool {
        let control = control & (ENABLE | FUNCTION_MASK);
        std::mem::replace(&mut self.state.lock().control, control) != control
    }
    /// What a vector sends; `None`: it is masked, or there is none.
    pub fn message(&self, n: u32) -> Option<Message> {
        let state = self.state.lock();
        let [low, high, data, control] = *state.entries.get(n as usize)?;
        let open = state.control & FUNCTION_MASK == 0 && control & MASKED == 0;
        open.then(|| Message { address: u64::from(high) << 32 | u64::from(low), data })
    }
    /// Of all vectors.
    pub fn messages(&self) -> Vec<Option<Message>> {
        (0..u32::from(self.place.vectors)).map(|n| self.message(n)).collect()
    }
    pub fn entries(&self) -> Vec<[u32; 4]> {
        self.state.lock().entries.clone()
    }
    /// Restores as many as there are. Nobody is told.
    pub fn set_entries(&self, entries: Vec<[u32; 4]>) {
        let of = &mut self.state.lock().entries;
        of.iter_mut().zip(entries).for_each(|(entry, [low, high, data, control])| {
            *entry = [low & !3, high, data, control & MASKED];
        });
    }
    pub fn reset(&self) {
        let mut state = self.state.lock();
        state.control = 0;
        state.entries.fill([0, 0, 0, MASKED]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn registers() {
        let place = MsixPlace { at: 0x60, vectors: 3, table: (1, 0x1000), pending: (2, 0x800) };
        let table = Table::new(place);
        let seen: Arc<Mutex<Vec<u32>>> = Arc::default();
        let told = seen.clone();
        table.connect(Box::new(move |n| told.lock().push(n)), Box::new(|first| if first == 0 { 0x5 } else { 0 }));
        assert_eq!((table.places(0), table.places(1), table.places(2)), (vec![], vec![(0x1000, 48)], vec![(0x800, 8)]));
        assert!(!table.write(0, 0x1000, 4, 1) && !table.write(1, 0xffc, 4, 1) && !table.write(1, 0x1030, 4, 1));
        assert!(table.write(1, 0x1010, 8, 0x12_fee0_0003));
        assert!(table.write(1, 0x1018, 4, 0x41) && table.write(1, 0x101c, 4, 0xff));
        assert_eq!((table.read(1, 0x1010, 8), table.read(1, 0x1014, 4)), (Some(0x12_fee0_0000), Some(0x12)));
        assert_eq!((table.read(1, 0x1018, 8), table.read(1, 0x101c, 1)), (Some(0x1_0000_0041), Some(1)));
        assert_eq!(table.message(1), None);
        assert!(table.write(1, 0x101c, 4, 0) && table.set_control(ENABLE));
        assert_eq!(table.message(1), Some(Message { address: 0x12_fee0_0000, data: 0x41 }));
        assert!(table.set_control(ENABLE | FUNCTION_MASK) && !table.set_control(ENABLE | FUNCTION_MASK | 3));
        assert_eq!((table.message(1), table.messages().len()), (None, 3));
        // What is too small or crooked is lost; pending bits are read-only.
        assert!(table.write(1, 0x1011, 1, 9) && table.write(1, 0x1014, 8, 9) && table.write(2, 0x800, 4, 0));
        assert_eq!(
            (table.read(2, 0x800, 4), table.read(2, 0x804, 4), table.read(2, 0x808, 4)),
            (Some(5), Some(0), None)
        );
        assert_eq!(*seen.lock(), [1, 1, 1]);
        table.reset();
        assert_eq!((table.message(1), table.message(9)), (None, None));
    }
}
