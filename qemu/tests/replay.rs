//! `weir replay` from outside: where its lines go, and the exit codes.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const PLAN: &str = "[uplink]\naddress = \"192.0.2.2/24\"\ngateway = \"192.0.2.1\"\n[[client]]\nname = \"work\"\naddress = \"10.0.1.1/24\"\n";

const RULES: &str = "table inet f {
  chain forward { type filter hook forward priority 0; policy drop;
    meta l4proto udp accept
  }
}
";

/// A site directory with a capture, gone in the end.
struct Site(PathBuf);

impl Site {
    fn new(name: &str, capture: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("weir-replays-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        fs::write(path.join("weir.toml"), PLAN).expect("a file");
        fs::write(path.join("rules.nft"), RULES).expect("a file");
        fs::write(path.join("pcap"), capture).expect("a file");
        Self(path)
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.arg("replay").arg(self.0.join("pcap")).args(options).arg("--site").arg(&self.0);
        command
    }

    fn replay(&self, options: &[&str]) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } =
            self.command(options).output().expect("the program was built");
        let text = |octets: Vec<u8>| String::from_utf8(octets).expect("text");
        (status.code(), text(stdout), text(stderr))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Fails only when somebody else was faster.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A capture of that many datagrams, raw IPv4: 10.0.1.2:7 > 198.51.100.7:9.
fn capture(count: usize) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 1, 2, 198, 51, 100, 7];
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend([0, 7, 0, 9, 0, 8, 0, 0]);
    let header = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101].map(u32::to_le_bytes).concat();
    let record = [&[0_u32, 0, 28, 28].map(u32::to_le_bytes).concat()[..], &packet].concat();
    [header, record.repeat(count)].concat()
}

#[test]
fn a_capture_that_is_read_to_its_end_is_exit_code_0() {
    let (code, out, errors) = Site::new("fine", &capture(2)).replay(&[]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].ends_with("forwarded rules.nft:3  -> uplink udp 10.0.1.2:7 > 198.51.100.7:9"), "{out}");
    assert!(lines[1].contains("forwarded by its session"), "{out}");
    assert_eq!(lines[2], "2 packets: 2 forwarded, 0 answered, 0 rejected, 0 dropped, 0 held, 0 skipped");
}

#[test]
fn a_bad_capture_is_exit_code_1_with_its_place_and_what_came_before_it() {
    let whole = capture(2);
    let (code, out, errors) = Site::new("cut", &whole[..whole.len() - 1]).replay(&[]);
    assert_eq!((code, out.lines().count()), (Some(1), 1));
    assert!(errors.starts_with("error: ") && errors.contains("octet 68, behind packet 1"), "{errors}");
    let (code, out, errors) = Site::new("none", b"no capture").replay(&[]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(errors.contains("neither a pcap nor a pcapng file"), "{errors}");
}

#[test]
fn a_port_that_there_is_not_is_exit_code_2() {
    let (code, out, errors) = Site::new("port", &capture(1)).replay(&["--port", "wrok"]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(errors.contains("help: its ports are uplink, work"), "{errors}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let site = Site::new("pipe", &capture(5000));
    let mut child = site.command(&[]).stdout(Stdio::piped()).spawn().expect("the program was built");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("an end").code(), Some(0));
}
