//! Samples of what the processors do, for profiles of the guest.

use crate::cpu::BoardGuest;
use rhea_ir::guest::Guest;
use rhea_memory::view::Lookup;
use rhea_memory::{AddressSpace, Gva};

/// How a processor's calling convention links the frames of its functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameLink {
    /// A frame begins with the address of its caller's, then the address it returns to (the frame pointer of x86-64 and AArch64).
    Together,
    /// A frame begins with the address of its caller's, which holds the address returned to at offset 16 (ELFv2 of Power).
    InCaller,
}

/// Where a processor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The innermost frame.
    pub pointer: u64,
    pub link: FrameLink,
    pub big_endian: bool,
    /// Is it a user program, not its kernel or firmware?
    pub user: bool,
}

/// Where a processor was, as guest-virtual addresses: the instruction first, then what it returns to, inner calls first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub user: bool,
    pub addresses: Vec<u64>,
}

/// Calls that are followed.
const DEPTH: usize = 64;

/// Follows the frames with `read`, which reads a doubleword of the guest. Ends where the guest's memory makes no sense as frames:
/// they lie at rising, aligned addresses.
fn follow(pc: u64, frame: &Frame, mut read: impl FnMut(u64) -> Option<u64>) -> Sample {
    let mut addresses = vec![pc];
    let mut at = frame.pointer;
    while addresses.len() < DEPTH && at != 0 && at.is_multiple_of(8) {
        let Some(next) = read(at) else { break };
        let back = match frame.link {
            FrameLink::Together => at.wrapping_add(8),
            FrameLink::InCaller => next.wrapping_add(16),
        };
        if frame.link == FrameLink::InCaller && next <= at {
            break;
        }
        match read(back) {
            Some(address) if address != 0 => addresses.push(address),
            _ => break,
        }
        if next <= at {
            break;
        }
        at = next;
    }
    Sample { user: frame.user, addresses }
}

/// A doubleword at a virtual address, if it is in RAM.
fn read<G: Guest>(cpu: &mut G, space: &AddressSpace, at: Gva, big_endian: bool) -> Option<u64> {
    let t = cpu.walk_debug(at.0)?;
    if t.device || t.secure {
        return None;
    }
    let gpa = t.page.offset(at.0 & 4095);
    // Devices are not to be read for a profile.
    let view = space.view();
    let Lookup::Ram { block, offset, .. } = view.lookup(gpa) else { return None };
    let word = block.load(offset, 8).ok()?;
    Some(if big_endian { word.swap_bytes() } else { word })
}

/// Where `cpu` is; `None` if it waits.
pub fn sample<G: BoardGuest>(cpu: &mut G, space: &AddressSpace) -> Option<Sample> {
    if cpu.is_halted() {
        return None;
    }
    let (pc, frame) = (cpu.instruction(), cpu.frame());
    Some(follow(pc, &frame, |at| read(cpu, space, Gva(at), frame.big_endian)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn stack(link: FrameLink, pointer: u64, words: &[(u64, u64)]) -> Vec<u64> {
        let words: HashMap<u64, u64> = words.iter().copied().collect();
        let frame = Frame { pointer, link, big_endian: false, user: false };
        follow(1, &frame, |at| words.get(&at).copied()).addresses
    }

    #[test]
    fn frames_are_followed() {
        let words = [(0x100, 0x140), (0x108, 2), (0x140, 0), (0x148, 3)];
        assert_eq!(stack(FrameLink::Together, 0x100, &words), [1, 2, 3]);
        let words = [(0x100, 0x140), (0x150, 2), (0x140, 0x180), (0x190, 3), (0x180, 0)];
        assert_eq!(stack(FrameLink::InCaller, 0x100, &words), [1, 2, 3]);
    }

    #[test]
    fn what_are_no_frames_ends() {
        // A circle, an odd address, nothing there, too many.
        assert_eq!(stack(FrameLink::Together, 0x100, &[(0x100, 0x100), (0x108, 2)]), [1, 2]);
        assert_eq!(stack(FrameLink::Together, 0x101, &[(0x101, 0x200), (0x109, 2)]), [1]);
        assert_eq!(stack(FrameLink::InCaller, 0x100, &[(0x100, 0x80), (0x90, 2)]), [1]);
        assert_eq!(stack(FrameLink::InCaller, 0x100, &[]), [1]);
        let many: Vec<(u64, u64)> = (1..200).flat_map(|n| [(n * 16, n * 16 + 16), (n * 16 + 8, n)]).collect();
        assert_eq!(stack(FrameLink::Together, 16, &many).len(), DEPTH);
    }
}
