# Files, directories, links, modes, times.
# Runs words as an ordinary user.
as_nobody() { su nobody -s /bin/sh -c "$*"; }

#@ ls
mkdir d; touch -d @1000000000 d/b d/a; chmod 640 d/a; ln -s a d/l; mkdir d/sub; touch d/.h
ls d; ls -a d; ls -A d; ls -1F d; ls -p d; ls -ld d/a | cut -c 1-10; ls -l d/l | sed 's/.* d\/l ->/l ->/'; ls -R d; ls nonexistent; echo $?
TZ=UTC ls -l --full-time d/a | awk '{ print $1, $2, $3, $4, $5, $6, $7 }'

#@ ls order
for n in 3 1 2; do touch -d @$((1000 + n)) f$n; done; head -c 10 /dev/zero > f2; head -c 20 /dev/zero > f1
ls -r; ls -S; touch -d @5000 f3; ls -t; ls -tr; touch f10; ls -v; ls -i f1 | awk '{ print ($1 > 0) }'

#@ cp
echo data > a; cp a b; cat b; cp a nonexistent/b; echo $?; mkdir d; cp a b d; ls d; cp -r d e; ls e; chmod 600 a; cp -p a c; stat -c %a c
ln -s a s; cp s copy; cp -P s link; [ -L link ] && [ ! -L copy ] && echo kept; cp -r d/. f 2> /dev/null; mkdir f; cp -r d/. f; ls f; cp a a; echo $?

#@ cp archive
mkdir -p s/x/y; echo 1 > s/x/f; ln s/x/f s/hard; ln -s x/f s/soft; chmod 751 s/x; chmod 4755 s/x/f; touch -d @123456789 s/x/f s/x; mkfifo s/p
cp -a s t; (cd s; find . | sort | xargs stat -c '%n %A %h %s %Y' | grep -v ' \./\?y\|^\. ') > 1; (cd t; find . | sort | xargs stat -c '%n %A %h %s %Y' | grep -v ' \./\?y\|^\. ') > 2
cut -d ' ' -f 1,2,4 1 > 3; cut -d ' ' -f 1,2,4 2 | cmp - 3 && echo equal; readlink t/soft; stat -c '%A %Y' t/x/f t/x; stat -c %F t/p

#@ mv
echo a > a; mv a b; cat b; ls a; mkdir d; mv b d; ls d; echo x > x; echo y > y; mv x y; cat y; mv -n y d/b; cat d/b; mkdir e; mv d e; ls e; mv nonexistent z; echo $?; mkdir f; touch f/g; mkdir h h/f; touch h/f/i; mv f h; echo $?; mv h h/f; echo $?

#@ mv over file systems
mkdir -p /root/m; echo across > f; mkdir d; echo in > d/g; ln -s f l; mv f l d /root/m; ls /root/m; cat /root/m/f /root/m/d/g; readlink /root/m/l; ls; rm -r /root/m

#@ rm
touch a b; rm a; ls; rm a; echo $?; rm -f a; echo $?; mkdir -p d/e/f; touch d/e/g; rm d; echo $?; rm -r d; ls; rmdir nonexistent; echo $?; mkdir e; touch e/f; rmdir e; echo $?; mkdir -p x/y/z; rmdir -p x/y/z; ls
yes n | rm -i b; ls

#@ ln
echo 1 > a; ln a b; stat -c %h a; echo 2 >> b; cat a; rm a; cat b; ln -s b c; cat c; readlink c; ln -s nonexistent dangling; cat dangling; echo $?; ln b c; echo $?; ln -sf x c; readlink c; readlink -f /bin/../bin/sh; ln -s loop1 loop2; ln -s loop2 loop1; cat loop1; echo $?; mkdir d; ln d e; echo $?; ln -s ../b d/rel; cat d/rel

#@ mkdir and mknod
mkdir a; mkdir a; echo $?; mkdir -p a/b/c; mkdir x/y; echo $?; mkdir -m 700 m; stat -c %a m; mkdir -m 1777 s; stat -c %A s; mkfifo p; stat -c %F p; mknod n c 1 3; echo x > n; stat -c '%F %t %T' n; mknod z c 1 5; head -c 3 z | od -An -tx1; mkfifo p; echo $?

#@ chmod
touch f; for m in 644 u+x go-r a=rw o= u=rwx,g=rx +t u+s g+s 7777 0; do chmod $m f; stat -c '%a %A' f; done; chmod 999 f; echo $?; chmod 644 nonexistent; echo $?; mkdir -p d/e; touch d/e/f; chmod -R 700 d; stat -c %a d d/e d/e/f; chmod -R u+X,go-rwx d; ln -s f l; chmod 600 l; stat -c %a f

#@ chown and permission
touch f; chown 1:2 f; stat -c '%u %g' f; chown nobody f; stat -c '%U %u' f; chgrp tty f; stat -c '%G %g' f; ln -s f l; chown -h 5:6 l; stat -c '%u %g' l f; mkdir -p d/e; chown -R 7:7 d; stat -c '%u' d d/e; chmod 4755 f; chown 0:0 f; stat -c %a f

#@ access of other users
echo secret > s; chmod 600 s; echo open > o; chmod 644 o; mkdir p; chmod 700 p; touch p/f; mkdir t; chmod 1777 t; touch t/root; chmod 755 . ..; chmod 777 .
as_nobody cat s; echo $?; as_nobody cat o; as_nobody ls p; echo $?; as_nobody 'echo x > o'; echo $?; as_nobody rm -f t/root; echo $?; as_nobody 'id -u; touch mine; chown root mine'; echo $?; as_nobody chmod 777 s; echo $?; stat -c '%U %a' mine; as_nobody kill -0 1; echo $?

#@ touch and stat
touch f; stat -c '%s %F %h' f; touch -d @1700000000 f; stat -c '%X %Y' f; TZ=UTC touch -t 200102030405.06 f; TZ=UTC stat -c %y f; touch -r f g; stat -c %Y g; touch -c none; ls none; touch -a -d @5 f; stat -c '%X %Y' f; touch nonexistent/f; echo $?; stat nonexistent; echo $?; stat -c '%n %F' / /dev/null /etc/passwd /bin/sh; stat -L -c %F /bin/sh; stat -f -c '%T %l' / > /dev/null; echo $?

#@ find by name and type
mkdir -p d/e/f; touch d/a.c d/e/b.c d/e/f/c.h; ln -s a.c d/l
find d | sort; find d -name '*.c' | sort; find d -type d | sort; find d -type l; find d -maxdepth 1 | sort; find d -mindepth 2 -type f | sort; find d -name e -prune -o -type f -print; find d -path '*/f/*'; find nonexistent; echo $?; find d -iname '*.C' | wc -l; find d ! -name '*.c' -type f; find d \( -name '*.h' -o -name l \) | sort; find d -depth | tail -n 1

#@ find by attributes
touch -d @1 old; touch new; head -c 5000 /dev/zero > big; touch empty; chmod 4711 big; touch -d @1000 ref
find . -mtime +1 | sort; find . -newer old -type f | sort; find . -size +4k; find . -size -1 -name e\*; find . -perm 4711; find . -perm -4000; find . -perm /111 -type f; find . -empty -type f | sort | head -n 1; find . -user root | wc -l; find . -links 1 -type f | wc -l; find . -mmin -60 -name new; find . -inum $(stat -c %i big)

#@ find actions
mkdir d; for i in 1 2 3; do echo $i > d/$i; done
find d -type f -exec cat {} \; | sort; find d -type f -exec echo {} + | wc -w; find d -name 2 -exec rm {} +; ls d; find d -type f -print0 | xargs -0 cat | sort; find d -type f -exec test -s {} \; -print | sort; find d -name 1 -exec mv {} d/one \; ; ls d; find d -type f -quit | wc -l

#@ du and df
mkdir d; head -c 100000 /dev/zero > d/f; head -c 5000 /dev/urandom > d/g; sync; mkdir /root/du; cp -r d /root/du; du -s /root/du/d; du -k /root/du/d/f; du -a /root/du | wc -l; du -h /root/du/d/f | cut -f 1; dd if=/dev/zero of=/root/du/hole bs=1k seek=1000 count=0 2> /dev/null; du -k /root/du/hole | cut -f 1; stat -c %s /root/du/hole; rm -r /root/du; df / | tail -n 1 | awk '{ print $NF, ($2 > 50000), ($3 + $4 <= $2) }'; df -i / > /dev/null; echo $?; df -h /tmp | tail -n 1 | awk '{ print $NF }'

#@ dd
seq 1 1000 > f; dd if=f of=g bs=100 count=3 2> /dev/null; wc -c < g; dd if=f bs=1 skip=10 count=5 2> /dev/null | od -c; dd if=/dev/zero of=h bs=1k count=4 2>&1 | grep records; printf XX | dd of=h bs=1 seek=100 conv=notrunc 2> /dev/null; wc -c < h; od -A d -c h | sed -n 2,4p; dd if=f of=i bs=64k conv=sync 2> /dev/null; wc -c < i; echo abc | dd conv=ucase 2> /dev/null; echo test | dd of=j conv=fsync 2> /dev/null; cat j; seq 1 50000 | dd bs=1000 iflag=fullblock count=10 2> /dev/null | wc -c; dd if=nonexistent 2> /dev/null; echo $?

#@ cmp and truncate
seq 1 100 > a; cp a b; cmp a b; echo $?; printf X | dd of=b bs=1 seek=50 conv=notrunc 2> /dev/null; cmp a b; echo $?; cmp -l a b; cmp -s a b; echo $?; head -c 10 a > c; cmp a c; truncate -s 5 c; wc -c < c; truncate -s 100 c; wc -c < c; tail -c 3 c | od -An -tx1; truncate -s 5G huge; stat -c '%s %b' huge; tail -c 1 huge | od -An -tx1

#@ files on disk
mkdir /root/t; cd /root/t; for i in $(seq 1 300); do echo $i > file-$i; done; ls | wc -l; rm file-1*; ls | wc -l; for i in $(seq 1 50); do mkdir dir-$i; done; ls -d dir-* | wc -l; rmdir dir-*; cat file-* | sort -n | md5sum; seq 1 200000 > big; md5sum big; sed -i 5d big; wc -l big; cp big big2; cmp big big2 && echo same; mv big2 big; ls | wc -l; long=$(printf 'n%.0s' $(seq 1 255)); touch $long; ls | grep -c nnnn; touch ${long}n; echo $?; cd /; rm -r /root/t

#@ open files that are removed
echo content > f; exec 3< f; rm f; ls; cat <&3; exec 3<&-; exec 4> g; rm g; echo lost >&4; echo $?; mkdir d; cd d; rmdir ../d; ls; echo $?; touch x; echo $?; cd ..; exec 5<> h; echo rw >&5; cat h

#@ mktemp and realpath
f=$(mktemp); [ -f "$f" ] && stat -c '%a %s' $f; rm $f; d=$(mktemp -d); stat -c '%a %F' $d; rmdir $d; mktemp -u x.XXXXXX | wc -c; mktemp ./abc.XXXX | wc -c; mkdir -p r/s; ln -s r/s q; realpath q | sed 's/.*cases//'; realpath nonexistent/x; echo $?; dirname /a/b/c; basename /a/b.txt .txt; dirname x

#@ which
which sh; which nosuch; echo $?; [ -e /bin/busybox ] && echo there

#@ paths
touch f; cat f/x; echo $?; cat ./././f; echo $?; ls -d /../..; cat //etc//hostname; mkdir -p a/b; cd a/b; ls -d ../../f; touch "$(printf 'new\nline')" 'sp ace' '*' '-dash'; ls -1 -q | wc -l; rm ./-dash '*'; ls -1b 2> /dev/null | wc -l; rm -- "$(printf 'new\nline')"; ls; cd /; cat tmp/../etc/hostname; ln -s / root/r; ls -d root/r/tmp; rm root/r

#@ devices
echo x > /dev/null; cat /dev/null | wc -c; head -c 4 /dev/zero | od -An -tx1; echo x > /dev/full; echo $?; head -c 16 /dev/urandom | wc -c; [ "$(head -c 8 /dev/urandom | od -An -tx8)" != "$(head -c 8 /dev/urandom | od -An -tx8)" ] && echo differ; stat -c '%F %t:%T' /dev/null /dev/zero /dev/full /dev/tty /dev/random; echo hi > /dev/stdout; echo err > /dev/stderr; echo in | cat /dev/stdin; ls /dev/fd/ | wc -l | awk '{ print ($1 >= 3) }'

#@ attributes of mounts
mkdir m; mount -t tmpfs none m; echo in > m/f; cat m/f; stat -c %F m; grep -c "$(pwd)/m tmpfs" /proc/mounts; umount m; ls m; umount m; echo $?; mount -t nosuch none m 2> /dev/null; echo $?; mount -t tmpfs -o size=1m none m; head -c 2000000 /dev/zero > m/big; echo $?; wc -c < m/big | awk '{ print ($1 <= 1048576) }'; umount m

#@ read only
mkdir m; mount -t tmpfs none m; touch m/f; mount -o remount,ro m; touch m/g; echo $?; echo x > m/f; echo $?; rm m/f; echo $?; mkdir m/d; echo $?; cat m/f; umount m

#@ archive of modes
touch a; chmod 000 a; cat a; echo $?; as_nobody cat a; echo $?; chmod 644 a; mkdir d; touch d/f; chmod 111 d; as_nobody ls d; echo $?; as_nobody cat d/f; echo $?; chmod 444 d; as_nobody cat d/f; echo $?
