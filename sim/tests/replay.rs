//! The same seed does the same, in any process.

use std::process::Command;

fn output(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pollux-sim")).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Hashes of a seed of all scenarios. Processes differ in their addresses, their environment, and their time.
#[test]
fn traces_are_equal_in_all_processes() {
    for seed in ["11", "12", "13"] {
        let first = output(&["--seed", seed]);
        assert!(first.lines().count() > 3 && first.lines().all(|line| line.contains("trace hash")), "{first}");
        for _ in 0..3 {
            assert_eq!(output(&["--seed", seed]), first);
        }
    }
}

#[test]
fn other_seeds_do_other_things() {
    assert_ne!(output(&["--seed", "1", "mutex"]), output(&["--seed", "2", "mutex"]).replace("seed 2", "seed 1"));
}
