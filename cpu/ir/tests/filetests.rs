//! Runs `tests/filetests/*.ir`. Commands in a file:
//!
//! | line | meaning |
//! |---|---|
//! | `;! parse-error TEXT` | reading fails with this in its message |
//! | `;! verify [built\|promoted]` | the verifier is content |
//! | `;! verify-error built\|promoted` | it is not; `;>` lines are in its message |
//! | `;! print`, `promote`, `simplify`, `dce`, `optimise` | `;>` lines appear in this order in the result, `;<` lines nowhere |
//! | `;! run INPUTS -> RESULTS` | runs the function as it is, promoted, and optimised |

mod support;

use rhea_ir::carry::carries_beside_sums;
use rhea_ir::func::{ExitKind, Function};
use rhea_ir::guest::Guest;
use rhea_ir::interp::Outcome;
use rhea_ir::lazy::lazy_flags;
use rhea_ir::opt::{remove_dead, simplify_all};
use rhea_ir::promote::promote;
use rhea_ir::text::parse;
use rhea_ir::verify::{Stage, verify};
use support::*;

const HELPERS: &[rhea_ir::HelperDesc] = Machine::HELPERS;

fn stage(s: &str) -> Stage {
    if s.trim() == "promoted" { Stage::Promoted } else { Stage::Built }
}

fn find(c: &Command, text: &str) -> Result<(), String> {
    let mut from = 0;
    for w in &c.wanted {
        match text[from..].find(w.as_str()) {
            Some(at) => from += at + w.len(),
            None => return Err(format!("no '{w}' (in order) in:\n{text}")),
        }
    }
    for w in &c.unwanted {
        if text.contains(w.as_str()) {
            return Err(format!("'{w}' in:\n{text}"));
        }
    }
    Ok(())
}

fn passes(name: &str, f: &Function) -> Result<Function, String> {
    let mut g = f.clone();
    if matches!(name, "promote" | "optimise") {
        promote(&mut g, HELPERS).map_err(|e| e.to_string())?;
        verify(&g, HELPERS, Stage::Promoted).map_err(|e| format!("after promote: {e}\n{g}"))?;
    }
    if matches!(name, "simplify" | "optimise") {
        simplify_all(&mut g);
    }
    if name == "optimise" {
        remove_dead(&mut g, HELPERS);
        lazy_flags(&mut g);
        verify(&g, HELPERS, Stage::Promoted).map_err(|e| format!("after lazy_flags: {e}\n{g}"))?;
    }
    if matches!(name, "dce" | "simplify" | "optimise") {
        remove_dead(&mut g, HELPERS);
    }
    if name == "optimise" {
        carries_beside_sums(&mut g);
        verify(&g, HELPERS, Stage::Promoted).map_err(|e| format!("after carries_beside_sums: {e}\n{g}"))?;
    }
    Ok(g)
}

fn exit_name(o: Outcome) -> &'static str {
    match o {
        Outcome::Raised => "raised",
        Outcome::Requested => "requested",
        Outcome::Exit(k) => match k {
            ExitKind::Goto => "goto",
            ExitKind::Indirect(_) => "indirect",
            ExitKind::Call { .. } => "call",
            ExitKind::IndirectCall { .. } => "icall",
            ExitKind::Return(_) => "return",
            ExitKind::Lookup => "lookup",
            ExitKind::Leave => "leave",
            ExitKind::Inner(_) => "inner",
        },
    }
}

fn run(f: &Function, rest: &str) -> Result<(), String> {
    let (input, output) = rest.split_once("->").ok_or("no '->'")?;
    let (input, output) = (parse_items(input), parse_items(output));
    for name in ["none", "promote", "optimise"] {
        let g = passes(name, f)?;
        let mut m = Machine::new(Vec::new());
        let mut memory = Flat(vec![0; MEMORY]);
        set_up(&input, &mut m.slots, &mut memory.0);
        let (out, end) = interpret(&g, &mut m, &mut memory);
        let bad = compare(&output, &end, &memory.0, Some(exit_name(out)));
        if !bad.is_empty() {
            return Err(format!("passes: {name}: {}\n{g}", bad.join("; ")));
        }
    }
    Ok(())
}

fn command(c: &Command, text: &str) -> Result<(), String> {
    let f = match (parse(text), c.name.as_str()) {
        (Err(e), "parse-error") => {
            let e = e.to_string();
            return if e.contains(&c.rest) { Ok(()) } else { Err(format!("another error: {e}")) };
        }
        (Ok(_), "parse-error") => return Err("it can be read".into()),
        (Err(e), _) => return Err(e.to_string()),
        (Ok(f), _) => f,
    };
    match c.name.as_str() {
        "verify" => verify(&f, HELPERS, stage(&c.rest)).map_err(|e| e.to_string()),
        "verify-error" => match verify(&f, HELPERS, stage(&c.rest)) {
            Ok(()) => Err("the verifier is content".into()),
            Err(e) => find(c, &e.to_string()),
        },
        "print" | "promote" | "simplify" | "dce" | "optimise" => {
            let before = if c.name == "simplify" || c.name == "dce" { Stage::Promoted } else { Stage::Built };
            verify(&f, HELPERS, before).map_err(|e| e.to_string())?;
            let g = passes(&c.name, &f)?;
            if c.name != "print" {
                verify(&g, HELPERS, Stage::Promoted).map_err(|e| format!("{e}\n{g}"))?;
            }
            find(c, &g.to_string())
        }
        "run" => {
            verify(&f, HELPERS, Stage::Built).map_err(|e| e.to_string())?;
            run(&f, &c.rest)
        }
        n => Err(format!("no command '{n}'")),
    }
}

#[test]
fn files() {
    let files = file_tests();
    assert!(files.len() >= 25, "only {} files", files.len());
    let mut bad = Vec::new();
    for (name, text) in &files {
        let list = commands(text);
        if list.is_empty() {
            bad.push(format!("{name}: no command"));
        }
        for c in &list {
            if let Err(e) = command(c, text) {
                bad.push(format!("{name}:{}: {}: {e}", c.line, c.name));
            }
        }
        // Whatever can be read can be printed and read again.
        if let Ok(f) = parse(text) {
            let printed = f.to_string();
            match parse(&printed) {
                Ok(g) if g.to_string() == printed => {}
                Ok(g) => bad.push(format!("{name}: changes when printed:\n{printed}\n{g}")),
                Err(e) => bad.push(format!("{name}: {e} in\n{printed}")),
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
