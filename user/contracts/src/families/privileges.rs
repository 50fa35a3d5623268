//! execve(2) and privileges: set-id bits, capabilities, what a program is told of them.

use libc::*;

use super::exec::{SELF, copy_of_self, ended, exec_with, refused, run_as, shown, small, write_file};
use crate::file::{close, open, path, pipe, read, write};
use crate::process::{as_user, child, in_child, sleep_ms, until_asleep, wait};
use crate::sys::sys;
use crate::{say, tests};

tests! {
    set_user_id, set_user_id_refused, set_group_id, set_id_scripts, auxiliary, capabilities, ambient_capabilities, no_execution_mounts,
    files_opened_before,
}

fn set_user_id() {
    copy_of_self(c"root", (0, 0), 0o4755);
    copy_of_self(c"user", (2000, 0), 0o4755);
    as_user(1000, || ended(run_as(c"./root", c"ids", &[])));
    say!("to another user:");
    as_user(1000, || ended(run_as(c"./user", c"ids", &[])));
    say!("root to a user:");
    run_as(c"./user", c"ids", &[]);
    say!("a user to itself:");
    as_user(2000, || ended(run_as(c"./user", c"ids", &[])));
}

fn set_user_id_refused() {
    copy_of_self(c"root", (0, 0), 0o4755);
    say!("PR_SET_NO_NEW_PRIVS:");
    as_user(1000, || {
        sys!(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        ended(run_as(c"./root", c"ids", &[]))
    });
    copy_of_self(c"plain", (0, 0), 0o755);
    say!("without the bit:");
    as_user(1000, || ended(run_as(c"./plain", c"ids", &[])));
    copy_of_self(c"locked", (0, 0), 0o4700);
    as_user(1000, || {
        say!("not for this user: {}", shown(run_as(c"./locked", c"ids", &[])));
        0
    });
}

fn set_group_id() {
    copy_of_self(c"group", (0, 3000), 0o2755);
    copy_of_self(c"lock", (0, 3000), 0o2745);
    copy_of_self(c"both", (0, 3000), 0o6755);
    as_user(1000, || ended(run_as(c"./group", c"ids", &[])));
    say!("without the group's right to execute:");
    as_user(1000, || ended(run_as(c"./lock", c"ids", &[])));
    say!("both bits:");
    as_user(1000, || ended(run_as(c"./both", c"ids", &[])));
}

fn set_id_scripts() {
    // This program is called with `--as` and the name of the script, which is that of a guise.
    copy_of_self(c"copy", (0, 0), 0o755);
    write_file(c"ids", b"#!./copy --as\n", 0o4755);
    let run = || in_child(|| exec_with(c"ids", &[c"x"], &[]).errno());
    say!("a script's bits do not count:");
    as_user(1000, || ended(run()));
    copy_of_self(c"copy", (0, 0), 0o4755);
    write_file(c"ids", b"#!./copy --as\n", 0o755);
    say!("its interpreter's do:");
    as_user(1000, || ended(run()));
}

fn auxiliary() {
    run_as(SELF, c"auxiliary", &[]);
    copy_of_self(c"copy", (2000, 3000), 0o6755);
    as_user(1000, || ended(run_as(c"./copy", c"auxiliary", &[])));
}

fn capabilities() {
    say!("root:");
    run_as(SELF, c"ids", &[]);
    say!("a user that keeps them:");
    in_child(|| {
        sys!(SYS_prctl, PR_SET_KEEPCAPS, 1, 0, 0, 0);
        sys!(SYS_setresuid, 1000, 1000, 1000);
        ended(run_as(SELF, c"ids", &[]))
    });
    say!("root without one in the bounding set:");
    in_child(|| {
        sys!(SYS_prctl, PR_CAPBSET_DROP, 0, 0, 0, 0);
        ended(run_as(SELF, c"ids", &[]))
    });
    say!("the real user is root:");
    in_child(|| {
        sys!(SYS_setresuid, 0, 1000, 1000);
        ended(run_as(SELF, c"ids", &[]))
    });
    say!("the effective user is root:");
    in_child(|| {
        sys!(SYS_setresuid, 1000, 0, 1000);
        ended(run_as(SELF, c"ids", &[]))
    });
    say!("SECBIT_NOROOT:");
    in_child(|| {
        sys!(SYS_prctl, PR_SET_SECUREBITS, 1, 0, 0, 0);
        ended(run_as(SELF, c"ids", &[]))
    });
}

fn ambient_capabilities() {
    let header = [0x2008_0522u32, 0];
    let sets = [u32::MAX, u32::MAX, 1 << 10, 0x1ff, 0x1ff, 0];
    in_child(|| {
        say!("capset: {}", sys!(SYS_capset, &header, &sets));
        say!("raise: {}", sys!(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 10, 0, 0));
        sys!(SYS_prctl, PR_SET_SECUREBITS, 1 << 4, 0, 0, 0);
        sys!(SYS_setresuid, 1000, 1000, 1000);
        say!("after a change of user: {}", sys!(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, 10, 0, 0));
        say!("raise: {}", sys!(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 10, 0, 0));
        run_as(SELF, c"ids", &[]);
        copy_of_self(c"copy", (1000, 0), 0o4755);
        say!("through a program that changes nothing:");
        run_as(c"./copy", c"ids", &[]);
        copy_of_self(c"root", (1000, 1000), 0o755);
        0
    });
}

fn no_execution_mounts() {
    sys!(SYS_mkdirat, AT_FDCWD, c"m", 0o755);
    let mount = |flags: c_ulong| sys!(SYS_mount, c"tmpfs", c"m", c"tmpfs", flags, 0);
    say!("MS_NOEXEC: {}", mount(MS_NOEXEC));
    write_file(c"m/f", &small(), 0o755);
    write_file(c"m/script", b"#!/bin/true\n", 0o755);
    say!("a program: {}", refused(c"m/f"));
    say!("a script: {}", refused(c"m/script"));
    say!("access(X_OK): {}", sys!(SYS_faccessat, AT_FDCWD, c"m/f", X_OK));
    sys!(SYS_umount2, c"m", 0);
    say!("MS_NOSUID: {}", mount(MS_NOSUID));
    copy_of_self(c"m/root", (0, 0), 0o4755);
    as_user(1000, || ended(run_as(c"m/root", c"ids", &[])));
    say!("umount: {}", sys!(SYS_umount2, c"m", 0));
}

/// What was opened of a process does not show the program with more rights that it becomes.
fn files_opened_before() {
    const FILES: [&str; 7] = ["maps", "smaps", "io", "personality", "syscall", "environ", "auxv"];
    copy_of_self(c"root", (0, 0), 0o4755);
    as_user(1000, || {
        // A change of ids has hidden it.
        sys!(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
        let (go, life) = (pipe(), pipe());
        let child = child(|| {
            close(life[1]);
            read(go[0], 1);
            sys!(SYS_dup3, life[0], 0, 0);
            exec_with(c"./root", &[c"contracts", c"--as", c"reader"], &[]);
            1
        });
        until_asleep(child);
        let place = |name: &str| path(format!("/proc/{child}/{name}"));
        let files = FILES.map(|name| (name, open(&place(name), O_RDONLY)));
        write(go[1], "x");
        while std::fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|comm| comm != "root\n") {
            sleep_ms(1);
        }
        until_asleep(child);
        for (name, fd) in files {
            let mut buffer = [0u8; 64];
            let said = match fd.ok() {
                true => sys!(SYS_read, fd.fd(), &mut buffer, buffer.len()),
                false => fd,
            };
            let said = if said.0 > 0 { "text".into() } else { said.to_string() };
            say!("{name}: {said}, opened now: {}", open(&place(name), O_RDONLY).ok_or_error());
        }
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        say!("where its stack begins: {:?}", stat.rsplit(')').next().and_then(|rest| rest.split(' ').nth(26)));
        close(life[1]);
        say!("the end: {}", wait(child));
        0
    });
}
