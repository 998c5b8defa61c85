//! `-drive`: typed options, and opening what they describe.

use crate::{BlockBackend, Drive, Overlay, RawFile, RawOptions};
use rhea_device::options::{self, OptionDecl, OptionError, OptionKind, OptionSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `cache=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Host page cache, guest flushes are honoured.
    #[default]
    Writeback,
    /// Each write is on stable storage before it completes.
    Writethrough,
    /// O_DIRECT, guest flushes are honoured.
    None,
    /// O_DIRECT, each write is on stable storage before it completes.
    DirectSync,
    /// Host page cache, guest flushes are ignored.
    Unsafe,
}

impl CacheMode {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Writeback => "writeback",
            Self::Writethrough => "writethrough",
            Self::None => "none",
            Self::DirectSync => "directsync",
            Self::Unsafe => "unsafe",
        }
    }
    /// Does the guest see a volatile write cache?
    #[must_use]
    pub fn write_cache(self) -> bool {
        !matches!(self, Self::Writethrough | Self::DirectSync)
    }
    fn direct(self) -> bool {
        matches!(self, Self::None | Self::DirectSync)
    }
}

/// `if=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DriveInterface {
    #[default]
    Virtio,
    /// A port of the chipset's AHCI controller.
    Ide,
    /// The board's own SCSI adapter.
    Scsi,
    /// A `-device` takes it by id.
    None,
    Pflash,
}

/// `media=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Media {
    #[default]
    Disk,
    Cdrom,
}

/// `werror=`, `rerror=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ErrorPolicy {
    #[default]
    Report,
    Ignore,
}

/// The keys of `-drive`.
pub const DRIVE_OPTIONS: &[OptionDecl] = &[
    OptionDecl::new("file", OptionKind::Text, None, "image file or block device"),
    OptionDecl::new("format", OptionKind::Text, None, "image format: raw"),
    OptionDecl::new("if", OptionKind::Text, None, "interface: virtio, ide, scsi, none, pflash (as the machine has it)"),
    OptionDecl::new("id", OptionKind::Text, None, "name for -device ...,drive="),
    OptionDecl::new("readonly", OptionKind::Bool, Some("off"), "refuse writes"),
    OptionDecl::new("read-only", OptionKind::Bool, Some("off"), "refuse writes"),
    OptionDecl::new("snapshot", OptionKind::Bool, None, "keep changes in a temporary file"),
    OptionDecl::new(
        "cache",
        OptionKind::Choice(&["writeback", "writethrough", "none", "directsync", "unsafe"]),
        Some("writeback"),
        "host cache mode",
    ),
    OptionDecl::new(
        "discard",
        OptionKind::Choice(&["ignore", "off", "unmap", "on"]),
        Some("ignore"),
        "what guest discards do",
    ),
    OptionDecl::new("aio", OptionKind::Choice(&["threads"]), Some("threads"), "how requests are executed"),
    OptionDecl::new("werror", OptionKind::Choice(&["report", "ignore"]), Some("report"), "what a failed write does"),
    OptionDecl::new("rerror", OptionKind::Choice(&["report", "ignore"]), Some("report"), "what a failed read does"),
    OptionDecl::new("index", OptionKind::Number { min: 0, max: 255 }, None, "number of the drive on its interface"),
    OptionDecl::new("unit", OptionKind::Number { min: 0, max: 255 }, None, "number of the unit on its bus"),
    OptionDecl::new("bus", OptionKind::Number { min: 0, max: 255 }, None, "number of the bus"),
    OptionDecl::new("media", OptionKind::Choice(&["disk", "cdrom"]), Some("disk"), "kind of medium"),
    OptionDecl::new(
        "file.locking",
        OptionKind::Choice(&["on", "off", "auto"]),
        Some("auto"),
        "lock the image against other users",
    ),
];

/// A parsed `-drive`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriveOptions {
    /// The option as written, for messages.
    pub option: String,
    pub file: Option<PathBuf>,
    pub format_given: bool,
    pub interface: DriveInterface,
    /// It was said, and is not to be the machine's own choice.
    pub interface_given: bool,
    pub id: Option<String>,
    pub readonly: bool,
    pub snapshot: Option<bool>,
    pub cache: CacheMode,
    /// Guest discards release storage.
    pub discard: bool,
    pub read_errors: ErrorPolicy,
    pub write_errors: ErrorPolicy,
    /// Bank of a pflash, number of a drive.
    pub index: Option<u32>,
    pub media: Media,
    pub lock: bool,
}

impl DriveOptions {
    /// Parses the text after `-drive`.
    ///
    /// # Errors
    /// What is wrong with which key.
    pub fn parse(text: &str) -> Result<Self, OptionError> {
        let set = OptionSet::parse("-drive", DRIVE_OPTIONS, &options::split(text))?;
        let format = set.text("format");
        if let Some(other) = format.filter(|f| *f != "raw") {
            return Err(set.error("format", &format!("image format '{other}' is not supported: use 'raw'")));
        }
        let interface = match set.text("if").unwrap_or("virtio") {
            "virtio" => DriveInterface::Virtio,
            "ide" => DriveInterface::Ide,
            "scsi" => DriveInterface::Scsi,
            "none" => DriveInterface::None,
            "pflash" => DriveInterface::Pflash,
            other => {
                return Err(
                    set.error("if", &format!("interface '{other}' is not supported: use virtio, ide, none or pflash"))
                );
            }
        };
        let cache = match set.text("cache") {
            Some("writethrough") => CacheMode::Writethrough,
            Some("none") => CacheMode::None,
            Some("directsync") => CacheMode::DirectSync,
            Some("unsafe") => CacheMode::Unsafe,
            _ => CacheMode::Writeback,
        };
        let media = if set.text("media") == Some("cdrom") { Media::Cdrom } else { Media::Disk };
        let policy = |key| if set.text(key) == Some("ignore") { ErrorPolicy::Ignore } else { ErrorPolicy::Report };
        let file = set.text("file").filter(|f| !f.is_empty());
        if let Some((protocol, _)) = file.and_then(|f| f.split_once("://")) {
            return Err(
                set.error("file", &format!("protocol '{protocol}' is not supported: use a local file or block device"))
            );
        }
        let number = |key| set.number(key).and_then(|n| u32::try_from(n).ok());
        Ok(Self {
            option: "-drive".to_owned(),
            file: file.map(PathBuf::from),
            format_given: format.is_some(),
            interface,
            interface_given: set.given("if"),
            id: set.text("id").map(str::to_owned),
            readonly: set.bool("readonly") || set.bool("read-only") || media == Media::Cdrom,
            snapshot: set.given("snapshot").then(|| set.bool("snapshot")),
            cache,
            discard: matches!(set.text("discard"), Some("unmap" | "on")),
            read_errors: policy("rerror"),
            write_errors: policy("werror"),
            index: number("index").or(number("unit")),
            media,
            lock: set.text("file.locking") != Some("off"),
        })
    }
    /// The options of `-hda`-like shortcuts and of tests: a raw image with defaults.
    #[must_use]
    pub fn for_file(option: &str, file: &Path) -> Self {
        Self {
            option: option.to_owned(),
            file: Some(file.to_owned()),
            format_given: false,
            interface: DriveInterface::Virtio,
            interface_given: false,
            id: None,
            readonly: false,
            snapshot: None,
            cache: CacheMode::Writeback,
            discard: false,
            read_errors: ErrorPolicy::Report,
            write_errors: ErrorPolicy::Report,
            index: None,
            media: Media::Disk,
            lock: true,
        }
    }
    /// Opens the drive, called `name` unless an id was given; `snapshot` is the global `-snapshot`.
    ///
    /// # Errors
    /// One line that names the option, the file and what is wrong.
    pub fn open(&self, name: &str, snapshot: bool) -> Result<Arc<Drive>, OptionError> {
        let fail = |message: String| OptionError::new(&self.option, message);
        let Some(file) = &self.file else {
            return Err(fail("a drive without a medium is not supported: give file=IMAGE".to_owned()));
        };
        let snapshot = self.snapshot.unwrap_or(snapshot) && !self.readonly;
        let raw = RawOptions {
            readonly: self.readonly || snapshot,
            direct: self.cache.direct(),
            no_flush: self.cache == CacheMode::Unsafe,
            discard: self.discard,
            lock: self.lock,
            format_given: self.format_given,
        };
        let mut backend: Arc<dyn BlockBackend> = Arc::new(RawFile::open(file, raw).map_err(fail)?);
        if snapshot {
            let overlay = Overlay::new(backend).map_err(|e| {
                fail(format!("cannot create the temporary file of the snapshot: {}", crate::error_text(&e)))
            })?;
            backend = Arc::new(overlay);
        }
        Ok(Drive::with_policies(
            self.id.as_deref().unwrap_or(name),
            backend,
            self.cache,
            (self.read_errors, self.write_errors),
            self.discard,
        ))
    }
}
