//! `rebase`

use crate::args::{Args, CACHE, FORMAT, IMAGE_OPTS, Opt, PROGRESS, QUIET, SHARE, SOURCE_CACHE, Spec};
use crate::{Output, cache, host, open, with_progress};
use rhea_block::image::rebase;
use rhea_block::{BlockBackend, Inherit};
use std::sync::Arc;

pub const SPEC: Spec = Spec {
    about: "put an image over another one",
    options: &[
        FORMAT,
        IMAGE_OPTS,
        SHARE,
        PROGRESS,
        QUIET,
        CACHE,
        SOURCE_CACHE,
        Opt('b', &["backing"], Some("FILE"), "the image below from now on; empty: none"),
        Opt('F', &["backing-format"], Some("FMT"), "its format"),
        Opt('u', &["backing-unsafe"], None, "change the name only"),
    ],
    operands: "FILE",
    count: (1, 1),
};

pub fn run(args: &mut Args, _output: &mut Output<'_>) -> Result<i32, String> {
    let name = args.operands[0].clone();
    let new = args.value('b').ok_or("-b is missing: the image below from now on")?;
    let only_name = args.flag('u');
    let inherit = Inherit { no_backing: only_name, discard: true, ..Inherit::default() };
    let node = open(args, &name, args.value('f'), cache(args, 't', inherit)?)?;
    let image = node.qcow2().ok_or_else(|| format!("images of format '{}' are over no other image", node.driver()))?;
    let format = args.value('F');
    if !new.is_empty() && format.is_none() {
        return Err(format!("a backing file needs its format: add -F FMT for '{new}'"));
    }
    if !only_name {
        let below: Option<Arc<dyn BlockBackend>> = if new.is_empty() {
            None
        } else {
            let path = match name.rfind('/') {
                Some(at) if !new.starts_with('/') && !new.contains(':') => format!("{}/{new}", &name[..at]),
                _ => new.to_owned(),
            };
            let inherit = cache(args, 'T', Inherit { readonly: true, force_share: true, ..Inherit::default() })?;
            Some(rhea_block::open_image(&path, format, &inherit)?.backend())
        };
        let old = image.backing();
        with_progress(args, |p| rebase(&**image, old.as_deref(), below.as_deref(), p)).map_err(|e| host(&e))?;
    }
    image.flush().map_err(|e| host(&e))?;
    let name = Some(new).filter(|n| !n.is_empty());
    image.set_backing_name(name, format).map_err(|e| host(&e))?;
    image.close().map_err(|e| host(&e))?;
    Ok(0)
}
