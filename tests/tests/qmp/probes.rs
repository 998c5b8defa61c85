//! What programs ask to find out what an emulator can do, and ports that tell who has them open.

use super::{Client, start};
use rhea_control::{Value, json};
use rhea_tests::{Board, STEP, Scratch, require};

fn refused(c: &mut Client, command: &str, arguments: Value) -> (String, String) {
    c.run(command, arguments).expect_err(command)
}

/// What is not there is said in the words that programs know.
#[test]
fn what_is_not_there() {
    let scratch = Scratch::new();
    let node = ["-S", "-accel", "tcg", "-blockdev", "driver=null-co,node-name=n,size=1M"];
    let copy = ["-blockdev", "driver=raw,node-name=r,file=n"];
    let (_emulator, path) = start(&scratch, Board::Q35, false, &[&node[..], &copy].concat());
    let mut c = Client::ready(&path);
    assert_eq!(c.get("query-sev")["enabled"], false);
    for (command, text) in [
        ("query-sev-capabilities", "KVM not enabled"),
        ("query-sgx", "No EPC regions defined, SGX not available"),
        ("query-sgx-capabilities", "SGX is not supported"),
    ] {
        assert_eq!(refused(&mut c, command, Value::Null), ("GenericError".to_owned(), text.to_owned()));
    }
    for target in ["vm", "vcpu"] {
        assert_eq!(c.run("query-stats", json!({"target": target})), Ok(json!([])));
    }
    assert_eq!(c.get("query-stats-schemas"), json!([]));
    assert_eq!(c.get("query-vcpu-dirty-limit"), json!([]));
    assert_eq!(c.get("cancel-vcpu-dirty-limit"), json!({}));
    let (class, text) = refused(&mut c, "set-vcpu-dirty-limit", json!({"dirty-rate": 10}));
    assert!(class == "GenericError" && text.contains("requires KVM"), "{class}: {text}");
    for (arguments, text) in [
        (json!({"parent": "no", "node": "n"}), "Cannot find device='no' nor node-name='no'"),
        (json!({"parent": "r"}), "Either child or node must be specified"),
        (json!({"parent": "r", "child": "file", "node": "n"}), "The parameters child and node are in conflict"),
        (json!({"parent": "r", "child": "c"}), "Node 'r' does not have child 'c'"),
        (json!({"parent": "r", "child": "file"}), "The node r does not support removing a child"),
        (json!({"parent": "r", "node": "no"}), "Node 'no' not found"),
        (json!({"parent": "r", "node": "n"}), "The node r does not support adding a child"),
    ] {
        assert_eq!(refused(&mut c, "x-blockdev-change", arguments), ("GenericError".to_owned(), text.to_owned()));
    }
    let scratch = Scratch::new();
    let (_emulator, path) = start(&scratch, Board::Virt, false, &["-S"]);
    let mut c = Client::ready(&path);
    for command in ["query-sev", "query-sev-capabilities", "query-sgx", "query-sgx-capabilities"] {
        assert_eq!(refused(&mut c, command, Value::Null).0, "CommandNotFound");
    }
}

/// A port with an id tells whether the guest has it open; a reset closes it.
#[test]
fn ports_are_opened() {
    require!("amd64/kernel", "amd64/initramfs");
    let scratch = Scratch::new();
    let port = "virtserialport,chardev=c,id=agent,nr=1,name=org.example.port";
    let more = ["-cpu", "max", "-device", "virtio-serial-pci", "-chardev", "null,id=c", "-device", port];
    let (mut guest, path) = start(&scratch, Board::Q35, true, &more);
    let mut client = Client::ready(&path);
    let mut told = |open: bool| {
        let event = client.event("VSERPORT_CHANGE");
        assert_eq!(event["data"], json!({"id": "agent", "open": open}));
    };
    guest.expect("guest# ", STEP);
    guest.send("until [ -e /dev/vport*p1 ]; do sleep 1; done; exec 3<>$(echo /dev/vport*p1)\n");
    told(true);
    guest.send("exec 3>&-\n");
    told(false);
    guest.send("exec 3<>$(echo /dev/vport*p1)\n");
    told(true);
    client.get("system_reset");
    assert_eq!(client.event("VSERPORT_CHANGE")["data"], json!({"id": "agent", "open": false}));
}
