//! User and group ids, supplementary groups, capabilities (credentials(7), capabilities(7)).

use libc::*;

use crate::process::{as_user, in_child};
use crate::sys::{NOWHERE, Ret, sys};
use crate::{say, tests};

tests! {
    set_user_as_root, set_user_as_user, set_real_and_effective, set_all_three, set_all_three_as_user, file_system_ids,
    group_ids, group_ids_as_user, groups, groups_refused, get_errors, capabilities_get, capabilities_set,
    capabilities_of_changed_users, kept_capabilities, secure_bits, bounding_set, ambient_set, minus_one,
}

/// Real, effective, saved and file-system user.
fn users() -> String {
    let (mut r, mut e, mut s) = (0u32, 0u32, 0u32);
    sys!(SYS_getresuid, &mut r, &mut e, &mut s);
    format!("{r} {e} {s} {}", sys!(SYS_setfsuid, -1))
}

fn group_list() -> String {
    let (mut r, mut e, mut s) = (0u32, 0u32, 0u32);
    sys!(SYS_getresgid, &mut r, &mut e, &mut s);
    format!("{r} {e} {s} {}", sys!(SYS_setfsgid, -1))
}

/// The capability sets as /proc has them: inheritable, permitted, effective, bounding, ambient.
fn caps() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let sets: Vec<&str> = status
        .lines()
        .filter(|line| line.starts_with("Cap"))
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(|set| set.trim_start_matches('0'))
        .map(|set| if set.is_empty() { "0" } else { set })
        .collect();
    sets.join(" ")
}

fn set_user_as_root() {
    in_child(|| {
        say!("setuid: {}, {}", sys!(SYS_setuid, 1000), users());
        say!("back: {}, {}", sys!(SYS_setuid, 0), users());
        0
    });
    in_child(|| {
        sys!(SYS_setresuid, 1000, 0, 2000);
        say!("with other ids: {}, {}", sys!(SYS_setuid, 3000), users());
        0
    });
    in_child(|| {
        sys!(SYS_setresuid, -1, 1000, -1);
        say!("without CAP_SETUID, to the real one: {}, {}", sys!(SYS_setuid, 0), users());
        0
    });
}

fn set_user_as_user() {
    in_child(|| {
        sys!(SYS_setresuid, 1000, 2000, 3000);
        say!("{}", users());
        say!("to the effective one: {}", sys!(SYS_setuid, 2000));
        say!("to another: {}", sys!(SYS_setuid, 4000));
        say!("to the saved one: {}, {}", sys!(SYS_setuid, 3000), users());
        say!("to the real one: {}, {}", sys!(SYS_setuid, 1000), users());
        0
    });
}

fn set_real_and_effective() {
    let run = |start: [i32; 3], real: i32, effective: i32| {
        in_child(|| {
            sys!(SYS_setresuid, start[0], start[1], start[2]);
            let ret = sys!(SYS_setreuid, real, effective);
            say!("{start:?}, setreuid({real}, {effective}): {ret}, {}", users());
            0
        });
    };
    run([0, 0, 0], 1000, -1);
    run([0, 0, 0], -1, 1000);
    run([0, 0, 0], 1000, 2000);
    run([0, 0, 0], -1, -1);
    run([0, 0, 0], -1, 0);
    let user = [1000, 2000, 3000];
    run(user, 2000, -1);
    run(user, 3000, -1);
    run(user, -1, 1000);
    run(user, -1, 3000);
    run(user, 2000, 1000);
    run(user, 1000, 3000);
    run(user, 1000, 4000);
    run(user, -1, 2000);
}

fn set_all_three() {
    let run = |a: i32, b: i32, c: i32| {
        in_child(|| {
            say!("setresuid({a}, {b}, {c}): {}, {}", sys!(SYS_setresuid, a, b, c), users());
            0
        });
    };
    run(1, 2, 3);
    run(-1, -1, -1);
    run(-1, 5, -1);
    run(5, -1, -1);
    run(-1, -1, 5);
    run(0, 0, 0);
}

fn set_all_three_as_user() {
    let run = |a: i32, b: i32, c: i32| {
        in_child(|| {
            sys!(SYS_setresuid, 1000, 2000, 3000);
            say!("setresuid({a}, {b}, {c}): {}, {}", sys!(SYS_setresuid, a, b, c), users());
            0
        });
    };
    run(3000, 1000, 2000);
    run(4000, -1, -1);
    run(-1, 4000, -1);
    run(-1, -1, 4000);
    run(2000, 2000, 2000);
    run(-1, -1, -1);
}

fn file_system_ids() {
    say!("ask: {} {}", sys!(SYS_setfsuid, -1), sys!(SYS_setfsgid, -1));
    in_child(|| {
        say!("set: {}, now {}", sys!(SYS_setfsuid, 1000), sys!(SYS_setfsuid, -1));
        say!("groups: {}, now {}", sys!(SYS_setfsgid, 1001), sys!(SYS_setfsgid, -1));
        say!("capabilities: {}", caps());
        crate::file::close(crate::file::create(c"f", ""));
        let made = crate::file::stat(c"f").map(|stat| (stat.st_uid, stat.st_gid));
        say!("a new file: {:?}", made.ok());
        say!("back: {}, {}", sys!(SYS_setfsuid, 0), caps());
        0
    });
    in_child(|| {
        sys!(SYS_setresuid, 1000, 2000, 3000);
        for id in [1000, 3000, 4000, 2000] {
            say!("a user, {id}: {}, now {}", sys!(SYS_setfsuid, id), sys!(SYS_setfsuid, -1));
        }
        0
    });
    in_child(|| {
        sys!(SYS_setfsuid, 1000);
        sys!(SYS_setresuid, -1, 0, -1);
        say!("setresuid takes it along: {}", users());
        0
    });
}

fn group_ids() {
    for (name, call) in [
        ("setgid(5)", (|| sys!(SYS_setgid, 5)) as fn() -> Ret),
        ("setregid(5, -1)", || sys!(SYS_setregid, 5, -1)),
        ("setregid(-1, 5)", || sys!(SYS_setregid, -1, 5)),
        ("setresgid(5, 6, 7)", || sys!(SYS_setresgid, 5, 6, 7)),
        ("setresgid(-1, -1, 7)", || sys!(SYS_setresgid, -1, -1, 7)),
    ] {
        in_child(|| {
            say!("{name}: {}, {}, {}", call(), group_list(), caps());
            0
        });
    }
}

fn group_ids_as_user() {
    for (name, call) in [
        ("setgid(1)", (|| sys!(SYS_setgid, 1)) as fn() -> Ret),
        ("setgid(2)", || sys!(SYS_setgid, 2)),
        ("setgid(3)", || sys!(SYS_setgid, 3)),
        ("setgid(0)", || sys!(SYS_setgid, 0)),
        ("setregid(2, 1)", || sys!(SYS_setregid, 2, 1)),
        ("setregid(3, -1)", || sys!(SYS_setregid, 3, -1)),
        ("setregid(-1, 3)", || sys!(SYS_setregid, -1, 3)),
        ("setresgid(3, 1, 2)", || sys!(SYS_setresgid, 3, 1, 2)),
        ("setresgid(4, -1, -1)", || sys!(SYS_setresgid, 4, -1, -1)),
        ("setgroups", || sys!(SYS_setgroups, 0, 0)),
    ] {
        in_child(|| {
            sys!(SYS_setresgid, 1, 2, 3);
            sys!(SYS_setresuid, 1000, 1000, 1000);
            say!("{name}: {}, {}", call(), group_list());
            0
        });
    }
}

fn get_groups() -> String {
    let mut list = [0u32; 64];
    let count = sys!(SYS_getgroups, 64, &mut list);
    if count.ok() { format!("{:?}", &list[..count.0 as usize]) } else { count.to_string() }
}

fn groups() {
    in_child(|| {
        say!("at first: {}", get_groups());
        say!("set: {}", sys!(SYS_setgroups, 4, &[30u32, 10, 20, 10]));
        say!("get: {}", get_groups());
        say!("ask how many: {}", sys!(SYS_getgroups, 0, 0));
        let mut list = [9u32; 3];
        say!("too few: {}", sys!(SYS_getgroups, 3, &mut list));
        say!("untouched: {list:?}");
        say!("none: {}, {}", sys!(SYS_setgroups, 0, 0), get_groups());
        0
    });
    in_child(|| {
        crate::file::close(crate::file::create(c"f", "text"));
        sys!(SYS_fchownat, AT_FDCWD, c"f", 0, 77, 0);
        sys!(SYS_fchmodat, AT_FDCWD, c"f", 0o640);
        sys!(SYS_setgroups, 1, &77u32);
        sys!(SYS_setresgid, 1000, 1000, 1000);
        sys!(SYS_setresuid, 1000, 1000, 1000);
        say!("a file of the group: {}", crate::file::contents(c"f"));
        say!("a child has them: {}", in_child(|| i32::from(get_groups() == "[77]")));
        0
    });
}

fn groups_refused() {
    let list = vec![5u32; 65_537];
    say!("65536: {}", sys!(SYS_setgroups, 65_536, &list[..]));
    say!("65537: {}", sys!(SYS_setgroups, 65_537, &list[..]));
    say!("-1: {}", sys!(SYS_setgroups, -1, &list[..]));
    say!("from nowhere: {}", sys!(SYS_setgroups, 1, NOWHERE));
    say!("-1 for an id: {}", sys!(SYS_setgroups, 1, &u32::MAX));
    say!("get -1: {}", sys!(SYS_getgroups, -1, 0));
    sys!(SYS_setgroups, 1, &list[..]);
    say!("get to nowhere: {}", sys!(SYS_getgroups, 64, NOWHERE));
    as_user(1000, || {
        say!("set by a user: {}", sys!(SYS_setgroups, 1, &5u32));
        say!("a bad list: {}", sys!(SYS_setgroups, 1, NOWHERE));
        0
    });
}

fn get_errors() {
    let mut id = 0u32;
    say!("{}", sys!(SYS_getresuid, NOWHERE, &mut id, &mut id));
    say!("{}", sys!(SYS_getresuid, &mut id, NOWHERE, &mut id));
    say!("{}", sys!(SYS_getresuid, &mut id, &mut id, NOWHERE));
    say!("{}", sys!(SYS_getresgid, &mut id, &mut id, NOWHERE));
}

const V1: u32 = 0x1998_0330;
const V2: u32 = 0x2007_1026;
const V3: u32 = 0x2008_0522;

fn capget(version: u32, pid: i32) -> String {
    let mut header = [version, pid as u32];
    let place: *mut u32 = header.as_mut_ptr();
    let mut sets = [9u32; 6];
    let ret = sys!(SYS_capget, place, &mut sets);
    format!("{ret} {:#x} {sets:x?}", header[0])
}

fn capabilities_get() {
    for version in [V1, V2, V3, 0, 77] {
        say!("{version:#x}: {}", capget(version, 0));
    }
    say!("its own id: {}", capget(V3, sys!(SYS_getpid).0 as i32));
    say!("init: {}", capget(V3, 1));
    say!("nobody: {}", capget(V3, 4_000_000));
    say!("-1: {}", capget(V3, -1));
    let mut header = [V3, 0];
    let place: *mut u32 = header.as_mut_ptr();
    say!("no sets: {}", sys!(SYS_capget, place, 0));
    header[0] = 0;
    say!("no sets and a bad version: {}, {:#x}", sys!(SYS_capget, place, 0), header[0]);
    say!("header nowhere: {}", sys!(SYS_capget, NOWHERE, 0));
    say!("sets nowhere: {}", sys!(SYS_capget, &mut [V3, 0], NOWHERE));
}

/// capset with effective, permitted and inheritable sets of 64 bits.
fn capset(effective: u64, permitted: u64, inheritable: u64) -> Ret {
    let header = [V3, 0];
    let sets = [
        effective as u32,
        permitted as u32,
        inheritable as u32,
        (effective >> 32) as u32,
        (permitted >> 32) as u32,
        (inheritable >> 32) as u32,
    ];
    sys!(SYS_capset, &header, &sets)
}

const ALL: u64 = 0x1ff_ffff_ffff;

fn capabilities_set() {
    in_child(|| {
        say!("effective only some: {}, {}", capset(0xff, ALL, 0), caps());
        say!("permitted fewer: {}, {}", capset(0xf, 0xff, 0), caps());
        say!("permitted more: {}", capset(0xf, 0xfff, 0));
        say!("effective beyond permitted: {}", capset(0xf00, 0xff, 0));
        say!("inheritable within permitted: {}, {}", capset(0xf, 0xff, 0xf0), caps());
        say!("inheritable beyond, without CAP_SETPCAP: {}", capset(0xf, 0xff, 0xf00));
        say!("nothing: {}, {}", capset(0, 0, 0), caps());
        say!("effective again: {}", capset(1, 1, 0));
        0
    });
    in_child(|| {
        say!("bits that are none: {}, {}", capset(u64::MAX, u64::MAX, u64::MAX), caps());
        0
    });
    let sets = [0u32; 6];
    say!("another process: {}", sys!(SYS_capset, &[V3, 1], &sets));
    say!("nobody: {}", sys!(SYS_capset, &[V3, 4_000_000], &sets));
    say!("-1: {}", sys!(SYS_capset, &[V3, u32::MAX], &sets));
    let header = [5u32, 0];
    say!("bad version: {}", sys!(SYS_capset, &header, &sets));
    say!("header nowhere: {}", sys!(SYS_capset, NOWHERE, &sets));
    say!("sets nowhere: {}", sys!(SYS_capset, &[V3, 0], NOWHERE));
    in_child(|| {
        say!("version 1: {}, {}", sys!(SYS_capset, &[V1, 0], &[3u32, 7, 1]), caps());
        0
    });
    as_user(1000, || {
        say!("a user: {} {}", capset(0, 0, 0), capset(1, 1, 0));
        0
    });
}

fn capabilities_of_changed_users() {
    let run = |name: &str, change: fn()| {
        in_child(|| {
            change();
            say!("{name}: {}", caps());
            0
        });
    };
    run("at first", || {});
    run("setuid", || {
        sys!(SYS_setuid, 1000);
    });
    run("effective user", || {
        sys!(SYS_setresuid, -1, 1000, -1);
    });
    run("effective user and back", || {
        sys!(SYS_setresuid, -1, 1000, -1);
        sys!(SYS_setresuid, -1, 0, -1);
    });
    run("real user", || {
        sys!(SYS_setresuid, 1000, -1, -1);
    });
    run("all but the saved one", || {
        sys!(SYS_setresuid, 1000, 1000, 0);
    });
    run("all but the saved one, and back", || {
        sys!(SYS_setresuid, 1000, 1000, 0);
        sys!(SYS_setresuid, -1, 0, -1);
    });
    run("groups", || {
        sys!(SYS_setresgid, 1000, 1000, 1000);
    });
}

fn kept_capabilities() {
    in_child(|| {
        say!("PR_SET_KEEPCAPS: {}", sys!(SYS_prctl, PR_SET_KEEPCAPS, 1, 0, 0, 0));
        sys!(SYS_setresuid, 1000, 1000, 1000);
        say!("permitted stay, effective do not: {}", caps());
        say!("effective again: {}, {}", capset(1 << 7, ALL, 0), caps());
        say!("and with CAP_SETUID, back: {}, {}", sys!(SYS_setuid, 0), users());
        say!("{}", caps());
        0
    });
}

fn secure_bits() {
    let set = |bits: u32| sys!(SYS_prctl, PR_SET_SECUREBITS, bits, 0, 0, 0);
    let get = || sys!(SYS_prctl, PR_GET_SECUREBITS, 0, 0, 0, 0);
    in_child(|| {
        say!("at first: {}", get());
        say!("SECBIT_NO_SETUID_FIXUP: {}, {}", set(4), get());
        sys!(SYS_setresuid, 1000, 1000, 1000);
        say!("a change of user changes nothing: {}", caps());
        0
    });
    in_child(|| {
        say!("unknown: {}", set(0x1000));
        say!("SECBIT_NOROOT, locked: {}, {}", set(3), get());
        say!("unset: {}", set(0));
        say!("only the lock: {}", set(2));
        say!("more: {}, {}", set(0x13), get());
        say!("PR_GET_KEEPCAPS: {}", sys!(SYS_prctl, PR_GET_KEEPCAPS, 0, 0, 0, 0));
        say!("SECBIT_KEEP_CAPS_LOCKED: {}", set(0x33));
        say!("PR_SET_KEEPCAPS: {}", sys!(SYS_prctl, PR_SET_KEEPCAPS, 0, 0, 0, 0));
        0
    });
    as_user(1000, || {
        say!("a user: {}", set(4));
        0
    });
}

fn bounding_set() {
    in_child(|| {
        say!("drop 5: {}", sys!(SYS_prctl, PR_CAPBSET_DROP, 5, 0, 0, 0));
        say!("again: {}", sys!(SYS_prctl, PR_CAPBSET_DROP, 5, 0, 0, 0));
        say!("read: {}", sys!(SYS_prctl, PR_CAPBSET_READ, 5, 0, 0, 0));
        say!("permitted stay: {}", caps());
        say!("drop 41: {}", sys!(SYS_prctl, PR_CAPBSET_DROP, 41, 0, 0, 0));
        say!("into the inheritable set: {}", capset(ALL, ALL, 1 << 5));
        0
    });
    as_user(1000, || {
        say!("a user, drop: {}", sys!(SYS_prctl, PR_CAPBSET_DROP, 5, 0, 0, 0));
        say!("drop 41: {}", sys!(SYS_prctl, PR_CAPBSET_DROP, 41, 0, 0, 0));
        0
    });
}

fn ambient_set() {
    let call = |action: i32, capability: u32| sys!(SYS_prctl, PR_CAP_AMBIENT, action, capability, 0, 0);
    in_child(|| {
        say!("raise what is not inheritable: {}", call(PR_CAP_AMBIENT_RAISE, 5));
        capset(ALL, ALL, 0xff);
        say!("raise: {}, {}", call(PR_CAP_AMBIENT_RAISE, 5), caps());
        say!("is set: {} {}", call(PR_CAP_AMBIENT_IS_SET, 5), call(PR_CAP_AMBIENT_IS_SET, 6));
        say!("no such capability: {} {}", call(PR_CAP_AMBIENT_RAISE, 41), call(PR_CAP_AMBIENT_IS_SET, 99));
        say!("no such action: {}", call(9, 5));
        say!("more arguments: {}", sys!(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 5, 1, 0));
        say!("clear with an argument: {}", call(PR_CAP_AMBIENT_CLEAR_ALL, 5));
        call(PR_CAP_AMBIENT_RAISE, 6);
        say!("lower: {}, {}", call(PR_CAP_AMBIENT_LOWER, 5), caps());
        capset(ALL, ALL, 0);
        say!("no longer inheritable: {}", caps());
        capset(ALL, ALL, 0xff);
        call(PR_CAP_AMBIENT_RAISE, 7);
        say!("clear: {}, {}", call(PR_CAP_AMBIENT_CLEAR_ALL, 0), caps());
        call(PR_CAP_AMBIENT_RAISE, 7);
        sys!(SYS_setuid, 1000);
        say!("a change of user: {}", caps());
        0
    });
}

fn minus_one() {
    say!("setuid: {}, setgid: {}", sys!(SYS_setuid, -1), sys!(SYS_setgid, -1));
    in_child(|| {
        say!("a large one: {}, {}", sys!(SYS_setuid, 0x8000_0000_u32), users());
        0
    });
    in_child(|| {
        say!("the largest: {}, {}", sys!(SYS_setresuid, 0xffff_fffe_u32, 0xffff_fffe_u32, 0xffff_fffe_u32), users());
        0
    });
}
