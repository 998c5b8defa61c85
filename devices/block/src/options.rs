//! `-drive`: typed options, and opening what they describe.

use crate::drive::DriveSettings;
use crate::{BlockGraph, Drive, Inherit, NodeOptions, Overlay, Throttle, ThrottleLimits};
use rhea_device::options::{self, OptionDecl, OptionError, OptionKind, OptionSet};
use std::path::Path;
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
    /// The machine stops if there is no room; other errors are reported.
    Enospc,
    /// The machine stops.
    Stop,
}

impl ErrorPolicy {
    /// Of a word of [`READ_ERRORS`] or [`WRITE_ERRORS`].
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Some(match word {
            "report" => Self::Report,
            "ignore" => Self::Ignore,
            "enospc" => Self::Enospc,
            "stop" => Self::Stop,
            _ => return None,
        })
    }
}

const READ_ERRORS: &[&str] = &["report", "ignore", "stop"];
const WRITE_ERRORS: &[&str] = &["report", "ignore", "enospc", "stop"];

/// What devices take: the drive's own, unless they say otherwise.
pub const DEVICE_ERRORS: [OptionDecl; 2] = [
    OptionDecl::new(
        "werror",
        OptionKind::Choice(&["auto", "report", "ignore", "enospc", "stop"]),
        Some("auto"),
        "what a failed write does",
    ),
    OptionDecl::new(
        "rerror",
        OptionKind::Choice(&["auto", "report", "ignore", "stop"]),
        Some("auto"),
        "what a failed read does",
    ),
];

/// `detect-zeroes=`: writes of zeroes take no storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DetectZeroes {
    #[default]
    Off,
    On,
    /// They may also release it.
    Unmap,
}

const DETECT_ZEROES: &[&str] = &["off", "on", "unmap"];

impl DetectZeroes {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Unmap => "unmap",
        }
    }
    fn of(word: Option<&str>) -> Self {
        match word {
            Some("on") => Self::On,
            Some("unmap") => Self::Unmap,
            _ => Self::Off,
        }
    }
    pub(crate) fn take(o: &mut NodeOptions) -> Result<Self, String> {
        Ok(Self::of(o.take_choice("detect-zeroes", DETECT_ZEROES)?))
    }
}

/// The keys of `-drive`. Those of the nodes (`file.locking=off`, `l2-cache-size=8M`, `backing.driver=raw`) are accepted as well.
pub const DRIVE_OPTIONS: &[OptionDecl] = &[
    OptionDecl::new("file", OptionKind::Text, None, "image file or block device"),
    OptionDecl::new("format", OptionKind::Text, None, "image format: raw, qcow2, vmdk, vpc; a guess if not given"),
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
    OptionDecl::new(
        "detect-zeroes",
        OptionKind::Choice(DETECT_ZEROES),
        Some("off"),
        "writes of zeroes take no storage, or also release it",
    ),
    OptionDecl::new("aio", OptionKind::Choice(&["threads"]), Some("threads"), "how requests are executed"),
    OptionDecl::new("throttling.", OptionKind::Text, None, "limits: bps-total, iops-read, iops-write-max, ...; group"),
    OptionDecl::new("werror", OptionKind::Choice(WRITE_ERRORS), Some("enospc"), "what a failed write does"),
    OptionDecl::new("rerror", OptionKind::Choice(READ_ERRORS), Some("report"), "what a failed read does"),
    OptionDecl::new("index", OptionKind::Number { min: 0, max: 255 }, None, "number of the drive on its interface"),
    OptionDecl::new("unit", OptionKind::Number { min: 0, max: 255 }, None, "number of the unit on its bus"),
    OptionDecl::new("bus", OptionKind::Number { min: 0, max: 255 }, None, "number of the bus"),
    OptionDecl::new("media", OptionKind::Choice(&["disk", "cdrom"]), Some("disk"), "kind of medium"),
];

const PROTOCOLS: &[&str] = &["file", "host_device", "nbd", "null-co", "null-aio"];
const FORMATS: &[&str] = &["raw", "qcow2", "vmdk", "vpc", "file", "host_device", "nbd", "null-co", "null-aio"];

/// A parsed `-drive`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriveOptions {
    /// The option as written, for messages.
    pub option: String,
    pub file: Option<String>,
    pub format: Option<String>,
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
    pub detect_zeroes: DetectZeroes,
    pub throttle: ThrottleLimits,
    /// Drives of one group share their limits.
    pub throttle_group: Option<String>,
    /// Options of the nodes.
    pub node: NodeOptions,
}

/// Keys without a dot that are of nodes.
const NODE_KEYS: &[&str] = &[
    "driver",
    "node-name",
    "backing",
    "data-file",
    "force-share",
    "auto-read-only",
    "lazy-refcounts",
    "l2-cache-size",
    "l2-cache-entry-size",
    "refcount-cache-size",
    "cache-size",
    "cache-clean-interval",
    "overlap-check",
    "offset",
    "size",
];
/// Limits as they were called before `throttling.`.
const OLD_LIMITS: &[&str] = &["bps", "iops"];

impl DriveOptions {
    /// Parses the text after `-drive`.
    ///
    /// # Errors
    /// What is wrong with which key.
    pub fn parse(text: &str) -> Result<Self, OptionError> {
        let fail = |message: String| OptionError::new("-drive", message);
        let (mut own, mut nodes, mut limits, mut old) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (key, value) in options::split(text) {
            let first = key.split(['.', '_']).next().unwrap_or("");
            if let Some(limit) = key.strip_prefix("throttling.") {
                limits.push((limit.to_owned(), value));
            } else if OLD_LIMITS.contains(&first) {
                old.push((key, value));
            } else if key == "locking" {
                nodes.push(("file.locking".to_owned(), value));
            } else if key.contains('.') || NODE_KEYS.contains(&key.as_str()) {
                nodes.push((key, value));
            } else {
                own.push((key, value));
            }
        }
        let set = OptionSet::parse("-drive", DRIVE_OPTIONS, &own)?;
        let mut node = NodeOptions::from_pairs(nodes).map_err(fail)?;
        let is_old = limits.is_empty();
        let mut limits = NodeOptions::from_pairs(if is_old { old } else { limits }).map_err(fail)?;
        let throttle_group = limits.take_text("group").map_err(fail)?;
        let throttle = ThrottleLimits::take(&mut limits, is_old).map_err(fail)?;
        limits.finish("throttle").map_err(fail)?;
        let driver = node.take_text("driver").map_err(fail)?;
        let format = set.text("format").map(str::to_owned).or(driver);
        if let Some(other) = format.as_ref().filter(|f| !FORMATS.contains(&f.as_str())) {
            let text = format!("image format '{other}' is not supported: use {}", FORMATS.join(", "));
            return Err(set.error("format", &text));
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
        let policy = |key| set.text(key).and_then(ErrorPolicy::of).unwrap_or_default();
        let file = set.text("file").filter(|f| !f.is_empty());
        let number = |key| set.number(key).and_then(|n| u32::try_from(n).ok());
        Ok(Self {
            option: "-drive".to_owned(),
            file: file.map(str::to_owned),
            format,
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
            detect_zeroes: DetectZeroes::of(set.text("detect-zeroes")),
            throttle,
            throttle_group,
            node,
        })
    }
    /// The options of `-hda`-like shortcuts and of tests: an image with defaults.
    #[must_use]
    pub fn for_file(option: &str, file: &Path) -> Self {
        Self {
            option: option.to_owned(),
            file: Some(file.to_string_lossy().into_owned()),
            format: None,
            interface: DriveInterface::Virtio,
            interface_given: false,
            id: None,
            readonly: false,
            snapshot: None,
            cache: CacheMode::Writeback,
            discard: false,
            read_errors: ErrorPolicy::Report,
            write_errors: ErrorPolicy::Enospc,
            index: None,
            media: Media::Disk,
            detect_zeroes: DetectZeroes::Off,
            throttle: ThrottleLimits::default(),
            throttle_group: None,
            node: NodeOptions::default(),
        }
    }
    /// Opens the drive on its own, called `name` unless an id was given; `snapshot` is the global `-snapshot`.
    ///
    /// # Errors
    /// One line that names the option, the file and what is wrong.
    pub fn open(&self, name: &str, snapshot: bool) -> Result<Arc<Drive>, OptionError> {
        self.open_in(&BlockGraph::new(), name, snapshot)
    }
    /// Opens the drive with its nodes in `graph`.
    ///
    /// # Errors
    /// One line that names the option, the file and what is wrong.
    pub fn open_in(&self, graph: &BlockGraph, name: &str, snapshot: bool) -> Result<Arc<Drive>, OptionError> {
        let fail = |message: String| OptionError::new(&self.option, message);
        let mut node = self.node.clone();
        if let Some(format) = &self.format {
            node.default_text("driver", format);
        }
        let snapshot = self.snapshot.unwrap_or(snapshot) && !self.readonly;
        let inherit = Inherit {
            readonly: self.readonly || snapshot,
            direct: self.cache.direct(),
            no_flush: self.cache == CacheMode::Unsafe,
            discard: self.discard,
            warn_guess: true,
            ..Inherit::default()
        };
        let node = match &self.file {
            Some(file) => graph.open_file(file, node, &inherit),
            None if node.has("file") || PROTOCOLS.contains(&self.format.as_deref().unwrap_or("")) => {
                graph.open(node, &inherit)
            }
            None => Err("a drive without a medium is not supported: give file=IMAGE".to_owned()),
        };
        let node = node.map_err(fail)?;
        if node.backend().capacity() == 0 {
            return Err(fail(format!("image '{}' is empty (0 bytes)", node.filename())));
        }
        let mut backend = node.backend();
        if snapshot {
            let overlay = Overlay::new(backend).map_err(|e| {
                fail(format!("cannot create the temporary file of the snapshot: {}", crate::error_text(&e)))
            })?;
            backend = Arc::new(overlay);
        }
        let settings = DriveSettings {
            cache: self.cache,
            errors: (self.read_errors, self.write_errors),
            discard: self.discard,
            detect_zeroes: self.detect_zeroes,
            temporary: snapshot,
        };
        let drive = Drive::with_settings(self.id.as_deref().unwrap_or(name), backend, settings);
        drive.set_node(Some(node));
        drive.set_failures(graph.failures());
        match &self.throttle_group {
            Some(group) => drive.set_throttle(Some(graph.throttle_group(group, self.throttle))),
            None if self.throttle.any() => drive.set_throttle(Some(Arc::new(Throttle::new(self.throttle)))),
            None => {}
        }
        Ok(drive)
    }
}

/// The nodes that `-blockdev` describes: keys and values, or JSON.
///
/// # Errors
/// One line.
pub fn parse_blockdev(text: &str) -> Result<NodeOptions, OptionError> {
    let fail = |message: String| OptionError::new("-blockdev", message);
    let options = NodeOptions::parse(text).map_err(fail)?;
    if !options.has("driver") {
        return Err(fail("'driver' is missing: raw, qcow2, file and so on".to_owned()));
    }
    if !options.has("node-name") {
        return Err(fail("'node-name' is missing: a node is used by its name".to_owned()));
    }
    Ok(options)
}
