# Processes, signals, time.
# Runs words as an ordinary user.
as_nobody() { su nobody -s /bin/sh -c "$*"; }

#@ kill
sleep 100 & kill $!; wait $!; echo $?; sleep 100 & kill -9 $!; wait $!; echo $?; kill -0 $$; echo $?; kill 99999999; echo $?; kill -l 15; kill -l INT; kill -l | tr -s ' \n' ' ' | cut -c 1-40; sleep 100 & kill -STOP $!; sleep 0.2; cut -d ' ' -f 3 /proc/$!/stat; kill -CONT $!; sleep 0.2; cut -d ' ' -f 3 /proc/$!/stat; kill -HUP $!; wait $!; echo $?

#@ timeout
timeout 1 sleep 5; echo $?; timeout 5 sh -c 'exit 3'; echo $?; timeout -s KILL 1 sleep 5; echo $?; timeout -k 1 1 sh -c 'trap "" TERM; sleep 5; sleep 5; sleep 5'; echo $?; timeout 1 nosuchprogram; echo $?

#@ pidof
sleep 123 & p=$!; sleep 124 & q=$!; sleep 0.2; pidof sleep | grep -c "$p"; pidof sleep | grep -c "$q"; kill $p $q; wait; pidof nosuch; echo $?; ls /proc/$p > /dev/null 2>&1; echo $?

#@ finding processes
sleep 321 & sleep 0.2; for d in /proc/[0-9]*; do tr '\0' ' ' < $d/cmdline 2> /dev/null | grep -q '^sleep 321' && echo found; done; ps | grep -c '[s]leep 321'; kill $!

#@ killall
sleep 100 & sleep 101 & sleep 0.3; killall sleep; echo $?; wait; echo $?; killall nosuch; echo $?; killall -q nosuch; echo $?; killall -l | grep -c TERM

#@ ignoring a hang-up
(trap '' HUP; sh -c 'kill -HUP $$; echo survived'); sh -c 'kill -HUP $$; echo not reached'; echo $?; sh -c 'trap "" HUP INT; (kill -INT $$; echo on) & wait; kill -HUP $$; echo on'

#@ ps
ps -o pid,ppid,comm | head -n 2 | tail -n 1 | awk '{ print $1, $2, $3 }'; ps | grep -c '[0-9] root'  | awk '{ print ($1 > 2) }'; sh -c 'sleep 3 & sleep 0.2; ps -o ppid,args' | grep '[s]leep 3' | awk '{ print ($1 > 1), $2, $3 }'; ps -o stat,comm | grep '^R.*ps$' | wc -l

#@ top and uptime
top -b -n 1 | sed -n '1s/[0-9][0-9]*K/NK/g;1p'; top -b -n 1 | grep -c init | awk '{ print ($1 > 0) }'; uptime | grep -c 'load average: [0-9]'; free | awk '/^Mem/ { print ($2 > $3), ($2 >= $3 + $4) }'; cat /proc/uptime | awk '{ print ($1 > 0), NF }'; cat /proc/loadavg | wc -w

#@ renice
cut -d ' ' -f 19 /proc/$$/stat; renice -n 10 -p $$; cut -d ' ' -f 19 /proc/$$/stat; sh -c 'cut -d " " -f 19 /proc/self/stat'; renice -n 1 -p 99999999; echo $?

#@ date
date -u -d @0; date -u -d @1700000000 '+%Y-%m-%d %H:%M:%S %j %a %b'; TZ=CET-1 date -d @1700000000 +%T; date -u -d '2024-02-29 12:00' +%s; date +%Y | awk '{ print ($1 >= 2024) }'; date -u -d @1700000000 -R; date -u -d @1700000000 -Iseconds; date -d nonsense; echo $?; a=$(date +%s); sleep 1; b=$(date +%s); echo $((b - a >= 1 && b - a < 10)); touch -d @5 f; date -u -r f +%s

#@ setting the clock
old=$(date +%s); date -u -s @1600000000 > /dev/null; date +%s | cut -c 1-8; date -u -s @$old > /dev/null; date +%s | awk -v o=$old '{ print ($1 - o < 10) }'; as_nobody date -s @0; echo $?

#@ sleep
a=$(cut -d ' ' -f 1 /proc/uptime); sleep 0.5; b=$(cut -d ' ' -f 1 /proc/uptime); echo $a $b | awk '{ d = $2 - $1; print (d >= 0.5 && d < 5) }'; sleep 0; usleep 1000; echo $?; sleep nonsense; echo $?; sleep 0.1s 0.1s; echo $?

#@ time and times
time sleep 0.1 2>&1 | wc -l; { time -p true; } 2>&1 | awk '{ print $1, ($2 < 5) }'; times | wc -l; i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done; times > t; head -n 1 t | awk '{ print ($1 != "0m0.000s" || $2 != "0m0.000s") }'

#@ watch
timeout 3 watch -t -n 1 echo watched > out; echo $?; grep -c watched out | awk '{ print ($1 >= 1) }'

#@ fifo
mkfifo p; (sleep 0.2; echo one; echo two) > p & cat p; wait; cat < p > out & echo three > p; wait; cat out; (exec 3<> p; echo four >&3; read x <&3; echo $x); timeout 1 cat p; echo $?; timeout 1 sh -c 'echo > p'; echo $?;

#@ broken pipe
(sleep 0.3; echo x; echo $? > status) | true; sleep 0.6; cat status 2> /dev/null; seq 1 1000000 | head -n 2; yes | head -c 100000 | wc -c; (trap '' PIPE; sleep 0.2; echo x 2> /dev/null || echo refused >&2) 2> err | true; sleep 0.5; cat err

#@ background and wait
for i in 3 1 2; do (sleep 0.$i; echo $i) & done; wait; (sleep 0.2; exit 4) & p=$!; (sleep 0.1; exit 5) & q=$!; wait $p; echo $?; wait $q; echo $?; wait 99999; echo $?

#@ orphans
sh -c '(sleep 0.3; echo orphan $(awk "{ print \$4 }" /proc/self/stat) > o) & exit'; sleep 1; grep -c orphan o; sh -c 'sleep 0.5 & echo $! > pid; exit'; sleep 0.1; awk '{ print $4 }' /proc/$(cat pid)/stat; sleep 1; ls /proc/$(cat pid) > /dev/null 2>&1; echo $?

#@ sessions and groups
setsid sh -c 'awk "{ print (\$5 == \$6) }" /proc/self/stat; awk "{ print \$7 }" /proc/self/stat'; sh -c 'awk -v s=$(cut -d " " -f 6 /proc/1/stat) "{ print (\$6 > 0) }" /proc/self/stat'; set -m; sleep 100 & awk '{ print ($1 == $5) }' /proc/$!/stat; kill %1; wait; echo done

#@ limits
(ulimit -v 20000; sh -c 'x=$(head -c 50000000 /dev/zero | tr "\0" x); echo ${#x}' 2> /dev/null; echo $?) | tail -n 1 | awk '{ print ($1 != 0) }'; (ulimit -f 10; head -c 100000 /dev/zero > big; echo $?; wc -c < big) 2> /dev/null; (ulimit -n 5; exec 3< /dev/null 4< /dev/null; cat /dev/null; echo $?) 2> /dev/null; (ulimit -t 1; while :; do :; done); echo $?

#@ proc of a process
cat /proc/self/comm; tr '\0' ' ' < /proc/self/cmdline; echo; sleep 50 & p=$!; sleep 0.1; tr '\0' ' ' < /proc/$p/cmdline; echo; readlink /proc/$p/exe; cat /proc/$p/comm; grep -E '^(Name|State|PPid|Threads|Uid):' /proc/$p/status | sed "s/$$/SHELL/" | tr '\t' ' '; ls /proc/$p/fd; readlink /proc/$p/cwd | sed 's/.*cases/cases/'; grep -c stack /proc/$p/maps; kill $p; tr '\0' '\n' < /proc/self/environ | grep -c ^PATH=; ls -d /proc/self/task/* | wc -l; cat /proc/nonexistent; ls -d /proc/99999999; echo $?

#@ proc of the machine
grep -c ^processor /proc/cpuinfo; head -n 1 /proc/meminfo | awk '{ print $1, $3 }'; grep -E -c '^(MemTotal|MemFree|MemAvailable|Buffers|Cached|SwapTotal|SwapFree):' /proc/meminfo; awk '/^cpu / { print NF > 7 ? "ok" : "short" }' /proc/stat; grep -c -E '^(cpu[01]|intr|ctxt|btime|processes|procs_running)' /proc/stat; grep -E 'proc|tmpfs|ext2' /proc/filesystems | awk '{ print $NF }' | sort -u | grep -c .  | awk '{ print ($1 >= 3) }'; grep -c ' / ' /proc/mounts | awk '{ print ($1 >= 1) }'; grep ' /proc ' /proc/mounts | cut -d ' ' -f 3; cat /proc/version | wc -l; hostname; cat /proc/sys/kernel/hostname

#@ uname and ids
uname -s; uname -m; uname -n; uname -r | grep -c '^[0-9]'; id -u; id -un; id -gn; whoami; groups; id nobody | cut -d ' ' -f 1; logname 2> /dev/null; nproc; arch; tty; echo $?; hostid | wc -c

#@ chroot and su
mkdir -p j/bin; cp /bin/busybox j/bin; ln -s busybox j/bin/sh; chroot j /bin/sh -c 'ls /; cd /..; /bin/busybox pwd'; chroot j /bin/nosuch; echo $?; su nobody -s /bin/sh -c 'id -u'; as_nobody chroot j /bin/sh; echo $?

#@ pipes of many
for i in $(seq 1 30); do seq 1 1000 | sort -rn | head -n 1 & done | sort | uniq -c | sed 's/^ *//'; wait; i=0; while [ $i -lt 30 ]; do x=$(echo $i | cat | cat); i=$((x + 1)); done; echo $i

#@ start-stop-daemon
start-stop-daemon -S -b -m -p pid -x /bin/sleep -- 100; sleep 0.3; tr '\0' ' ' < /proc/$(cat pid)/cmdline; echo; start-stop-daemon -K -p pid > /dev/null; echo $?; sleep 0.3; ls -d /proc/$(cat pid) > /dev/null 2>&1; echo $?

#@ setting the host name
old=$(hostname); hostname other; hostname; uname -n; cat /proc/sys/kernel/hostname; hostname $old; as_nobody hostname x; echo $?

#@ stopped children
sh -c 'kill -STOP $$; echo continued' & p=$!; sleep 0.3; cut -d ' ' -f 3 /proc/$p/stat; kill -CONT $p; wait $p; echo $?
