//! Management datagrams (LoPAPR 17.3.4).

use super::MAX_IU;
use rhea_device::DmaHandle;

const EMPTY_IU: u32 = 1;
const ADAPTER_INFO: u32 = 3;
const CAPABILITIES: u32 = 5;

const SUCCESS: u16 = 0;
const NOT_SUPPORTED: u16 = 0xf1;
const FAILED: u16 = 0xf7;
/// Bytes of a datagram: type, status, length, tag, buffer.
const LEN: usize = 24;
/// Bytes of one transfer.
const MAX_TRANSFER: u32 = 4 << 20;
/// The platform's kind of partition.
const LINUX: u32 = 2;

/// Version of the protocol, name and number of the partition that serves, its kind, bytes of a transfer.
fn adapter_info() -> Vec<u8> {
    let mut b = vec![0; 148];
    b[..4].copy_from_slice(b"16.a");
    b[8..12].copy_from_slice(b"rhea");
    b[108..112].copy_from_slice(&1u32.to_be_bytes());
    b[112..116].copy_from_slice(&LINUX.to_be_bytes());
    b[116..120].copy_from_slice(&MAX_TRANSFER.to_be_bytes());
    b
}

/// The answer to a datagram.
pub fn handle(iu: &[u8; MAX_IU], dma: &DmaHandle) -> Vec<u8> {
    let kind = u32::from_be_bytes([iu[0], iu[1], iu[2], iu[3]]);
    let len = usize::from(u16::from_be_bytes([iu[6], iu[7]]));
    let buffer = iu[16..24].iter().fold(0, |v, b| v << 8 | u64::from(*b));
    let done = |ok: bool| if ok { SUCCESS } else { FAILED };
    let status = match kind {
        EMPTY_IU => SUCCESS,
        ADAPTER_INFO => {
            let mut info = adapter_info();
            info.truncate(len);
            done(dma.write_ram(buffer, &info).is_ok())
        }
        CAPABILITIES => {
            let mut caps = vec![0; len.min(92)];
            let read = dma.read_ram(buffer, &mut caps).is_ok();
            // Neither migration nor reservation is supported by the server: two halves of a word each.
            for at in [74, 75, 86, 87] {
                if let Some(byte) = caps.get_mut(at) {
                    *byte = 0;
                }
            }
            done(read && dma.write_ram(buffer, &caps).is_ok())
        }
        _ => NOT_SUPPORTED,
    };
    let mut answer = iu[..LEN].to_vec();
    answer[4..6].copy_from_slice(&status.to_be_bytes());
    answer
}
