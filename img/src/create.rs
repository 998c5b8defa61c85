//! `create`

use crate::args::{Args, FORMAT, Opt, QUIET, Spec};
use crate::{Output, size};
use rhea_block::image::{ImageOptions, create};
use rhea_block::{Inherit, NodeOptions};
use rhea_device::options::split;
use std::path::Path;

pub const SPEC: Spec = Spec {
    about: "create an image",
    options: &[
        FORMAT,
        QUIET,
        Opt('o', &["options"], Some("OPTIONS"), "options of the format (-o help lists them)"),
        Opt('b', &["backing"], Some("FILE"), "put the image over this one"),
        Opt('F', &["backing-format"], Some("FMT"), "format of the image below"),
        Opt('u', &["backing-unsafe"], None, "do not look at the image below"),
    ],
    operands: "FILE [SIZE]",
    count: (1, 2),
};

const HELP: &str = "Options of qcow2:
  backing_file=<str>         - image below
  backing_fmt=<str>          - format of the image below
  cluster_size=<size>        - 512 to 2M (default: 64k)
  compat=<str>               - 0.10 or 1.1 (default: 1.1)
  compression_type=<str>     - zlib or zstd (default: zlib)
  data_file=<str>            - external data file
  data_file_raw=<bool>       - the data file is the disk, byte by byte (default: off)
  extended_l2=<bool>         - 32 subclusters in a cluster (default: off)
  lazy_refcounts=<bool>      - put reference counts off (default: off)
  preallocation=<str>        - off, metadata, falloc, full (default: off)
  refcount_bits=<num>        - width of reference counts, 1 to 64 (default: 16)
  size=<size>                - size of the disk
Options of raw:
  preallocation=<str>        - off, falloc, full (default: off)
  size=<size>                - size of the disk
";

/// The options of a new image; with `-o help`, none.
pub fn options(args: &Args, format: &str, size: Option<u64>) -> Result<Option<ImageOptions>, String> {
    let mut pairs = Vec::new();
    for text in args.values('o') {
        if matches!(text, "help" | "?" | "list") {
            return Ok(None);
        }
        pairs.extend(split(text));
    }
    let mut o = NodeOptions::from_pairs(pairs)?;
    if let Some(size) = size {
        if o.has("size") {
            return Err("the size is given twice".to_owned());
        }
        o.insert("size", size.into())?;
    }
    for (letter, key) in [('b', "backing_file"), ('F', "backing_fmt")] {
        if let Some(value) = args.value(letter) {
            o.insert(key, value.into())?;
        }
    }
    ImageOptions::parse(format, o).map(Some)
}

/// The image below a new one is opened: it must be there, and may tell the size.
pub fn check_backing(name: &str, options: &mut ImageOptions, sized: bool, unsafe_: bool) -> Result<(), String> {
    let ImageOptions::Qcow2(q) = &options else { return Ok(()) };
    let Some(backing) = q.backing_file.clone() else { return Ok(()) };
    if q.backing_format.is_none() {
        return Err(format!("a backing file needs its format: add -F FMT for '{backing}'"));
    }
    if unsafe_ {
        return Ok(());
    }
    let slash = name.rfind('/').map(|at| &name[..at]).filter(|_| !backing.starts_with('/') && !backing.contains(':'));
    let path = slash.map_or(backing.clone(), |dir| format!("{dir}/{backing}"));
    let inherit = Inherit { readonly: true, force_share: true, ..Inherit::default() };
    let below = rhea_block::open_image(&path, q.backing_format.as_deref(), &inherit)
        .map_err(|e| format!("backing file: {e}"))?;
    if !sized {
        options.set_size(below.backend().capacity());
    }
    Ok(())
}

/// The options in one line, as the tools that users know print them.
fn describe(options: &ImageOptions) -> String {
    let on = |b: bool| if b { "on" } else { "off" };
    match options {
        ImageOptions::Raw { size, preallocation } => {
            let more = format!(" preallocation={}", preallocation.name());
            format!("fmt=raw size={size}{}", if preallocation.name() == "off" { "" } else { &more })
        }
        ImageOptions::Qcow2(q) => {
            let mut text = "fmt=qcow2".to_owned();
            if q.version < 3 {
                text.push_str(" compat=0.10");
            }
            text.push_str(&format!(
                " cluster_size={} extended_l2={} compression_type={}",
                q.cluster_size,
                on(q.extended_l2),
                q.compression.name()
            ));
            if q.preallocation.name() != "off" {
                text.push_str(&format!(" preallocation={}", q.preallocation.name()));
            }
            text.push_str(&format!(" size={}", q.size));
            if let Some(file) = &q.backing_file {
                text.push_str(&format!(" backing_file={file}"));
            }
            if let Some(format) = &q.backing_format {
                text.push_str(&format!(" backing_fmt={format}"));
            }
            if let Some(file) = &q.data_file {
                text.push_str(&format!(" data_file={file}"));
                if q.data_file_raw {
                    text.push_str(" data_file_raw=on");
                }
            }
            text.push_str(&format!(" lazy_refcounts={} refcount_bits={}", on(q.lazy_refcounts), q.refcount_bits));
            text
        }
    }
}

pub fn run(args: &mut Args, output: &mut Output<'_>) -> Result<i32, String> {
    let size = args.operands.get(1).map(|t| size::parse(t)).transpose()?;
    let format = args.value('f').unwrap_or("raw");
    let Some(mut options) = options(args, format, size)? else {
        output.print(HELP);
        return Ok(0);
    };
    let name = &args.operands[0];
    let sized = size.is_some() || options.size() != 0 || args.values('o').any(|o| o.contains("size="));
    let backing = matches!(&options, ImageOptions::Qcow2(q) if q.backing_file.is_some());
    if !sized && (!backing || args.flag('u')) {
        return Err("the size of the image is missing".to_owned());
    }
    check_backing(name, &mut options, sized, args.flag('u'))?;
    if !args.flag('q') {
        output.print(&format!("Formatting '{name}', {}\n", describe(&options)));
    }
    create(Path::new(name), &options)?;
    Ok(0)
}
