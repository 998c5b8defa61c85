//! Static ELF files.

/// One loadable segment; `size` may exceed the bytes given (the rest is zero).
#[derive(Debug)]
pub struct Segment {
    pub addr: u64,
    pub bytes: Vec<u8>,
    pub size: u64,
    pub executable: bool,
}

/// What an ELF header says of the processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// e_machine.
    pub number: u16,
    pub big_endian: bool,
    /// e_flags.
    pub flags: u32,
}

/// A static 64-bit ELF file.
pub fn elf(machine: Machine, entry: u64, segments: &[Segment]) -> Vec<u8> {
    let data = if machine.big_endian { 2 } else { 1 };
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, data, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let put = |out: &mut Vec<u8>, v: u64, n: usize| {
        if machine.big_endian {
            out.extend_from_slice(&v.to_be_bytes()[8 - n..]);
        } else {
            out.extend_from_slice(&v.to_le_bytes()[..n]);
        }
    };
    for (v, n) in [
        (2, 2),
        (machine.number.into(), 2),
        (1, 4),
        (entry, 8),
        (64, 8),
        (0, 8),
        (machine.flags.into(), 4),
        (64, 2),
        (56, 2),
    ] {
        put(&mut out, v, n);
    }
    for (v, n) in [(segments.len() as u64, 2), (64, 2), (0, 2), (0, 2)] {
        put(&mut out, v, n);
    }
    let mut at = 0x1000u64;
    for s in segments {
        put(&mut out, 1, 4);
        put(&mut out, if s.executable { 7 } else { 6 }, 4);
        for v in [at, s.addr, s.addr, s.bytes.len() as u64, s.size.max(s.bytes.len() as u64), 0x1000] {
            put(&mut out, v, 8);
        }
        at += (s.bytes.len() as u64).next_multiple_of(0x1000);
    }
    for s in segments {
        out.resize(out.len().next_multiple_of(0x1000), 0);
        out.extend_from_slice(&s.bytes);
    }
    out
}
