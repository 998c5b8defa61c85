//! `compare`

use crate::args::{Args, FORMAT, IMAGE_OPTS, Opt, PROGRESS, QUIET, SHARE, SOURCE_CACHE, Spec};
use crate::{Output, cache, host, open, with_progress};
use rhea_block::Inherit;
use rhea_block::image::{Difference, compare};

pub const SPEC: Spec = Spec {
    about: "compare the content of two images",
    options: &[
        FORMAT,
        Opt('F', &["b-format"], Some("FMT"), "format of the second image"),
        IMAGE_OPTS,
        Opt('s', &["strict"], None, "sizes and what is allocated must be the same"),
        SOURCE_CACHE,
        SHARE,
        PROGRESS,
        QUIET,
    ],
    operands: "FILE1 FILE2",
    count: (2, 2),
};

pub fn run(args: &mut Args, output: &mut Output<'_>) -> Result<i32, String> {
    let inherit = cache(args, 'T', Inherit { readonly: true, ..Inherit::default() })?;
    let a = open(args, &args.operands[0], args.value('f'), inherit)?.backend();
    let b = open(args, &args.operands[1], args.value('F'), inherit)?.backend();
    let strict = args.flag('s');
    let quiet = args.flag('q');
    let difference = with_progress(args, |p| compare(&*a, &*b, strict, p)).map_err(|e| host(&e))?;
    let common = a.capacity().min(b.capacity());
    let in_common = matches!(difference, Some(Difference::Content(at)) if at < common);
    if a.capacity() != b.capacity() && !strict && !quiet && !in_common {
        output.print("Warning: Image size mismatch!\n");
    }
    let text = match difference {
        None => "Images are identical.\n".to_owned(),
        Some(Difference::Content(at)) => format!("Content mismatch at offset {at}!\n"),
        Some(Difference::Size) => "Strict mode: Image size mismatch!\n".to_owned(),
    };
    if !quiet {
        output.print(&text);
    }
    Ok(i32::from(difference.is_some()))
}
