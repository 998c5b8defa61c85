//! Sets of file descriptors that other programs opened (`-add-fd`, `add-fd`): `/dev/fdset/ID` as a file name stands for one.

use parking_lot::Mutex;
use rustix::fs::{OFlags, fcntl_getfl};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

/// A descriptor, and what the program that gave it says about it.
type Member = (OwnedFd, Option<String>);

/// Descriptors are the process's, and so are their sets.
static SETS: Mutex<BTreeMap<i64, Vec<Member>>> = Mutex::new(BTreeMap::new());

/// One descriptor in [`list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub set: i64,
    pub fd: RawFd,
    pub opaque: Option<String>,
}

/// Adds a descriptor to a set, or to a new one: the set's number.
pub fn add(set: Option<i64>, fd: OwnedFd, opaque: Option<String>) -> i64 {
    let mut sets = SETS.lock();
    let id = set.unwrap_or_else(|| (0..).find(|id| !sets.contains_key(id)).unwrap_or(0));
    sets.entry(id).or_default().push((fd, opaque));
    id
}

/// Takes a descriptor, or all, out of a set; false: there is none. Files opened through it stay open.
pub fn remove(set: i64, fd: Option<i64>) -> bool {
    let mut sets = SETS.lock();
    let Some(members) = sets.get_mut(&set) else { return false };
    let before = members.len();
    members.retain(|(have, _)| fd.is_some_and(|fd| fd != i64::from(have.as_raw_fd())));
    let removed = members.len() != before;
    if members.is_empty() {
        sets.remove(&set);
    }
    removed
}

/// All descriptors, set after set.
#[must_use]
pub fn list() -> Vec<Entry> {
    let sets = SETS.lock();
    let all = sets.iter().flat_map(|(set, members)| members.iter().map(move |(fd, opaque)| (set, fd, opaque)));
    all.map(|(set, fd, opaque)| Entry { set: *set, fd: fd.as_raw_fd(), opaque: opaque.clone() }).collect()
}

/// A file of a set, if `path` names one; `write`: for reading and writing, otherwise for reading.
///
/// # Errors
/// The set has no descriptor for that.
pub fn open(path: &Path, write: bool) -> Option<Result<File>> {
    let id: i64 = path.to_str()?.strip_prefix("/dev/fdset/")?.parse().ok()?;
    let wanted = if write { OFlags::RDWR } else { OFlags::RDONLY };
    let sets = SETS.lock();
    let fits = |fd: &OwnedFd| fcntl_getfl(fd).is_ok_and(|flags| flags & OFlags::RWMODE == wanted);
    let found = sets.get(&id).and_then(|set| set.iter().find(|(fd, _)| fits(fd)));
    Some(match found {
        Some((fd, _)) => fd.try_clone().map(File::from),
        None => {
            let what = if write { "reading and writing" } else { "reading" };
            Err(Error::new(ErrorKind::PermissionDenied, format!("the set has no descriptor for {what}")))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let null = |write| OwnedFd::from(File::options().read(true).write(write).open("/dev/null").unwrap());
        let id = add(None, null(false), Some("x".to_owned()));
        let path = format!("/dev/fdset/{id}");
        let path = Path::new(&path);
        assert!(open(path, false).unwrap().is_ok());
        assert!(open(path, true).unwrap().is_err(), "only for reading");
        let fd = null(true);
        let number = i64::from(fd.as_raw_fd());
        assert_eq!(add(Some(id), fd, None), id);
        assert!(open(path, true).unwrap().is_ok());
        let mine: Vec<_> = list().into_iter().filter(|e| e.set == id).map(|e| e.opaque).collect();
        assert_eq!(mine, [Some("x".to_owned()), None]);
        assert!(remove(id, Some(number)) && !remove(id, Some(number)));
        assert!(remove(id, None) && !remove(id, None));
        assert!(open(path, false).unwrap().is_err());
        assert!(open(Path::new("/dev/null"), false).is_none() && open(Path::new("/dev/fdset/x"), true).is_none());
    }
}
