# mixed.sh SECONDS WORKERS: fork, exec, pipes, signals and files, all at once.
# Prints free memory in KiB before and after, and how many rounds were made.
seconds=$1
workers=$2
rounds=/tmp/rounds
mkdir -p $rounds

round() { # WORKER
    dir=/tmp/stress-$1
    disk=/root/stress-$1
    mkdir -p $dir $disk
    test "$(seq 1 500 | sed 's/$/ x/' | awk '{ n += $1 } END { print n }')" = 125250 || echo "bad sum"
    (exit 7)
    test $? = 7 || echo "bad status"
    for i in 1 2 3 4 5; do /bin/true || echo "bad exec"; done
    cp /bin/busybox $dir/copy
    cp $dir/copy $disk/copy
    cmp /bin/busybox $disk/copy || echo "bad copy"
    tar cf - -C /etc . | gzip | gunzip | tar tf - > /dev/null || echo "bad pipeline"
    sleep 100 &
    kill $!
    wait $! 2> /dev/null
    test $? = 143 || echo "bad signal"
    mkfifo $dir/fifo 2> /dev/null
    (echo through > $dir/fifo) &
    read -r line < $dir/fifo
    test "$line" = through || echo "bad fifo"
    wait
    echo "$line" | sort | uniq | wc -l > $disk/count
    mv $disk/count $disk/moved
    dd if=/dev/zero of=$disk/zeros bs=4k count=64 2> /dev/null
    : > $disk/zeros
    rm -r $dir $disk
}

worker() { # WORKER END
    n=0
    while [ "$(date +%s)" -lt "$2" ]; do
        round "$1"
        n=$((n + 1))
    done
    echo $n > $rounds/$1
}

free_memory() {
    sync
    { echo 3 > /proc/sys/vm/drop_caches; } 2> /dev/null
    sleep 1
    # What can be dropped at any time counts as free.
    awk '/^(MemFree|Buffers|Cached|SReclaimable):/ { n += $2 } /^Shmem:/ { n -= $2 } END { print n }' /proc/meminfo
}

run() { # SECONDS
    end=$(($(date +%s) + $1))
    for w in $(seq 1 "$workers"); do worker "$w" "$end" & done
    wait
}

# What the kernel keeps for good after its first work is not lost.
run 3
echo "before $(free_memory)"
run "$seconds"
echo "after $(free_memory)"
echo "rounds $(cat $rounds/* | awk '{ n += $1 } END { print n }')"
