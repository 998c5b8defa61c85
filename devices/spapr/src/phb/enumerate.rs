//! What firmware does with a bus when there is none: numbers for buses behind bridges, addresses for BARs.

use super::{MEMORY32_BUS, Phb};
use rhea_pci::{BarKind, PciBus, PciFunction};

/// I/O addresses begin here, so that none is 0.
const FIRST_IO: u64 = 0x1000;
const COMMAND: u16 = 4;
/// I/O, memory; not bus mastering, which is the driver's to switch on.
const DECODE: u32 = 3;

/// The next free address and the end, of I/O, 32-bit and 64-bit memory.
struct Room([(u64, u64); 3]);

impl Room {
    fn take(&mut self, kind: usize, size: u64) -> Option<u64> {
        let (next, end) = &mut self.0[kind];
        let at = next.checked_next_multiple_of(size.max(1))?;
        let after = at.checked_add(size)?;
        if after > *end {
            return None;
        }
        *next = after;
        Some(at)
    }
    /// Begins a bridge's window.
    fn align(&mut self) {
        self.0[0].0 = self.0[0].0.next_multiple_of(0x1000);
        self.0[1].0 = self.0[1].0.next_multiple_of(0x10_0000);
        self.0[2].0 = self.0[2].0.next_multiple_of(0x10_0000);
    }
}

impl Phb {
    /// Numbers the buses, gives all BARs addresses and switches decoding on. For guests that are started without firmware.
    pub fn enumerate(&self) {
        let w64 = self.memory64;
        let mut room = Room([
            (FIRST_IO, self.io.size),
            (MEMORY32_BUS, MEMORY32_BUS + self.memory32.size),
            (w64.bus, w64.bus + w64.size),
        ]);
        let mut last = 0;
        visit(&self.bus, &mut room, &mut last);
    }
}

/// The address in a BAR, decoded or not.
fn address(function: &dyn PciFunction, index: usize, kind: BarKind) -> u64 {
    let register = 0x10 + 4 * index as u16;
    let low = u64::from(function.config_read(register, 4));
    match kind {
        BarKind::Io => low & !3,
        BarKind::Memory32 => low & !0xf,
        BarKind::Memory64 | BarKind::Registers64 => low & !0xf | u64::from(function.config_read(register + 4, 4)) << 32,
    }
}

/// Which window a BAR is in, and what it takes of it.
fn place(kind: BarKind, size: u64) -> (usize, u64) {
    match kind {
        BarKind::Io => (0, size),
        // Bridges have no window for 64-bit addresses that is not prefetchable.
        BarKind::Memory32 | BarKind::Registers64 => (1, size.max(0x1000)),
        BarKind::Memory64 => (2, size.max(0x1000)),
    }
}

impl Phb {
    /// Gives BARs of a function of the root bus that have no address one that nothing else on the bus has, and switches decoding
    /// on. For functions that come while the guest runs.
    pub fn assign(&self, function: &dyn PciFunction) {
        let bars = |f: &dyn PciFunction| -> Vec<(usize, BarKind, u64)> {
            f.config().declared_bars().into_iter().filter(|b| b.0 <= 5).collect()
        };
        let mut taken: [Vec<(u64, u64)>; 3] = Default::default();
        for other in self.bus().all_functions() {
            for (index, kind, size) in bars(&*other) {
                let (window, size) = place(kind, size);
                let at = address(&*other, index, kind);
                if at != 0 {
                    taken[window].push((at, at.saturating_add(size)));
                }
            }
            if other.secondary().is_some() {
                let read = |offset, size| u64::from(other.config_read(offset, size));
                taken[0].push(((read(0x1c, 1) & 0xf0) << 8, ((read(0x1d, 1) & 0xf0) << 8) + 0x1000));
                taken[1].push(((read(0x20, 2) & 0xfff0) << 16, ((read(0x22, 2) & 0xfff0) << 16) + 0x10_0000));
                let (low, high) = (read(0x28, 4) << 32, read(0x2c, 4) << 32);
                let from = low | (read(0x24, 2) & 0xfff0) << 16;
                let to = (high | (read(0x26, 2) & 0xfff0) << 16).saturating_add(0x10_0000);
                taken[2].push((from, to));
                taken[1].push((from, to));
            }
        }
        let w64 = self.memory64;
        let windows = [
            (FIRST_IO, self.io.size),
            (MEMORY32_BUS, MEMORY32_BUS + self.memory32.size),
            (w64.bus, w64.bus.saturating_add(w64.size)),
        ];
        let mut own = bars(function);
        own.sort_by_key(|(_, _, size)| std::cmp::Reverse(*size));
        for (index, kind, size) in own {
            let (window, size) = place(kind, size);
            if address(function, index, kind) != 0 {
                continue;
            }
            let Some(at) = gap(&taken[window], windows[window], size) else { continue };
            taken[window].push((at, at + size));
            let register = 0x10 + 4 * index as u16;
            function.config_write(register, 4, at as u32);
            if kind.is_wide() {
                function.config_write(register + 4, 4, (at >> 32) as u32);
            }
        }
        let command = function.config_read(COMMAND, 2);
        function.config_write(COMMAND, 2, command | DECODE);
    }
}

/// The first naturally aligned range of `size` bytes in a window that touches nothing taken.
fn gap(taken: &[(u64, u64)], window: (u64, u64), size: u64) -> Option<u64> {
    let mut at = window.0.checked_next_multiple_of(size)?;
    loop {
        let end = at.checked_add(size).filter(|e| *e <= window.1)?;
        match taken.iter().filter(|(from, to)| from < to && *from < end && at < *to).map(|t| t.1).max() {
            Some(after) => at = after.checked_next_multiple_of(size)?,
            None => return Some(at),
        }
    }
}

fn visit(bus: &PciBus, room: &mut Room, last: &mut u8) {
    for function in bus.functions() {
        assign(&*function, room);
        if let Some(behind) = function.secondary() {
            bridge(&*function, behind, room, last);
        }
        let command = function.config_read(COMMAND, 2);
        function.config_write(COMMAND, 2, command | DECODE);
    }
}

fn assign(function: &dyn PciFunction, room: &mut Room) {
    let mut bars = function.config().declared_bars();
    // Large ones first, so that nothing is lost between them.
    bars.sort_by_key(|(_, _, size)| std::cmp::Reverse(*size));
    for (index, kind, size) in bars {
        // Expansion ROMs stay off.
        if index > 5 {
            continue;
        }
        let register = 0x10 + 4 * index as u16;
        let (from, size) = place(kind, size);
        let Some(at) = room.take(from, size) else { continue };
        function.config_write(register, 4, at as u32);
        if kind.is_wide() {
            function.config_write(register + 4, 4, (at >> 32) as u32);
        }
    }
}

/// Numbers and windows of a PCI-to-PCI bridge (PCI-to-PCI bridge specification 3.2.5).
fn bridge(function: &dyn PciFunction, behind: &PciBus, room: &mut Room, last: &mut u8) {
    if *last == u8::MAX {
        return;
    }
    *last += 1;
    let secondary = *last;
    function.config_write(0x19, 1, secondary.into());
    // Everything, while what is behind is being numbered.
    function.config_write(0x1a, 1, 0xff);
    room.align();
    let from = room.0.map(|(next, _)| next);
    visit(behind, room, last);
    room.align();
    let to = room.0.map(|(next, _)| next);
    function.config_write(0x18, 1, behind.upstream().map_or(0, |s| s.bus().number().into()));
    function.config_write(0x1a, 1, (*last).into());
    // Base above limit: closed.
    let window = |kind: usize| if from[kind] == to[kind] { (u64::MAX, 0) } else { (from[kind], to[kind] - 1) };
    let (base, limit) = window(0);
    function.config_write(0x1c, 1, (base >> 8) as u32 & 0xf0);
    function.config_write(0x1d, 1, (limit >> 8) as u32 & 0xf0);
    let (base, limit) = window(1);
    function.config_write(0x20, 4, (limit as u32 & 0xfff0_0000) | (base >> 16) as u32 & 0xfff0);
    let (base, limit) = window(2);
    function.config_write(0x24, 4, (limit as u32 & 0xfff0_0000) | (base >> 16) as u32 & 0xfff0);
    function.config_write(0x28, 4, (base >> 32) as u32);
    function.config_write(0x2c, 4, (limit >> 32) as u32);
}

#[cfg(test)]
mod tests {
    use super::gap;

    #[test]
    fn gaps_are_aligned_and_free() {
        let taken = [(0x1000, 0x2000), (0x2800, 0x3000), (0x5000, 0x4000)];
        assert_eq!(gap(&taken, (0x1000, 0x1_0000), 0x800), Some(0x2000));
        assert_eq!(gap(&taken, (0x1000, 0x1_0000), 0x1000), Some(0x3000));
        assert_eq!(gap(&taken, (0x1000, 0x3000), 0x1000), None);
        assert_eq!(gap(&[], (u64::MAX - 1, u64::MAX), 0x1000), None);
    }
}
