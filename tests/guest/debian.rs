//! Dynamically linked programs of Debian, with glibc.

use std::time::Duration;

use anyhow::ensure;
use libtest_mimic::Trial;
use pollux_tests::{lab, run_on};

use crate::shared;

pub fn trials() -> Vec<Trial> {
    let scripts: [(&str, &[&str], &str, &str); 5] = [
        ("dash_runs", &["dash"], "x=3; echo $((x * 14)); exit 0", "42\n"),
        (
            "bash_runs",
            &["bash"],
            "a=(one two three); echo ${a[1]} ${#a[@]}; [[ abc =~ ^a.c$ ]] && echo match; \
             printf '%05.2f\\n' 3.14159; echo $BASH_VERSION | grep -c '^[5-9]'",
            "two 3\nmatch\n03.14\n1\n",
        ),
        (
            "coreutils_run",
            &["bash"],
            "set -e; cd /tmp; seq 1 1000 | shuf | sort -n | tail -n 1; mkdir d; cp -a /etc d/; \
             ls d/etc | grep -c passwd; stat -c %a d; printf 'b\\na\\n' | sort | tr '\\n' ,; echo; \
             sha256sum < /dev/null | cut -c 1-8; date -d @0 -u +%F; timeout 1 sleep 5 || echo $?; \
             df / | tail -n 1 | tr -s ' ' | cut -d ' ' -f 6; nproc > /dev/null; id -un",
            "1000\n1\n755\na,b,\ne3b0c442\n1970-01-01\n124\n/\nroot\n",
        ),
        (
            "bash_pipelines_and_substitution",
            &["bash"],
            "diff <(seq 1 5) <(seq 1 6); echo $?; x=$(for i in {1..50}; do /bin/echo $i; done | wc -l); \
             echo $x; coproc cat; echo hey >&${COPROC[1]}; read -r y <&${COPROC[0]}; echo $y; \
             kill $COPROC_PID; trap 'echo bye' EXIT",
            "5a6\n> 6\n1\n50\nhey\nbye\n",
        ),
        (
            "libraries_are_mapped",
            &["bash"],
            "grep -c 'libc.so.6' /proc/self/maps | grep -vc '^0'; readlink /proc/self/exe; \
             LD_SHOW_AUXV=1 /bin/true | grep -c '^AT_'  | grep -vc '^0'",
            "1\n/usr/bin/readlink\n1\n",
        ),
    ];
    scripts
        .into_iter()
        .map(|(name, shell, script, expected)| {
            let arguments = [shell, &["-c", script]].concat();
            shared(&format!("debian::{name}"), move || {
                let machine = lab::machine(&lab::options(), "debian")?;
                let output = run_on(&machine, &arguments, b"", Duration::from_secs(90))?;
                let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                ensure!(text == expected, "stdout {text:?}, stderr {stderr:?}, {:?}", output.outcome);
                Ok(())
            })
        })
        .collect()
}
