//! Dynamically linked programs of Debian, with glibc.

use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use pollux_tests::{lab, run_on};

use crate::trial;

pub fn trials() -> Vec<Trial> {
    let scripts: [(&str, &[&str], &str, &str); 6] = [
        ("dash_runs", &["dash"], "x=3; echo $((x * 14)); exit 0", "42\n"),
        (
            "bash_runs",
            &["bash"],
            "a=(one two three); echo ${a[1]} ${#a[@]}; [[ abc =~ ^a.c$ ]] && echo match; \
             printf '%05.2f\\n' 3.14159; [[ $BASH_VERSION = [5-9]* ]] && echo version",
            "two 3\nmatch\n03.14\nversion\n",
        ),
        (
            "coreutils_run",
            &["bash"],
            "set -e; cd /tmp; seq 1 1000 | shuf | sort -n | tail -n 1; mkdir d; cp -a /etc d/; \
             ls d/etc/passwd; stat -c %a d; printf 'b\\na\\n' | sort | tr '\\n' ,; echo; \
             sha256sum < /dev/null | cut -c 1-8; date -d @0 -u +%F; timeout 1 sleep 5 || echo $?; \
             df / | tail -n 1 | tr -s ' ' | cut -d ' ' -f 6; nproc > /dev/null; id -un",
            "1000\nd/etc/passwd\n755\na,b,\ne3b0c442\n1970-01-01\n124\n/\nroot\n",
        ),
        (
            "bash_pipelines_and_substitution",
            &["bash"],
            "paste -d, <(seq 1 2) <(seq 3 4); echo $?; x=$(for i in {1..50}; do /bin/echo $i; done | wc -l); \
             echo $x; coproc cat; echo hey >&${COPROC[1]}; read -r y <&${COPROC[0]}; echo $y; \
             kill $COPROC_PID; trap 'echo bye' EXIT",
            "1,3\n2,4\n0\n50\nhey\nbye\n",
        ),
        (
            "util_linux_ipc",
            &["bash"],
            "for what in '-Q -p 0640' '-M 8192' '-S 3'; do ipcmk $what | tr -d 0-9; done; \
             show() { ipcs | while read -r _ id owner rest; do [[ $owner = root ]] && echo $rest; done; }; \
             show; ipcrm --all; show; echo none left",
            "Message queue id: \nShared memory id: \nSemaphore id: \n640 0 0\n644 8192 0\n644 3\nnone left\n",
        ),
        (
            "libraries_are_mapped",
            &["bash"],
            "while read -r line; do [[ $line = *libc.so.6 ]] && echo mapped && break; done < /proc/self/maps; \
             readlink /proc/self/exe; LD_SHOW_AUXV=1 /bin/true | sort | head -n 1 | cut -d : -f 1; \
             LD_DEBUG=libs /bin/true 2>&1 | head -n 1 | tr -d ' \\t0-9:' | cut -c 1-12",
            "mapped\n/usr/bin/readlink\nAT_BASE\nfindlibrary=\n",
        ),
    ];
    let mut trials: Vec<Trial> = scripts
        .into_iter()
        .map(|(name, shell, script, expected)| {
            let arguments = [shell, &["-c", script]].concat();
            trial(&format!("debian::{name}"), move || {
                let machine = lab::machine(&lab::options(), "debian")?;
                let output = run_on(&machine, &arguments, b"", Duration::from_secs(90))?;
                let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                ensure!(text == expected, "stdout {text:?}, stderr {stderr:?}, {:?}", output.outcome);
                Ok(())
            })
        })
        .collect();
    trials.push(trial("debian::fio_verifies_what_io_uring_wrote", fio));
    trials
}

/// Random reads and writes in the cache and on the disk; fio reads everything again, and fails if it is not what it wrote.
fn fio() -> Result<()> {
    const SCRIPT: &str = "for more in --directory=/tmp '--directory=/var/tmp --fixedbufs=1 --registerfiles=1'; do \
         fio --name=t --ioengine=io_uring --rw=randrw --size=8m --bs=4k --iodepth=16 --verify=crc32c --verify_fatal=1 \
         --output-format=terse $more > /tmp/out || { cat /tmp/out; exit 1; }; echo verified; done";
    let machine = lab::machine(&lab::options(), "fio")?;
    let output = run_on(&machine, &["dash", "-c", SCRIPT], b"", Duration::from_secs(90))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(text == "verified\nverified\n", "stdout {text:?}, stderr {stderr:?}, {:?}", output.outcome);
    Ok(())
}
