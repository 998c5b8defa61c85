//! `rhea nbd`: serves an image to other processes.

use crate::args::{Args, FORMAT, IMAGE_OPTS, Opt, SHARE, Spec};
use crate::{Output, cache, host, open};
use rhea_block::Inherit;
use rhea_block::nbd::{Address, Export, NbdServer};
use std::sync::mpsc::channel;

const SPEC: Spec = Spec {
    about: "serve an image over the network or a socket (NBD), until the last client has gone",
    options: &[
        FORMAT,
        IMAGE_OPTS,
        SHARE,
        Opt('\u{2}', &["cache"], Some("MODE"), "cache mode: writeback, none, unsafe and so on"),
        Opt('p', &["port"], Some("PORT"), "port (default: 10809)"),
        Opt('b', &["bind"], Some("ADDRESS"), "address (default: localhost)"),
        Opt('k', &["socket"], Some("PATH"), "unix socket instead"),
        Opt('e', &["shared"], Some("N"), "clients at once, 0: any number (default: 1)"),
        Opt('t', &["persistent"], None, "go on when the last client has gone"),
        Opt('r', &["read-only"], None, "let clients only read"),
        Opt('x', &["export-name"], Some("NAME"), "name of the export (default: empty)"),
        Opt('D', &["description"], Some("TEXT"), "description of the export"),
    ],
    operands: "FILE",
    count: (1, 1),
};

fn serve(args: &Args, output: &mut Output<'_>) -> Result<i32, String> {
    let readonly = args.flag('r');
    let inherit = cache(args, '\u{2}', Inherit { readonly, discard: true, warn_guess: true, ..Inherit::default() })?;
    let node = open(args, &args.operands[0], args.value('f'), inherit)?;
    let number = |letter, default: u16| match args.value(letter) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| format!("-{letter}: '{text}' is no number from 0 to 65535")),
    };
    let address = match args.value('k') {
        Some(path) => Address::Unix(path.into()),
        None => Address::Tcp(args.value('b').unwrap_or("localhost").to_owned(), number('p', 10809)?),
    };
    let persistent = args.flag('t');
    let (gone, all_gone) = channel();
    let server = NbdServer::listen(&address, usize::from(number('e', 1)?), move |left| {
        if left == 0 && !persistent {
            // The receiver is there as long as the server.
            let _ = gone.send(());
        }
    })?;
    server.add(Export {
        name: args.value('x').unwrap_or("").to_owned(),
        description: args.value('D').unwrap_or("").to_owned(),
        backend: node.backend(),
        readonly,
    })?;
    match server.address() {
        Address::Tcp(host, port) => output.complain(&format!("nbd: listening on {host}:{port}")),
        Address::Unix(path) => output.complain(&format!("nbd: listening on {}", path.display())),
    }
    // Whoever waits for that line may wait for the end of a pipe's buffer.
    let _ = output.err.flush();
    if all_gone.recv().is_err() {
        loop {
            std::thread::park();
        }
    }
    drop(server);
    node.backend().close().map_err(|e| host(&e))?;
    Ok(0)
}

/// Runs `rhea nbd ARGUMENTS`; the exit status.
pub fn run(arguments: &[String], output: &mut Output<'_>) -> i32 {
    let result = Args::parse(&SPEC, arguments).and_then(|args| {
        if args.flag('h') {
            output.print(&SPEC.help("nbd").replace("rhea img nbd", "rhea nbd"));
            return Ok(0);
        }
        serve(&args, output)
    });
    result.unwrap_or_else(|text| {
        output.complain(&format!("nbd: {text}"));
        1
    })
}
