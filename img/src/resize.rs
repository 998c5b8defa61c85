//! `resize`

use crate::args::{Args, FORMAT, IMAGE_OPTS, Opt, QUIET, Spec};
use crate::{Output, host, open, size};
use rhea_block::Inherit;

pub const SPEC: Spec = Spec {
    about: "change the size of an image",
    options: &[
        FORMAT,
        IMAGE_OPTS,
        QUIET,
        Opt('\u{2}', &["shrink"], None, "the image may become smaller, and lose what is at its end"),
        Opt('\u{3}', &["preallocation"], Some("MODE"), "storage of what is added: off"),
    ],
    operands: "FILE [+-]SIZE",
    count: (2, 2),
};

pub fn run(args: &mut Args, output: &mut Output<'_>) -> Result<i32, String> {
    let text = args.operands[1].clone();
    let (sign, number) = match text.as_bytes().first() {
        Some(b'+') => (1, &text[1..]),
        Some(b'-') => (-1, &text[1..]),
        _ => (0, text.as_str()),
    };
    let amount = size::parse(number)?;
    if let Some(mode) = args.value('\u{3}').filter(|m| *m != "off") {
        return Err(format!("--preallocation={mode} is not supported: use off"));
    }
    let inherit = Inherit { discard: true, ..Inherit::default() };
    let node = open(args, &args.operands[0], args.value('f'), inherit)?;
    let image = node.backend();
    let old = image.capacity();
    let new = match sign {
        1 => old.checked_add(amount),
        -1 => old.checked_sub(amount),
        _ => Some(amount),
    };
    let new = new.and_then(|n| n.checked_next_multiple_of(512)).ok_or("the size is out of range")?;
    if new < old && !args.flag('\u{2}') {
        return Err("the image would lose what is at its end: use --shrink to do that".to_owned());
    }
    image.resize(new).map_err(|e| host(&e))?;
    image.close().map_err(|e| host(&e))?;
    if !args.flag('q') {
        output.print("Image resized.\n");
    }
    Ok(0)
}
