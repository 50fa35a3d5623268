//! A person at the console: editing, job control, full-screen programs, switching off.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use expectrl::ControlCode;
use libtest_mimic::Trial;
use pollux_tests::{Console, lab};

use crate::trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("terminal::lines_can_be_edited", editing),
        trial("terminal::pipelines_work", pipelines),
        trial("terminal::vi_opens_and_saves", vi),
        trial("terminal::less_scrolls", less),
        trial("terminal::ctrl_c_kills_the_foreground", ctrl_c),
        trial("terminal::ctrl_backslash_and_ctrl_d", quit_and_end),
        trial("terminal::jobs_stop_and_go_on", jobs),
        trial("terminal::ps_and_top_show_sane_figures", figures),
        trial("terminal::the_window_has_the_hosts_size", window),
        trial("terminal::exit_hands_its_status_on", exit),
        trial("terminal::the_escape_key_leaves", escape),
        trial("terminal::a_break_and_a_letter_ask_the_kernel", breaks),
    ]
}

/// A console of a machine whose image may be written to by nobody else.
fn console(test: &str) -> Result<Console> {
    let image = lab::copy_of("test", test)?;
    Console::boot(&image, &["--append", "init=/sbin/init", "--smp", "2"])
}

/// `poweroff`, and QEMU is gone.
fn leave(mut console: Console) -> Result<()> {
    console.type_in("poweroff\r")?;
    let status = console.end()?;
    ensure!(status == 0, "status {status}");
    Ok(())
}

fn editing() -> Result<()> {
    let mut console = console("editing")?;
    // Left twice, insert; Home, delete; erase.
    console.expect("echo helo\u{1b}[D\u{1b}[Dl", "hello")?;
    console.expect("xecho begin\u{1}\u{1b}[3~", "begin")?;
    console.expect("echo abX\u{7f}c", "abc")?;
    console.expect("echo first", "first")?;
    // The history: up.
    console.type_in("\u{1b}[A\r")?;
    console.wait_for(r"echo first[^\n]*\nfirst\r\n")?;
    console.prompt()?;
    // Cooked mode, where the kernel edits: erase a character, and the whole line.
    console.type_in("cat\r")?;
    console.wait_for("cat\r\n")?;
    // Until then the shell has the terminal.
    sleep(Duration::from_millis(500));
    console.type_in("wrong\u{15}lo\u{7f}ine\r")?;
    console.wait_for("\nline\r\n")?;
    console.control(ControlCode::EndOfTransmission)?;
    console.prompt()?;
    leave(console)
}

fn pipelines() -> Result<()> {
    let mut console = console("pipelines")?;
    let shown = console.command("cd /; ls | sort | head -n 4")?;
    let words: Vec<_> = shown.split_whitespace().collect();
    ensure!(words == ["bin", "dev", "etc", "lib"], "{shown:?}");
    console.expect("ls / | wc -l > /tmp/n; cat /tmp/n | grep -c '[0-9]'", "1")?;
    leave(console)
}

fn vi() -> Result<()> {
    let mut console = console("vi")?;
    console.type_in("vi /root/note\r")?;
    console.wait_for(r"/root/note.*\[?")?;
    sleep(Duration::from_millis(500));
    console.type_in("ifirst line\rsecond line\u{1b}")?;
    sleep(Duration::from_millis(500));
    console.type_in(":wq\r")?;
    console.prompt()?;
    let shown = console.command("cat /root/note; wc -l < /root/note")?;
    ensure!(shown.trim() == "first line\nsecond line\n2", "{shown:?}");
    // Open it again, delete the first line, save.
    console.type_in("vi /root/note\r")?;
    console.wait_for("second line")?;
    sleep(Duration::from_millis(500));
    console.type_in("dd:x\r")?;
    console.prompt()?;
    let shown = console.command("cat /root/note")?;
    ensure!(shown.trim() == "second line", "{shown:?}");
    leave(console)
}

fn less() -> Result<()> {
    let mut console = console("less")?;
    console.type_in("seq 1 500 | sed 's/^/line-/;s/$/-end/' > /tmp/l; less /tmp/l\r")?;
    console.wait_for("line-20-end")?;
    console.type_in(" ")?;
    console.wait_for("line-40-end")?;
    console.type_in("G")?;
    console.wait_for("line-500-end")?;
    console.type_in("q")?;
    console.prompt()?;
    leave(console)
}

fn ctrl_c() -> Result<()> {
    let mut console = console("ctrl_c")?;
    let start = Instant::now();
    console.type_in("sleep 100\r")?;
    sleep(Duration::from_secs(1));
    console.control(ControlCode::EndOfText)?;
    console.prompt()?;
    ensure!(start.elapsed() < Duration::from_secs(60), "it slept on");
    console.expect("echo $?", "130")?;
    // The shell survives it, and so does a program that handles it.
    console.control(ControlCode::EndOfText)?;
    console.prompt()?;
    console.type_in("trap 'echo caught' INT; sleep 100; trap - INT\r")?;
    sleep(Duration::from_secs(1));
    console.control(ControlCode::EndOfText)?;
    console.wait_for("caught")?;
    console.prompt()?;
    leave(console)
}

fn quit_and_end() -> Result<()> {
    let mut console = console("quit_and_end")?;
    console.type_in("sleep 100\r")?;
    sleep(Duration::from_secs(1));
    console.control(ControlCode::FileSeparator)?;
    console.prompt()?;
    console.expect("echo $?", "131")?;
    console.type_in("cat > /tmp/typed\r")?;
    sleep(Duration::from_millis(500));
    console.type_in("some text\r")?;
    console.control(ControlCode::EndOfTransmission)?;
    console.prompt()?;
    console.expect("cat /tmp/typed", "some text")?;
    leave(console)
}

fn jobs() -> Result<()> {
    let mut console = console("jobs")?;
    console.type_in("sleep 100\r")?;
    sleep(Duration::from_secs(1));
    console.control(ControlCode::Substitute)?;
    console.prompt()?;
    console.expect("jobs", "Stopped")?;
    console.expect("ps -o stat,args | grep '[s]leep 100'", "T")?;
    console.expect("bg", "sleep 100")?;
    console.expect("jobs", "Running")?;
    console.type_in("fg\r")?;
    console.wait_for("fg\r\nsleep 100")?;
    sleep(Duration::from_millis(500));
    console.control(ControlCode::EndOfText)?;
    console.prompt()?;
    console.expect("jobs; echo none", "none")?;
    // A job in the background must not read from the terminal.
    console.command("cat &")?;
    sleep(Duration::from_millis(500));
    console.expect("jobs", "Stopped")?;
    console.command("kill %1; kill -CONT %1; wait")?;
    leave(console)
}

fn figures() -> Result<()> {
    let mut console = console("figures")?;
    let shown = console.command("ps -o pid,ppid,stat,comm")?;
    let find = |pid: &str| {
        shown
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|words| words.first() == Some(&pid))
            .map(|words| words.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let init = find("1").unwrap_or_default();
    ensure!(init.len() == 4 && init[1] == "0" && init[3] == "init", "{shown:?}");
    ensure!(shown.contains(" sh") && shown.contains(" ps"), "{shown:?}");
    console.expect("ps -o tty,comm | grep ' sh$'", "204,64")?;
    console.type_in("sh -c 'while :; do :; done' &\r")?;
    console.prompt()?;
    console.type_in("top -d 2\r")?;
    // The second screen has measured for two seconds. The loop is on top of it.
    console.wait_for(r"Mem: +\d+K used, +\d+K free")?;
    console.wait_for(r"Mem: +\d+K used, +\d+K free")?;
    let (_, line) = console.wait_for(r"CPU: +\d+% usr +\d+% sys +\d+% nic +\d+% idle")?;
    let busy: u32 = line
        .trim_start_matches("CPU:")
        .trim_start()
        .split('%')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0);
    ensure!((20..=100).contains(&busy), "{line:?}");
    console.wait_for(r"R[^\n]* sh -c while")?;
    console.type_in("q")?;
    console.prompt()?;
    console.command("kill %1")?;
    let free = console.command("free | grep Mem")?;
    let numbers: Vec<u64> = free.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    ensure!(numbers.len() >= 3, "{free:?}");
    ensure!((400_000..=524_288).contains(&numbers[0]), "total {}", numbers[0]);
    ensure!(numbers[1] < numbers[0] && numbers[2] < numbers[0], "{free:?}");
    console.expect("uptime", "load average")?;
    leave(console)
}

fn window() -> Result<()> {
    let mut console = console("window")?;
    console.expect("stty size", "24 80")?;
    console.expect("echo $TERM", "vt100")?;
    console.expect("tty", "/dev/ttyAMA0")?;
    leave(console)
}

fn exit() -> Result<()> {
    let mut console = console("exit")?;
    console.type_in("exit 7\r")?;
    let status = console.end()?;
    ensure!(status == 7, "status {status}");
    Ok(())
}

fn escape() -> Result<()> {
    let mut console = console("escape")?;
    console.type_in("\u{1d}q")?;
    let status = console.end()?;
    ensure!(status == 0, "status {status}");
    Ok(())
}

/// A break on the serial line comes from QEMU's monitor; the letter is typed.
fn breaks() -> Result<()> {
    let image = lab::copy_of("test", "breaks")?;
    // The path of a socket must be short.
    let monitor = std::env::temp_dir().join(format!("pollux-monitor-{}", std::process::id()));
    let arguments = format!("-monitor unix:{},server=on,wait=off", monitor.display());
    let mut console = Console::boot(&image, &["--append", "init=/sbin/init", "--smp", "2", "--qemu", &arguments])?;
    let path = monitor;
    let mut monitor = UnixStream::connect(&path)?;
    std::fs::remove_file(&path)?;
    let mut press = |console: &mut Console, letter: &str| -> Result<()> {
        monitor.write_all(b"chardev-send-break console\n")?;
        // The monitor does not say when it has done it.
        sleep(Duration::from_millis(500));
        console.type_in(letter)
    };
    press(&mut console, "h")?;
    console.wait_for(r"sysrq: HELP : loglevel\(0-9\) .*show-blocked-tasks\(w\)")?;
    console.command("")?;
    // Switched off, and the letter is input.
    console.command("echo 0 > /proc/sys/kernel/sysrq")?;
    console.type_in("echo t")?;
    press(&mut console, "h")?;
    console.expect("ree", "three")?;
    // Bits: only the level of messages may be set.
    console.command("echo 2 > /proc/sys/kernel/sysrq")?;
    press(&mut console, "w")?;
    console.wait_for("sysrq: This sysrq operation is disabled.")?;
    console.command("")?;
    console.command("echo 1 > /proc/sys/kernel/sysrq")?;
    press(&mut console, "w")?;
    console.wait_for("sysrq: Show Blocked State")?;
    console.wait_for("init")?;
    press(&mut console, "o")?;
    let status = console.end()?;
    ensure!(status == 0, "status {status}");
    Ok(())
}
