//! `check`

use crate::args::{Args, FORMAT, IMAGE_OPTS, OUTPUT, Opt, QUIET, SHARE, SOURCE_CACHE, Spec};
use crate::{Output, host, open};
use rhea_block::Inherit;
use rhea_block::qcow2::{CheckReport, Fix};
use serde_json::{Map, Value};

pub const SPEC: Spec = Spec {
    about: "check an image, and repair it",
    options: &[
        FORMAT,
        IMAGE_OPTS,
        QUIET,
        SHARE,
        SOURCE_CACHE,
        OUTPUT,
        Opt('r', &["repair"], Some("leaks|all"), "repair leaks, or everything"),
    ],
    operands: "FILE",
    count: (1, 1),
};

const CORRUPT: i32 = 2;
const LEAKS: i32 = 3;
const UNSUPPORTED: i32 = 63;

fn json(name: &str, format: &str, r: &CheckReport) -> String {
    let mut map = Map::new();
    map.insert("image-end-offset".to_owned(), r.image_end_offset.into());
    map.insert("total-clusters".to_owned(), r.total_clusters.into());
    map.insert("check-errors".to_owned(), r.check_errors.into());
    let optional = [
        ("corruptions", r.corruptions - r.corruptions_fixed),
        ("leaks", r.leaks - r.leaks_fixed),
        ("corruptions-fixed", r.corruptions_fixed),
        ("leaks-fixed", r.leaks_fixed),
        ("allocated-clusters", r.allocated_clusters),
        ("fragmented-clusters", r.fragmented_clusters),
        ("compressed-clusters", r.compressed_clusters),
    ];
    for (key, n) in optional.into_iter().filter(|(_, n)| *n > 0) {
        map.insert(key.to_owned(), n.into());
    }
    map.insert("filename".to_owned(), name.into());
    map.insert("format".to_owned(), format.into());
    crate::info::pretty(&Value::Object(map))
}

fn human(r: &CheckReport) -> String {
    let mut text = String::new();
    if r.corruptions_fixed > 0 || r.leaks_fixed > 0 {
        text.push_str(&format!(
            "The following inconsistencies were found and repaired:\n\n    {} leaked clusters\n    {} corruptions\n\nDouble checking the fixed image now...\n",
            r.leaks_fixed, r.corruptions_fixed
        ));
    }
    let (corruptions, leaks) = (r.corruptions - r.corruptions_fixed, r.leaks - r.leaks_fixed);
    if corruptions == 0 && leaks == 0 && r.check_errors == 0 {
        text.push_str("No errors were found on the image.\n");
    }
    if corruptions > 0 {
        text.push_str(&format!(
            "\n{corruptions} errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n"
        ));
    }
    if leaks > 0 {
        text.push_str(&format!(
            "\n{leaks} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n"
        ));
    }
    if r.check_errors > 0 {
        text.push_str(&format!("\n{} internal errors have occurred during the check.\n", r.check_errors));
    }
    if r.total_clusters > 0 && r.allocated_clusters > 0 {
        let percent = |a: u64, b: u64| a as f64 * 100.0 / b as f64;
        text.push_str(&format!(
            "{}/{} = {:.2}% allocated, {:.2}% fragmented, {:.2}% compressed clusters\n",
            r.allocated_clusters,
            r.total_clusters,
            percent(r.allocated_clusters, r.total_clusters),
            percent(r.fragmented_clusters, r.allocated_clusters),
            percent(r.compressed_clusters, r.allocated_clusters)
        ));
    }
    if r.image_end_offset > 0 {
        text.push_str(&format!("Image end offset: {}\n", r.image_end_offset));
    }
    text
}

pub fn run(args: &mut Args, output: &mut Output<'_>) -> Result<i32, String> {
    let fix = match args.value('r') {
        None => Fix::Nothing,
        Some("leaks") => Fix::Leaks,
        Some("all") => Fix::All,
        Some(other) => return Err(format!("-r must be leaks or all, not '{other}'")),
    };
    let json_output = args.json()?;
    let inherit = Inherit { readonly: fix == Fix::Nothing, check: true, no_backing: true, ..Inherit::default() };
    let inherit = crate::cache(args, 'T', inherit)?;
    let node = open(args, &args.operands[0], args.value('f'), inherit)?;
    let Some(image) = node.qcow2() else {
        output.complain(&format!("img check: format '{}' has nothing that can be checked", node.driver()));
        return Ok(UNSUPPORTED);
    };
    let mut findings = Vec::new();
    let mut note = |_: bool, text: &str| {
        // Those of a wrecked image are as many as it has clusters.
        if findings.len() < 10_000 {
            findings.push(text.to_owned());
        }
    };
    let report = image.check(fix, &mut note).map_err(|e| host(&e))?;
    if json_output {
        output.print(&json(&args.operands[0], node.driver(), &report));
    } else if !args.flag('q') {
        for line in findings {
            // They are what was asked for.
            let _ = writeln!(output.err, "{line}");
        }
        output.print(&human(&report));
    }
    Ok(if report.check_errors > 0 {
        1
    } else if report.corruptions > report.corruptions_fixed {
        CORRUPT
    } else if report.leaks > report.leaks_fixed {
        LEAKS
    } else {
        0
    })
}
