# What is left: terminals, editors without a terminal, small tools.

#@ vi on a pipe
printf 'one\ntwo\nthree\n' > f; printf ':%%s/two/2/\n:wq\n' > keys; timeout 10 vi f < keys > /dev/null 2>&1; cat f; printf 'ddp:x\n' | timeout 10 vi f > /dev/null 2>&1; cat f

#@ less and more on a pipe
seq 1 5 | less; seq 1 5 | more; seq 1 3 > f; less f | cat; more f | cat

#@ stty without a terminal
stty < /dev/null; echo $?; tty -s; echo $?; test -t 0; echo $?; stty -a < /dev/null 2> /dev/null; echo $?

#@ cal and which
cal 2 2024; cal 1 1970 | head -n 1; yes abc | head -n 2; true; echo $?; false; echo $?; sync; echo $?

#@ getopt
getopt -o ab: -l long,val: -- -a -b x --long --val=3 rest; getopt -o a -- -z; echo $?

#@ clear and reset
clear | od -An -c | head -n 1; echo -e '\033[1mbold\033[0m' | od -An -c; ttysize 2> /dev/null < /dev/null; echo $?

#@ run-parts
mkdir p; printf '#!/bin/sh\necho one $1\n' > p/10-a; printf '#!/bin/sh\necho two\nexit 1\n' > p/20-b; chmod +x p/*; run-parts -a arg p; echo $?; run-parts --test p

#@ inotify and others
timeout 1 cat /proc/sys/kernel/osrelease | grep -c '^[0-9]'; ipcalc -n 192.168.1.77/24; ipcalc -b 10.1.2.3/8; cut -d ' ' -f 1 /proc/version

#@ hash and random
x=$RANDOM; [ $x -ge 0 ] && [ $x -le 32767 ] && echo in range; a=$(head -c 32 /dev/urandom | md5sum); b=$(head -c 32 /dev/urandom | md5sum); [ "$a" != "$b" ] && echo random; mcookie 2> /dev/null | wc -c

#@ crontab of loops
i=0; for f in /bin/*; do [ -x $f ] && i=$((i + 1)); done; [ $i -gt 100 ] && echo many; busybox --list | wc -l | awk '{ print ($1 > 200) }'; busybox nosuch; echo $?; busybox | head -n 1 | cut -c 1-7

#@ applets called by name
ln -s /bin/busybox myecho; ./myecho; echo $?; cp /bin/busybox cat; echo direct | ./cat; busybox echo via; sh -c 'busybox sh -c "echo nested \$0" name'

#@ script of a project
mkdir proj; cd proj; mkdir src; for i in 1 2 3; do printf 'int f%d(void) { return %d; }\n' $i $i > src/f$i.c; done
for f in src/*.c; do n=$(basename $f .c); sed "s/return/return 10 */" $f > $n.out; done; cat *.out; grep -l 'f2' *.out; tar cf - . | (mkdir ../copy; cd ../copy; tar xf -); diff -r . ../copy && echo copied; find . -name '*.out' | xargs rm; ls; awk -F'[ (]' '{ print $2 }' src/*.c | sort -r | tr '\n' ' '; echo; wc -c src/* | tail -n 1

#@ words
cat /etc/profile | tr -cs 'A-Za-z' '\n' | tr A-Z a-z | sort | uniq -c | sort -k1,1nr -k2 | head -n 3

#@ primes
awk 'BEGIN { for (i = 2; i < 200; i++) { p = 1; for (j = 2; j * j <= i; j++) if (i % j == 0) { p = 0; break } if (p) printf "%d ", i } print "" }'; i=2; while [ $i -lt 30 ]; do j=2; while [ $((j * j)) -le $i ] && [ $((i % j)) -ne 0 ]; do j=$((j + 1)); done; [ $((j * j)) -gt $i ] && printf '%d ' $i; i=$((i + 1)); done; echo

#@ network tools without a network
nc 2> /dev/null; echo $?; ping -c 1 2> /dev/null; echo $?; wget 2> /dev/null; echo $?
