//! Reads tar archives as they come out of `dpkg-deb --fsys-tarfile`: ustar with GNU long names.

use std::io::{Error, ErrorKind, Read, Result};

const BLOCK: usize = 512;

/// Calls `keep` with the path of each regular file; the content of those for which it returns
/// true goes to `take`. Paths have no leading `./` or `/`.
pub fn read_files(
    mut source: impl Read,
    mut keep: impl FnMut(&str) -> bool,
    mut take: impl FnMut(&str, Vec<u8>) -> Result<()>,
) -> Result<()> {
    let mut long_name: Option<String> = None;
    loop {
        let mut header = [0; BLOCK];
        source.read_exact(&mut header)?;
        if header.iter().all(|&b| b == 0) {
            // The end is two such blocks and padding; the writer wants it all read.
            std::io::copy(&mut source, &mut std::io::sink())?;
            return Ok(());
        }
        check(&header)?;
        let size = octal(&header[124..136])?;
        let padded = size.checked_next_multiple_of(BLOCK as u64).ok_or_else(|| malformed("size"))?;
        match header[156] {
            b'L' => {
                let name = content(&mut source, size, padded)?;
                long_name = Some(text(&name));
            }
            b'0' | 0 => {
                let name = long_name.take().unwrap_or_else(|| short_name(&header));
                let path = name.trim_start_matches("./").trim_start_matches('/');
                if keep(path) {
                    take(path, content(&mut source, size, padded)?)?;
                } else {
                    skip(&mut source, padded)?;
                }
            }
            _ => {
                long_name = None;
                skip(&mut source, padded)?;
            }
        }
    }
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("malformed tar archive: {what}"))
}

fn check(header: &[u8; BLOCK]) -> Result<()> {
    let stored = octal(&header[148..156])?;
    let sum: u64 =
        header.iter().enumerate().map(|(i, &b)| u64::from(if (148..156).contains(&i) { b' ' } else { b })).sum();
    if sum == stored { Ok(()) } else { Err(malformed("checksum")) }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn short_name(header: &[u8; BLOCK]) -> String {
    let name = text(&header[..100]);
    // POSIX archives have a prefix field; GNU's use its place for other things.
    if &header[257..263] == b"ustar\0" && header[345] != 0 {
        format!("{}/{name}", text(&header[345..500]))
    } else {
        name
    }
}

fn octal(field: &[u8]) -> Result<u64> {
    let digits = text(field);
    u64::from_str_radix(digits.trim(), 8).map_err(|_| malformed("number"))
}

fn content(source: &mut impl Read, size: u64, padded: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.by_ref().take(size).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != size {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    skip(source, padded - size)?;
    Ok(bytes)
}

fn skip(source: &mut impl Read, bytes: u64) -> Result<()> {
    let skipped = std::io::copy(&mut source.by_ref().take(bytes), &mut std::io::sink())?;
    if skipped == bytes { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut header = [0; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..136].copy_from_slice(format!("{:011o} ", content.len()).as_bytes());
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar  \0");
        let sum: u64 = header.iter().map(|&b| u64::from(b)).sum::<u64>() + 8 * u64::from(b' ');
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    fn archive() -> Vec<u8> {
        let long = format!("./{}/kernel\0", "folder/".repeat(20));
        [
            entry("./boot/", b'5', b""),
            entry("./boot/vmlinuz", b'0', &[7; 700]),
            entry("././@LongLink", b'L', long.as_bytes()),
            entry("cut", b'0', b"long"),
            entry("./skipped", b'0', &[1; 513]),
            vec![0; 2 * BLOCK],
        ]
        .concat()
    }

    #[test]
    fn files_are_found() {
        let mut found = Vec::new();
        let keep = |path: &str| path != "skipped";
        read_files(archive().as_slice(), keep, |path, bytes| {
            found.push((path.to_owned(), bytes.len()));
            Ok(())
        })
        .unwrap();
        let long = format!("{}/kernel", "folder/".repeat(20));
        assert_eq!(found, [("boot/vmlinuz".to_owned(), 700), (long, 4)]);
    }

    #[test]
    fn damage_is_an_error() {
        let good = archive();
        for length in (0..good.len() - 2 * BLOCK).step_by(97) {
            assert!(read_files(&good[..length], |_| true, |_, _| Ok(())).is_err(), "cut at {length}");
        }
        let mut bad = good;
        bad[BLOCK + 1] ^= 1;
        assert!(read_files(bad.as_slice(), |_| true, |_, _| Ok(())).is_err());
    }
}
