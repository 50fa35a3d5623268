# Runs the entries of a workload, one after another: those are the lines that follow. What they print goes to standard
# output, between lines of ours, which begin with @@. After one that does not end in its time, this ends, too: the rest is
# for a machine that nobody hangs in.

cpus=$1
export name seconds cpus

# What can be dropped at any time counts as free.
free_memory() {
    sync
    { echo 3 > /proc/sys/vm/drop_caches; } 2> /dev/null
    free=0
    while read -r what size _; do
        case $what in
        MemFree: | Buffers: | Cached: | SReclaimable:) free=$((free + size)) ;;
        Shmem:) free=$((free - size)) ;;
        esac
    done < /proc/meminfo
}

# Much is given back by tasks that run later: waits for that, but not for ever.
settle() { # BEFORE
    for _ in 1 2 3 4 5; do
        free_memory
        test $free -ge $(($1 - $1 / 100)) && return
        sleep 1
    done
}

run() { # NAME SECONDS LIMIT COMMAND
    name=$1 seconds=$2
    mkdir -p -m 1777 /tmp/work
    cd /tmp/work || exit
    free_memory
    before=$free
    read -r start idle < /proc/uptime
    echo "@@ begin $1 $start $idle"
    # Who waits for what, for the log, just before the time is over.
    (sleep $(($3 - 1)) && echo w > /proc/sysrq-trigger) 2> /dev/null &
    timeout -k 5 "$3" sh -c "$4" < /dev/null 2>&1
    status=$?
    read -r end idle < /proc/uptime
    kill -KILL -1
    wait
    cd /
    rm -rf /tmp/work
    settle $before
    printf '\n@@ end %s %s %s %s %s %s\n' "$1" $status "$end" "$idle" $before $free
    # timeout(1) says 124, busybox says which signal it took.
    case $status in 124 | 137 | 143) exit ;; esac
}

# What the kernel keeps for good after its first work is not lost.
timeout 10 sh -c 'echo | cat > /dev/null'

