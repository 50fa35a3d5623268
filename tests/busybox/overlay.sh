# The whole system below an overlay, with changes in memory.
mkdir -p o; mount -t tmpfs none o; mkdir o/u o/w o/m
mount -t overlay overlay -o lowerdir=/,upperdir=o/u,workdir=o/w o/m
end() { umount o/m; umount o; }

#@ the root is untouched
chroot o/m sh -c 'echo changed > /etc/passwd; rm -r /etc/group /usr/bin; mkdir /usr/bin; echo new > /usr/bin/new; ls /usr/bin; while read -r line; do echo $line; done < /etc/passwd'; grep -c root /etc/passwd; [ -e /etc/group ] && [ -d /usr/bin ] && [ ! -e /usr/bin/new ] && echo untouched; stat -c '%F %t %T' o/u/etc/group; ls o/u/etc o/u/usr; end

#@ copying and packing
mkdir o/m/src o/m/out; cp -a o/m/etc o/m/src; diff -r o/m/etc o/m/src/etc && echo same; tar cf o/m/a.tar -C o/m src; tar xf o/m/a.tar -C o/m/out; diff -r o/m/src o/m/out/src && echo again; cp -a o/m/out/src/etc/passwd o/m/etc/passwd; cmp /etc/passwd o/m/etc/passwd && echo equal; rm -r o/m/src o/m/out o/m/a.tar; ls o/u; end

#@ moving directories
mv o/m/etc o/m/conf; ls -d o/m/etc o/m/conf; diff -r o/m/conf /etc && echo whole; stat -c %F o/u/etc; mkdir o/m/etc; ls -a o/m/etc; mv o/m/conf/passwd o/m/etc; ls o/m/etc; rmdir o/m/conf; rm -r o/m/conf; ls o/u; end

#@ find and du
find o/m/etc -type f | sed s,o/m,, | sort > seen; find /etc -type f | sort | cmp - seen && echo all; touch o/m/etc/a o/m/etc/b; rm o/m/etc/passwd; ls o/m/etc | grep -c '^[ab]$'; find o/m/etc -name passwd | wc -l; sed -i s/root/toor/ o/m/etc/group; head -n 1 o/m/etc/group; df -T o/m | awk 'NR > 1 { print $1, $2, $NF }' | sed 's, .*/o/m, o/m,'; end

#@ two on one another
mkdir o/u2 o/w2 o/m2; echo one > o/m/one; rm o/m/etc/passwd; mount -t overlay second -o lowerdir=o/m,upperdir=o/u2,workdir=o/w2 o/m2; cat o/m2/one; [ -e o/m2/etc/passwd ] || echo hidden; echo two > o/m2/one; rm o/m2/etc/group; cat o/m/one; ls o/u2 o/u2/etc; [ -e o/m/etc/group ] && echo there; umount o/m2; end
