//! `weir who` and `--deny warnings` from outside: what is printed where, and the exit codes.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// A site directory that is gone in the end.
struct Site(PathBuf);

impl Site {
    fn new(name: &str, nat: &str, rules: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        let plan = format!(
            "[uplink]\naddress = \"192.0.2.2/24\"\n[[client]]\nname = \"work\"\naddress = \"10.0.1.1/24\"\n{nat}"
        );
        fs::write(path.join("weir.toml"), plan).expect("a file");
        fs::write(path.join("rules.nft"), format!("# weir: allow open\n{rules}")).expect("a file");
        Self(path)
    }

    fn weir(&self, words: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(words.split_whitespace()).arg("--site").arg(&self.0);
        command.output().expect("the program was built")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Fails only when somebody else was faster.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn printed(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn rfc_7422_an_answer_is_one_line_and_exit_code_0() {
    let site = Site::new("who", "[nat]\nport_blocks = 250\n", "");
    let port = site.weir("who 192.0.2.2:2300");
    assert_eq!(
        printed(&port),
        (Some(0), "192.0.2.2:2300: work 10.0.1.5, 192.0.2.2 ports 2274-2523\n".into())
    );
    let host = site.weir("who 10.0.1.5");
    assert_eq!(printed(&host), (Some(0), "work 10.0.1.5, 192.0.2.2 ports 2274-2523\n".into()));
}

#[test]
fn what_cannot_be_told_is_exit_code_1_and_wrong_use_2() {
    let site = Site::new("who-shared", "", "");
    let shared = site.weir("who 192.0.2.2:2300");
    assert_eq!(printed(&shared), (Some(1), String::new()));
    assert!(String::from_utf8_lossy(&shared.stderr).contains("help: port_blocks in [nat]"), "{shared:?}");
    assert_eq!(printed(&site.weir("who 2300")), (Some(2), String::new()));
}

#[test]
fn a_denied_warning_is_exit_code_1() {
    let site = Site::new("deny", "", "table ip t {\n  set s { type ipv4_addr; }\n}\n");
    assert_eq!(site.weir("check").status.code(), Some(0));
    let denied = site.weir("check --deny warnings");
    assert_eq!(printed(&denied), (Some(1), String::new()));
    let said = String::from_utf8_lossy(&denied.stderr);
    assert!(said.contains("error: set \"s\" is empty") && said.contains("rules.nft:3:7"), "{said}");
}
