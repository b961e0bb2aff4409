//! How the demo ends when it is not left alone: stopped while it starts, started again, and nobody reads what it says.
#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dualwright-under-test");

fn demo(state: &std::path::Path, once: bool) -> Child {
    let mut command = Command::new(PROGRAM);
    command.arg("demo").arg("--state").arg(state).args(once.then_some("--once"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

#[test]
fn stopped_while_it_starts_it_goes_on_later_and_needs_no_reader() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut first = demo(folder.path(), false);
    let mut lines = BufReader::new(first.stdout.take().expect("a pipe")).lines();
    let line = lines.next().expect("a line").expect("text");
    assert!(line.starts_with("F&O on http://127.0.0.1:"), "{line}");
    let sent = Command::new("kill").args(["-INT", &first.id().to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "the signal is not sent");
    let rest = lines.map_while(Result::ok).collect::<Vec<_>>().join("\n");
    let ended = first.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{rest}\n{said}");
    assert!(said.contains("the state is kept") && !said.contains("DW-"), "{rest}\n{said}");

    let mut second = demo(folder.path(), true);
    drop(second.stdout.take());
    let ended = second.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}
