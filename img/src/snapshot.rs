//! `snapshot`

use crate::args::{Args, FORMAT, IMAGE_OPTS, Opt, QUIET, SHARE, Spec};
use crate::{Output, host, info, open};
use rhea_block::{BlockBackend, Inherit};

pub const SPEC: Spec = Spec {
    about: "list, take, go back to and delete snapshots in an image",
    options: &[
        FORMAT,
        IMAGE_OPTS,
        SHARE,
        QUIET,
        Opt('l', &["list"], None, "list them (this is the default)"),
        Opt('c', &["create"], Some("NAME"), "take one"),
        Opt('a', &["apply"], Some("NAME|ID"), "go back to one"),
        Opt('d', &["delete"], Some("NAME|ID"), "delete one"),
    ],
    operands: "FILE",
    count: (1, 1),
};

pub fn run(args: &mut Args, output: &mut Output<'_>) -> Result<i32, String> {
    let given: Vec<(char, &str)> = ['c', 'a', 'd'].into_iter().filter_map(|l| args.value(l).map(|v| (l, v))).collect();
    if given.len() + usize::from(args.flag('l')) > 1 {
        return Err("-l, -c, -a and -d exclude each other".to_owned());
    }
    let inherit = Inherit { readonly: given.is_empty(), no_backing: true, discard: true, ..Inherit::default() };
    let node = open(args, &args.operands[0], args.value('f'), inherit)?;
    let image = node.qcow2().ok_or_else(|| format!("images of format '{}' have no snapshots", node.driver()))?;
    let done = match given.first() {
        None => {
            let list = image.snapshots();
            if !list.is_empty() {
                output.print(&info::snapshots(&list));
            }
            return Ok(0);
        }
        Some(('c', name)) => image.create_snapshot(name).map(|_| ()),
        Some(('a', name)) => image.apply_snapshot(name),
        Some((_, name)) => image.delete_snapshot(name),
    };
    done.and_then(|()| image.close()).map_err(|e| host(&e))?;
    Ok(0)
}
