//! Programs that begin with `#!` (execve(2), "Interpreter scripts").

use std::ffi::CStr;
use std::ptr::null;

use libc::*;

use super::exec::{c, exec_with, refused, shown, write_file};
use crate::file::{self, close, open};
use crate::process::{as_user, child, in_child, wait};
use crate::sys::sys;
use crate::{say, tests};

tests! {
    scripts, script_arguments, script_errors, nested_scripts, execveat_scripts,
}

fn scripts() {
    for (name, text) in [
        ("plain", "#!/bin/echo\n"),
        ("an argument", "#!/bin/echo one\n"),
        ("several words are one argument", "#!/bin/echo one two  three\n"),
        ("blanks", "#! \t /bin/echo \t one \t \n"),
        ("no end of line", "#!/bin/echo one"),
        ("a return", "#!/bin/echo one\r\n"),
        ("nothing after it counts", "#!/bin/echo one\nexit 1\n"),
        ("a zero byte", "#!/bin/echo one\0two\n"),
    ] {
        write_file(c"script", text.as_bytes(), 0o755);
        say!("{name}:");
        let status = in_child(|| exec_with(c"./script", &[c"zero", c"first", c"second"], &[]).errno());
        say!("{}", shown(status));
    }
}

fn script_arguments() {
    // The kernel looks at 256 bytes.
    for length in [100, 240, 241, 242, 243, 244, 245, 246, 300] {
        let line = format!("#!/bin/echo {}\n", "a".repeat(length));
        write_file(c"script", line.as_bytes(), 0o755);
        let pipe = file::pipe();
        let pid = child(|| {
            sys!(SYS_dup3, pipe[1], 1, 0);
            exec_with(c"./script", &[c"zero"], &[]).errno()
        });
        close(pipe[1]);
        let status = wait(pid);
        let text = file::read(pipe[0], 1000);
        close(pipe[0]);
        say!("an argument of {length}: {}, {} letters arrive", shown(status), text.matches('a').count());
    }
    for length in [252, 253, 254, 255, 256] {
        let line = format!("#!/{}bin/echo\n", "/".repeat(length - 12));
        write_file(c"script", line.as_bytes(), 0o755);
        say!("a line of {}: {}", line.len(), shown(in_child(|| exec_with(c"./script", &[c"zero"], &[]).errno())));
    }
}

fn script_errors() {
    sys!(SYS_mkdirat, AT_FDCWD, c"d", 0o755);
    write_file(c"plain", b"x", 0o644);
    for (name, text) in [
        ("no interpreter", "#!\n"),
        ("blanks only", "#!   \n"),
        ("nothing at all", "#!"),
        ("one that is not there", "#!/nowhere\n"),
        ("a directory", "#!/bin\n"),
        ("one that may not be run", "#!./plain\n"),
        ("under a file", "#!./plain/x\n"),
        ("relative", "#!bin/echo\n"),
        ("a space before", " #!/bin/echo\n"),
    ] {
        write_file(c"script", text.as_bytes(), 0o755);
        say!("{name}: {}", refused(c"./script"));
    }
    write_file(c"script", b"#!/bin/echo\n", 0o644);
    say!("a script that may not be run: {}", refused(c"./script"));
    write_file(c"script", b"#!/bin/echo runs\n", 0o111);
    as_user(1000, || {
        say!("a script that may only be run: {}", refused(c"./script"));
        0
    });
}

fn nested_scripts() {
    write_file(c"s0", b"#!/bin/echo zero\n", 0o755);
    for level in 1..8 {
        let text = format!("#!./s{} arg{level}\n", level - 1);
        write_file(&c(&format!("s{level}")), text.as_bytes(), 0o755);
    }
    for level in [1, 2, 3, 4, 5, 6, 7] {
        let path = c(&format!("./s{level}"));
        say!("{level} deep: {}", shown(in_child(|| exec_with(&path, &[c"x"], &[]).errno())));
    }
    write_file(c"self", b"#!./self\n", 0o755);
    say!("its own interpreter: {}", refused(c"./self"));
}

fn execveat_scripts() {
    write_file(c"script", b"#!/bin/echo name:\n", 0o755);
    let here = open(c".", O_RDONLY | O_DIRECTORY).fd();
    let fd = open(c"script", O_RDONLY).fd();
    let secret = open(c"script", O_RDONLY | O_CLOEXEC).fd();
    let call = |fd: i32, path: &CStr, flags: i32| {
        shown(in_child(|| sys!(SYS_execveat, fd, path, &[c"zero".as_ptr(), c"one".as_ptr(), null()], 0, flags).errno()))
    };
    say!("{}", call(AT_FDCWD, c"script", 0));
    say!("{}", call(here, c"script", 0));
    say!("{}", call(fd, c"", AT_EMPTY_PATH));
    say!("a descriptor that is closed by then: {}", call(secret, c"", AT_EMPTY_PATH));
}
