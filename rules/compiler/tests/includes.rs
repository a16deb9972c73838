//! `include`: a policy in several files, errors and counters at their places in each.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{PLAN, lines, segment, verdict};
use rules::{Candidate, Verdict};
use rules_compiler::{Compiled, compile};

/// A site directory that is gone in the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let path = std::env::temp_dir().join(format!("weir-include-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        let directory = Self(path);
        directory.write("weir.toml", PLAN);
        for (file, text) in files {
            directory.write(file, text);
        }
        directory
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    fn compiled(&self) -> Compiled {
        compile(&self.0).unwrap_or_else(|told| panic!("{}", told.render(false)))
    }

    fn told(&self) -> Vec<String> {
        compile(&self.0).map(|_| Vec::new()).unwrap_or_else(|told| lines(&told))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Fails only when somebody else was faster.
        let _ = fs::remove_dir_all(&self.0);
    }
}

const ROOT: &str = "include \"defines.nft\"
table inet f {
  include \"./sets.nft\"
  chain c { type filter hook forward priority 0; policy drop;
    include \"rules/*.nft\"
    tcp dport $web accept
  }
}
";

fn site(name: &str) -> Directory {
    Directory::new(
        name,
        &[
            ("rules.nft", ROOT),
            ("defines.nft", "# ports\ndefine web = 443\n"),
            ("sets.nft", "set admins { type ipv4_addr; elements = { 10.0.1.2 }; }\n"),
            ("rules/20-ssh.nft", "ip saddr @admins tcp dport 22 accept\n"),
            ("rules/10-lab.nft", "\niifname lab drop\n"),
            ("rules/.hidden.nft", "accept\n"),
            ("rules/readme", "accept\n"),
        ],
    )
}

#[test]
fn files_are_read_where_they_are_included() {
    let site = site("read").compiled();
    let names: Vec<_> = site.files().iter().filter_map(|path| path.file_name()?.to_str()).collect();
    assert_eq!(
        names,
        ["weir.toml", "rules.nft", "defines.nft", "sets.nft", "rules", "10-lab.nft", "20-ssh.nft"]
    );
    let text = site.to_rust();
    for part in ["\"rules/10-lab.nft\"", "\"rules.nft\""] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let site = site.leak();
    assert_eq!(verdict(site, &segment()), Verdict::Accept);
    assert_eq!(verdict(site, &Candidate { destination_port: 22, ..segment() }), Verdict::Accept);
    let Verdict::Drop(by_policy) = verdict(site, &Candidate { destination_port: 80, ..segment() }) else {
        panic!("it passes")
    };
    assert_eq!(site.policy.location(by_policy).to_string(), "rules.nft:4");
    // The files of a wildcard come in the order of their names: lab is dropped ahead of everything.
    let lab = Candidate { input: Some(common::LAB), ..segment() };
    let Verdict::Drop(by_rule) = verdict(site, &lab) else { panic!("it passes") };
    assert_eq!(site.policy.location(by_rule).to_string(), "rules/10-lab.nft:2");
}

#[test]
fn errors_stand_in_their_files() {
    let directory = site("errors");
    directory.write("rules/20-ssh.nft", "iifname work accept\n\n  iifname wrok accept\n");
    directory.write("rules/30-more.nft", "tcp dport 25 accpet\niifname lab tcp dport 26 accept\n");
    assert_eq!(
        directory.told(),
        [
            r#"rules/20-ssh.nft:3:11: client "wrok" is not declared in weir.toml; did you mean "work"?"#,
            r#"rules/30-more.nft:1:14: expected a match or a statement, found "accpet"; did you mean "accept"?"#,
            r#"rules/30-more.nft:2:1: no packet comes to this rule: the one of line 2 of rules/10-lab.nft takes them all; if that is meant, say so: comment "weir: allow shadowed""#,
        ]
    );
    let shown = compile(&directory.0).map(|_| String::new()).unwrap_or_else(|told| told.render(false));
    assert!(shown.contains("20-ssh.nft:3:11") && shown.contains("3 |   iifname wrok accept"), "{shown}");
}

#[test]
fn what_cannot_be_included() {
    let directory = Directory::new("refused", &[]);
    let outside = directory.0.with_extension("outside");
    fs::write(&outside, "accept\n").expect("a file");
    let link = std::os::unix::fs::symlink(&outside, directory.0.join("link.nft"));
    for (include, expected) in [
        ("include \"none.nft\"", r#"1:9: cannot include "none.nft": No such file or directory (os error 2)"#),
        ("include \"/etc/passwd\"", r#"1:9: "/etc/passwd" is not in the site directory"#),
        ("include \"a/../../b\"", r#"1:9: "a/../../b" is not in the site directory"#),
        ("include \"link.nft\"", r#"1:9: "link.nft" leads out of the site directory"#),
        ("include \"l*.nft\"", r#"1:9: "link.nft" leads out of the site directory"#),
        ("include \"*/x.nft\"", r#"1:9: "*/x.nft": this wildcard is not in this version's subset"#),
        ("include \"[ab].nft\"", r#"1:9: "[ab].nft": this wildcard is not in this version's subset"#),
        ("include \".\"", r#"1:9: "." is no file"#),
        ("include rules", r#"1:9: expected the name of a file in quotes, found "rules""#),
        ("include \"none-*.nft\" accept", r#"1:22: expected the end of the line or ";", found "accept""#),
    ] {
        directory.write("rules.nft", &format!("{include}\n# weir: allow open\n"));
        assert_eq!(directory.told(), [format!("rules.nft:{expected}")], "{include}");
    }
    fs::remove_file(&outside).expect("it is there");
    assert!(link.is_ok());
    // As in nft, a wildcard may stand for nothing.
    directory.write("rules.nft", "include \"none-*.nft\"\n# weir: allow open\n");
    assert_eq!(directory.told(), [""; 0]);
}

#[test]
fn files_that_include_themselves_end_in_an_error() {
    let depth = |directory: &Directory| {
        directory.told().iter().any(|line| line.contains("16 files within each other"))
    };
    let itself = Directory::new("itself", &[("rules.nft", "include \"rules.nft\"\ninclude \"rules.nft\"\n")]);
    assert!(depth(&itself), "{:?}", itself.told());
    // Thirty files, each of which includes the next one twice: 2^30 in all.
    let many =
        Directory::new("many", &[("rules.nft", "include \"0.nft\"\n"), ("15.nft", "# weir: allow open\n")]);
    for i in 0..14 {
        many.write(&format!("{i}.nft"), &format!("include \"{0}.nft\"\ninclude \"{0}.nft\"\n", i + 1));
    }
    many.write("14.nft", "define x = 1\n");
    let told = many.told();
    assert!(told.iter().any(|line| line.contains("more than 256 files or 4 MiB are included")), "{told:?}");
}

#[test]
fn files_go_on_where_others_end() {
    let directory = Directory::new(
        "braces",
        &[("rules.nft", "# weir: allow open\ntable ip t {\ninclude \"rest.nft\"\n"), ("rest.nft", "}")],
    );
    assert_eq!(directory.told(), [""; 0]);
    // The end of a file is not the end of a line: nft has it so.
    directory.write("rules.nft", "include \"rest.nft\"\ntable ip t {\n}\n# weir: allow open\n");
    directory.write("rest.nft", "define x = 1");
    assert_eq!(directory.told(), [r#"rules.nft:2:1: expected the end of the line or ";", found "table""#]);
    directory.write("rest.nft", "define x = 1\n");
    assert_eq!(directory.told(), [""; 0]);
    directory.write("rules.nft", "# weir: allow open\ntable ip t {\ninclude \"rest.nft\"\n");
    directory.write("rest.nft", "chain c {");
    let told = directory.told();
    assert_eq!(
        told.first().map(String::as_str),
        Some("rules.nft:2:12: this brace is never closed"),
        "{told:?}"
    );
    assert!(Path::new(&directory.0).is_dir());
}
