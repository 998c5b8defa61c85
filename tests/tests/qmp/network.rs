//! What a guest sees of its links, what is told of its filters and its clock; how much it writes.

use super::{Client, start};
use rhea_control::json;
use rhea_tests::{Board, STEP, Scratch, require};
use std::time::Instant;

#[test]
fn links_go_down() {
    require!("amd64/kernel", "amd64/initramfs");
    let scratch = Scratch::new();
    let more = [
        "-cpu",
        "max",
        "-netdev",
        "user,id=n0",
        "-device",
        "virtio-net-pci,id=v,netdev=n0,mac=52:54:00:00:00:01",
        "-netdev",
        "user,id=n1",
        "-device",
        "e1000e,id=e,netdev=n1,mac=52:54:00:00:00:02",
    ];
    let (mut guest, path) = start(&scratch, Board::Q35, true, &more);
    let mut c = Client::ready(&path);
    guest.expect("guest# ", STEP);
    // The cards by their addresses: names are the guest's choice.
    guest.send("card() { for d in /sys/class/net/*; do grep -qx $1 $d/address && echo ${d##*/}; done; }\n");
    guest.send("V=$(card 52:54:00:00:00:01); E=$(card 52:54:00:00:00:02); ip link set $V up; ip link set $E up\n");
    guest.send(
        "carrier() { until [ \"$(cat /sys/class/net/$1/carrier)\" = $2 ]; do sleep 0.1; done; echo $3-is-$2; }\n",
    );
    for (card, variable, name) in [("v", "$V", "virtio"), ("n1", "$E", "intel")] {
        guest.send(&format!("carrier {variable} 1 {name}\n"));
        guest.expect(&format!("{name}-is-1"), STEP);
        for up in [false, true] {
            assert_eq!(c.run("set_link", json!({"name": card, "up": up})), Ok(json!({})));
            guest.send(&format!("carrier {variable} {} {name}-now\n", u8::from(up)));
            guest.expect(&format!("{name}-now-is-{}", u8::from(up)), STEP);
            let text = c.run("human-monitor-command", json!({"command-line": "info network"})).expect("a text");
            let line = format!("link={}", if up { "up" } else { "down" });
            assert!(text.as_str().is_some_and(|t| t.matches(&line).count() == if up { 2 } else { 1 }), "{text}");
        }
    }
    let (class, _) = c.run("set_link", json!({"name": "x", "up": true})).expect_err("no such card");
    assert_eq!(class, "DeviceNotFound");

    // Frames that the guest wants. It changes that by itself too: an event may have come already, and none comes until one has asked.
    c.events.clear();
    let filter = c.run("query-rx-filter", json!({"name": "v"})).expect("a filter")[0].clone();
    assert_eq!((&filter["main-mac"], &filter["promiscuous"]), (&json!("52:54:00:00:00:01"), &json!(false)), "{filter}");
    guest.send("ip link set $V promisc on\n");
    let event = c.event("NIC_RX_FILTER_CHANGED");
    assert_eq!(event["data"], json!({"name": "v", "path": "/machine/peripheral/v/virtio-backend"}));
    // One event says that there was a change, not that it was the last.
    let end = Instant::now() + STEP;
    while c.get("query-rx-filter")[0]["promiscuous"] != true {
        assert!(Instant::now() < end, "the filter is as it was");
    }
    for (name, text) in [
        ("e", "net client(e) doesn't support rx-filter querying"),
        ("n0", "net client(n0) isn't a NIC"),
        ("x", "invalid net client name: x"),
    ] {
        let told = c.run("query-rx-filter", json!({"name": name}));
        assert_eq!(told, Err(("GenericError".to_owned(), text.to_owned())));
    }

    // The guest sets its clock, ten days ahead.
    guest.send("date -s @$(($(date +%s) + 864000)) && hwclock -w && echo clock-is-set\n");
    guest.expect("clock-is-set", STEP);
    let offset = loop {
        let offset = c.event("RTC_CHANGE")["data"]["offset"].as_i64().unwrap_or_default();
        // It sets the fields one by one.
        if (860_000..870_000).contains(&offset) {
            break offset;
        }
    };
    assert!(offset > 0);

    // It writes, and one measures that.
    guest.send("while :; do dd if=/dev/zero of=/tmp/x bs=1M count=16 2>/dev/null; done & echo writes\n");
    guest.expect("writes", STEP);
    assert_eq!(c.get("query-dirty-rate")["status"], "unstarted");
    for mode in ["dirty-bitmap", "page-sampling"] {
        let end = Instant::now() + STEP;
        loop {
            let wanted = json!({"calc-time": 200, "calc-time-unit": "millisecond", "mode": mode});
            assert_eq!(c.run("calc-dirty-rate", wanted), Ok(json!({})));
            let told = loop {
                let told = c.run("query-dirty-rate", json!({"calc-time-unit": "millisecond"})).expect("a rate");
                if told["status"] == "measured" {
                    break told;
                }
                assert!(Instant::now() < end, "{told}");
                std::thread::sleep(std::time::Duration::from_millis(20));
            };
            assert_eq!((&told["mode"], &told["calc-time"]), (&json!(mode), &json!(200)));
            if told["dirty-rate"].as_i64().is_some_and(|rate| rate > 0) {
                break;
            }
            assert!(Instant::now() < end, "a guest that writes is not seen: {told}");
        }
    }
    for (bad, part) in [
        (json!({"calc-time": 0}), "out of range"),
        (json!({"calc-time": 1, "mode": "dirty-ring"}), "dirty ring is disabled"),
        (json!({"calc-time": 1, "sample-pages": 1}), "out of range"),
        (json!({"calc-time": 1, "sample-pages": 512, "mode": "dirty-bitmap"}), "only in page-sampling"),
    ] {
        let (_, text) = c.run("calc-dirty-rate", bad).expect_err("refused");
        assert!(text.contains(part), "{text}");
    }
}

/// Small commands, on machines that do not run.
#[test]
fn asked_of_a_machine_that_stands() {
    let scratch = Scratch::new();
    let more = ["-S", "-cpu", "max", "-device", "pcie-root-port,id=p,chassis=1"];
    let (_emulator, path) = start(&scratch, Board::Virt, false, &more);
    let mut c = Client::ready(&path);
    let model = |name: &str, props| json!({"type": "full", "model": {"name": name, "props": props}});
    let told = c.run("query-cpu-model-expansion", model("max", json!({"pmu": false}))).expect("a model");
    let props = &told["model"]["props"];
    let some = ["aarch64", "pmu", "pauth", "pauth-impdef", "pauth-qarma5", "sve", "sve2048"].map(|p| props[p] == true);
    assert_eq!(some, [true, false, true, true, false, false, false], "{told}");
    let (_, text) = c.run("query-cpu-model-expansion", model("host", json!({}))).expect_err("no KVM");
    assert_eq!(text, "The CPU type 'host' requires KVM");
    assert!(c.run("query-cpu-model-expansion", model("max", json!({"sve": true}))).is_err());

    // The log.
    let state = |c: &mut Client, name: &str| c.run("trace-event-get-state", json!({"name": name}));
    assert_eq!(state(&mut c, "unimp"), Ok(json!([{"name": "unimp", "state": "disabled"}])));
    assert_eq!(c.run("trace-event-set-state", json!({"name": "un*", "enable": true})), Ok(json!({})));
    assert_eq!(state(&mut c, "unimp"), Ok(json!([{"name": "unimp", "state": "enabled"}])));
    assert_eq!(state(&mut c, "op"), Ok(json!([{"name": "op", "state": "unavailable"}])));
    assert_eq!(state(&mut c, "nothing"), Err(("GenericError".to_owned(), "unknown event \"nothing\"".to_owned())));
    assert!(c.run("trace-event-set-state", json!({"name": "op", "enable": true})).is_err());
    assert_eq!(c.run("watchdog-set-action", json!({"action": "pause"})), Ok(json!({})));

    // The devices by their buses, memory, and lines.
    let ask = |c: &mut Client, line: &str| {
        let told = c.run("human-monitor-command", json!({"command-line": line})).expect("a text");
        told.as_str().unwrap_or_default().replace("\r\n", "\n")
    };
    let tree = ask(&mut c, "info qtree");
    for part in [
        "bus: main-system-bus\n  type System\n",
        "  bus: pcie.0\n    type PCIE\n",
        "    dev: pcie-root-port, id \"p\"\n",
        "      chassis = \"1\"\n",
        "      bus: p\n",
    ] {
        assert!(tree.contains(part), "{part}: {tree}");
    }
    let flat = ask(&mut c, "info mtree -f");
    assert!(flat.starts_with("FlatView #0\n AS \"memory\", root: system\n"), "{flat}");
    assert!(flat.contains("0000000040000000-000000005fffffff (prio 0, ram): "), "{flat}");
    assert!(ask(&mut c, "info irq").contains(": level=0, pin "));
    assert!(ask(&mut c, "info pic").to_lowercase().contains("gic"));

    let scratch = Scratch::new();
    let (_emulator, path) = start(&scratch, Board::Q35, false, &["-S", "-vnc", "127.0.0.1:0,to=90"]);
    let mut c = Client::ready(&path);
    let vnc = scratch.path("vnc");
    assert!(ask(&mut c, "info mtree -f").contains(" AS \"I/O\", root: io\n"));
    // Where VNC clients connect is changed.
    let to = json!({"type": "vnc", "addresses": [{"type": "unix", "path": vnc}]});
    assert_eq!(c.run("display-update", to.clone()), Ok(json!({})));
    assert_eq!(c.run("display-update", to), Ok(json!({})));
    assert_eq!(c.get("query-vnc")["service"], json!(vnc));
    assert!(std::os::unix::net::UnixStream::connect(&vnc).is_ok());
    let to = json!({"type": "vnc", "addresses": [{"type": "unix", "path": "/no/such/place"}]});
    assert!(c.run("display-update", to).is_err());
    assert_eq!(c.run("display-reload", json!({"type": "vnc"})), Ok(json!({})));
    let (_, text) = c.run("display-reload", json!({"type": "vnc", "tls-certs": true})).expect_err("no TLS");
    assert_eq!(text, "vnc tls is not enabled");

    let all = c.get("query-cpu-definitions");
    let of = |name: &str| all.as_array().and_then(|l| l.iter().find(|d| d["name"] == name).cloned()).expect("a model");
    let lacks = of("Haswell")["unavailable-features"].clone();
    assert!(lacks.as_array().is_some_and(|all| all.contains(&json!("rtm"))), "{lacks}");
    assert_eq!(of("max")["unavailable-features"], json!([]));
}
