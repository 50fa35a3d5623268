//! One program in a guest: output, errors, statuses, input, on all kinds of machines.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use pollux_tests::lab::{self, options, run, run_on};
use pollux_wire::Exit;
use xtask::machine::{Bus, MachineOptions};
use xtask::session::{Input, Outcome, capture};

use crate::trial;

pub fn trials() -> Vec<Trial> {
    let machines = [
        ("default", options()),
        ("smp_1", MachineOptions { smp: Some(1), ..options() }),
        ("smp_4", MachineOptions { smp: Some(4), ..options() }),
        ("smp_8", MachineOptions { smp: Some(8), ..options() }),
        ("gic_2", MachineOptions { gic: 2, ..options() }),
        ("gic_2_smp_4", MachineOptions { gic: 2, smp: Some(4), ..options() }),
        ("pci", MachineOptions { bus: Bus::Pci, ..options() }),
        ("el2", MachineOptions { virtualization: true, ..options() }),
        ("icount", MachineOptions { icount: true, smp: None, ..options() }),
        ("mem_128m", MachineOptions { mem: "128M".into(), ..options() }),
        ("mem_4g", MachineOptions { mem: "4G".into(), ..options() }),
    ];
    machines
        .into_iter()
        .map(|(name, options)| trial(&format!("command::says_hi::{name}"), move || says_hi(&options)))
        .chain([
            trial("command::stderr_is_apart", stderr_is_apart),
            trial("command::signals_show_in_the_status", signals_show),
            trial("command::missing_program_is_127", missing_program),
            trial("command::input_arrives_whole", input_arrives),
            trial("command::much_output_arrives_whole", output_arrives),
            trial("command::long_arguments_arrive", long_arguments),
            trial("command::environment_and_directory", environment),
            trial("command::timeout_ends_the_run", timeout),
            trial("command::piped_shell_input_is_not_lost_at_boot", piped_shell),
            trial("command::orphans_do_not_keep_the_machine", orphans),
        ])
        .collect()
}

fn says_hi(options: &MachineOptions) -> Result<()> {
    let output = run(options, &["busybox", "sh", "-c", "echo hi; exit 3"])?;
    ensure!(output.outcome == Outcome::Exit(Exit::Code(3)), "{:?}", output.outcome);
    ensure!(output.stdout == b"hi\n", "{:?}", String::from_utf8_lossy(&output.stdout));
    ensure!(output.stderr.is_empty(), "{:?}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn stderr_is_apart() -> Result<()> {
    let output = run(&options(), &["sh", "-c", "echo out; echo err >&2; echo out2"])?;
    ensure!(output.stdout == b"out\nout2\n" && output.stderr == b"err\n", "{output:?}");
    Ok(())
}

fn signals_show() -> Result<()> {
    let output = run(&options(), &["sh", "-c", "kill -SEGV $$"])?;
    ensure!(output.outcome.status() == 128 + 11, "{:?}", output.outcome);
    let output = run(&options(), &["sh", "-c", "sleep 100 & kill $!; wait $!; echo $?"])?;
    ensure!(output.stdout == b"143\n", "{output:?}");
    Ok(())
}

fn missing_program() -> Result<()> {
    let output = run(&options(), &["no-such-program"])?;
    ensure!(output.outcome.status() == 127, "{:?}", output.outcome);
    ensure!(output.stderr.starts_with(b"init: no-such-program: "), "{output:?}");
    Ok(())
}

/// Bytes of all values, without a pattern that a lost chunk could hide in.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn input_arrives() -> Result<()> {
    let input = noise(100_000);
    let machine = lab::machine(&options(), "test")?;
    let output = run_on(&machine, &["cat"], &input, Duration::from_secs(60))?;
    ensure!(output.stdout == input, "{} bytes came back, or changed", output.stdout.len());
    Ok(())
}

fn output_arrives() -> Result<()> {
    let output = run(&options(), &["seq", "1", "100000"])?;
    let expected: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    ensure!(output.stdout == expected.as_bytes(), "{} bytes came", output.stdout.len());
    Ok(())
}

fn long_arguments() -> Result<()> {
    let long = "x".repeat(50_000);
    let output = run(&options(), &["sh", "-c", "echo ${#1} $#", "sh", &long, "b", ""])?;
    ensure!(output.stdout == b"50000 3\n", "{output:?}");
    Ok(())
}

fn environment() -> Result<()> {
    let request = pollux_wire::Request {
        argv: ["sh", "-c", "echo $FOO; pwd; echo $HOME"].map(|word| word.as_bytes().to_vec()).into(),
        env: vec![(b"FOO".to_vec(), b"a b".to_vec())],
        cwd: b"/var/log".to_vec(),
        ..pollux_wire::Request::default()
    };
    let machine = lab::machine(&options(), "test")?;
    let output = capture(&machine, request, Input::None, Duration::from_secs(60))?;
    ensure!(output.stdout == b"a b\n/var/log\n/root\n", "{output:?}");
    Ok(())
}

fn timeout() -> Result<()> {
    let machine = lab::machine(&options(), "test")?;
    let request = pollux_wire::Request {
        argv: vec![b"sh".to_vec(), b"-c".to_vec(), b"echo on; sleep 1000".to_vec()],
        ..pollux_wire::Request::default()
    };
    let output = capture(&machine, request, Input::None, Duration::from_secs(12))?;
    ensure!(output.outcome == Outcome::TimedOut, "{output:?}");
    ensure!(output.stdout == b"on\n", "{output:?}");
    Ok(())
}

/// The shell's input waits in the host's pipe before the kernel has set the console up.
fn piped_shell() -> Result<()> {
    let xtask = std::env::var_os("POLLUX_XTASK").context("run me with cargo xtask test")?;
    let kernel = xtask::bench::name_of(lab::kernel()).to_lowercase();
    let mut child = Command::new("timeout")
        .arg("120")
        .arg(xtask)
        .args(["qemu", "--snapshot", "--image", "test", "--kernel", kernel.as_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    stdin.write_all(b"echo $((6*7))00\npoweroff\n")?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && text.contains("\r\n4200\r\n"), "{:?}: {text:?}", output.status);
    Ok(())
}

fn orphans() -> Result<()> {
    let output = run(&options(), &["sh", "-c", "trap '' TERM; (sleep 1000; :) & echo started"])?;
    ensure!(output.stdout == b"started\n", "{output:?}");
    ensure!(output.outcome.status() == 0, "{output:?}");
    Ok(())
}
