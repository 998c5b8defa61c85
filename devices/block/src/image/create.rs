//! New images of every format that is written.

use crate::qcow2::{self, Preallocation};
use crate::{BlockBackend, FileNode, FileOptions, NodeOptions};
use std::path::Path;
use std::sync::Arc;

/// What a new image is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageOptions {
    Raw { size: u64, preallocation: Preallocation },
    Qcow2(qcow2::CreateOptions),
}

impl ImageOptions {
    /// From the options of a format (`-o`); all must be known.
    ///
    /// # Errors
    /// One line.
    pub fn parse(format: &str, mut o: NodeOptions) -> Result<Self, String> {
        let options = match format {
            "raw" => {
                let size = o.take_size("size")?.unwrap_or(0);
                let word = o.take_choice("preallocation", &["off", "falloc", "full"])?.unwrap_or("off");
                Self::Raw { size, preallocation: Preallocation::parse(word).unwrap_or_default() }
            }
            "qcow2" => Self::Qcow2(qcow2::CreateOptions::take(&mut o)?),
            other => return Err(format!("images of format '{other}' cannot be created: use raw or qcow2")),
        };
        o.finish(format)?;
        Ok(options)
    }
    #[must_use]
    pub fn format(&self) -> &'static str {
        match self {
            Self::Raw { .. } => "raw",
            Self::Qcow2(_) => "qcow2",
        }
    }
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Raw { size, .. } => *size,
            Self::Qcow2(o) => o.size,
        }
    }
    pub fn set_size(&mut self, bytes: u64) {
        match self {
            Self::Raw { size, .. } => *size = bytes,
            Self::Qcow2(o) => o.size = bytes,
        }
    }
}

fn preallocate(file: &FileNode, from: u64, to: u64, how: Preallocation) -> Result<(), String> {
    if !matches!(how, Preallocation::Falloc | Preallocation::Full) || from >= to {
        return Ok(());
    }
    file.preallocate(from, to - from, how == Preallocation::Full)
        .map_err(|e| format!("cannot preallocate '{}': {}", file.path().display(), crate::error_text(&e)))
}

/// Creates the image in the file at `path`, which is overwritten.
///
/// # Errors
/// One line.
pub fn create(path: &Path, options: &ImageOptions) -> Result<(), String> {
    let path = path.to_str().and_then(|p| p.strip_prefix("file:")).map_or(path, Path::new);
    match options {
        ImageOptions::Raw { size, preallocation } => {
            let size = size.checked_next_multiple_of(512).filter(|s| *s <= i64::MAX as u64);
            let size = size.ok_or("the size is too large")?;
            let file = FileNode::create(path, size)?;
            preallocate(&file, 0, size, *preallocation)?;
            file.flush().map_err(|e| format!("cannot write '{}': {}", path.display(), crate::error_text(&e)))
        }
        ImageOptions::Qcow2(options) => {
            let at = |e: String| format!("'{}': {e}", path.display());
            let data_file = match &options.data_file {
                Some(name) => {
                    let name = Path::new(name);
                    Some(match FileNode::open(name, FileOptions::default()) {
                        Ok(file) => Arc::new(file),
                        Err(_) => Arc::new(FileNode::create(name, options.size)?),
                    })
                }
                None => None,
            };
            create_in(&Arc::new(FileNode::create(path, 0)?), options.clone(), data_file).map_err(at)
        }
    }
}

/// Creates a qcow2 image in a file, whose content is lost; `data_file`: where its data goes, if not there too.
///
/// # Errors
/// One line.
pub fn create_in(
    file: &Arc<FileNode>,
    mut options: qcow2::CreateOptions,
    data_file: Option<Arc<FileNode>>,
) -> Result<(), String> {
    let fail = |e: std::io::Error| crate::error_text(&e);
    options.size = options.size.checked_next_multiple_of(512).ok_or("the size is too large")?;
    if !file.is_block_device() {
        file.resize(0).map_err(fail)?;
    }
    if let Some(data) = &data_file {
        data.resize(options.size).map_err(fail)?;
    }
    let backend: Arc<dyn BlockBackend> = file.clone();
    qcow2::create(&backend, &options, data_file.clone().map(|f| f as Arc<dyn BlockBackend>))?;
    let prealloc = options.preallocation;
    match data_file {
        Some(data) => preallocate(&data, 0, options.size, prealloc),
        // The tables are written, and lie before the data that has no storage yet.
        None => match prealloc {
            Preallocation::Full => fill(file),
            _ => preallocate(file, 0, file.capacity(), prealloc),
        },
    }
}

/// Writes zeroes where the file has no storage.
fn fill(file: &FileNode) -> Result<(), String> {
    let fail = |e: std::io::Error| format!("cannot preallocate '{}': {}", file.path().display(), crate::error_text(&e));
    let (mut at, end) = (0, file.capacity());
    while at < end {
        let e = file.status(at, end - at).map_err(fail)?;
        if e.kind != crate::ExtentKind::Data {
            file.preallocate(at, e.len, true).map_err(fail)?;
        }
        at += e.len;
    }
    Ok(())
}
