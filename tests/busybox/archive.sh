# Archives and compression.
mkdir -p src/sub
seq 1 2000 > src/numbers
head -c 5000 /dev/zero > src/zeros
echo text > src/sub/text
ln -s sub/text src/link
chmod 750 src/sub
touch -d @1500000000 src/numbers

#@ tar
tar cf a.tar src; tar tf a.tar | sort; mkdir out; tar xf a.tar -C out; diff -r src out/src && echo same; readlink out/src/link; stat -c '%a' out/src/sub; stat -c %Y out/src/numbers

#@ tar of some
tar cf a.tar src/numbers src/sub; tar tvf a.tar | awk '{ print $1, $3, $NF }'; tar xOf a.tar src/sub/text; mkdir out; cd out; tar xf ../a.tar src/sub; find . | sort; tar cf - -C ../src . | tar tf - | sort; tar xf ../nonexistent.tar; echo $?

#@ tar with exclusion
tar cf a.tar --exclude '*.o' --exclude zeros src; tar tf a.tar | grep -c zeros; echo src/zeros > list; tar cf b.tar -T list; tar tf b.tar; tar cf c.tar -h src/link; tar tvf c.tar | cut -c 1

#@ tar with hard links and fifos
ln src/numbers src/hard; mkfifo src/fifo; chmod 4755 src/sub/text; tar cf a.tar src; mkdir o; tar xf a.tar -C o; stat -c '%h %F' o/src/numbers o/src/fifo; stat -c %a o/src/sub/text; [ o/src/numbers -ef o/src/hard ] && echo linked

#@ gzip
cp src/numbers f; gzip f; ls f*; gzip -t f.gz; echo $?; zcat f.gz | cmp - src/numbers && echo same; gunzip f.gz; cmp f src/numbers && echo again; gzip -c f | gunzip -c | md5sum; gzip -9 < src/zeros | wc -c | awk '{ print ($1 < 100) }'; echo garbage | gunzip; echo $?; zcat nonexistent; echo $?

#@ tar and gzip
tar czf a.tgz src; tar tzf a.tgz | wc -l; mkdir o; tar xzf a.tgz -C o; diff -r src o/src && echo same; gunzip -c a.tgz | tar tf - | wc -l

#@ bzip2
bzip2 -c src/numbers > f.bz2; bzip2 -dc f.bz2 | cmp - src/numbers && echo same; bzcat f.bz2 | wc -l; cp src/zeros z; bzip2 z; ls z*; bunzip2 z.bz2; cmp z src/zeros && echo again; tar cjf a.tbz src; tar tjf a.tbz | wc -l

#@ xz and lzma
printf '\3757zXZ\0\0\4\346\326\264F\2\0!\1\26\0\0\0t/\345\243\1\0\5hello\n\0\0\341C\312s,\223#\212\0\1\36\6\301/\4\243\37\266\363}\1\0\0\0\0\4YZ' > f.xz; xzcat f.xz 2> /dev/null; xz -h > /dev/null 2>&1; echo garbage | unxz; echo $?; echo garbage | unlzma; echo $?

#@ cpio
(cd src; find . | sort | cpio -o -H newc 2> /dev/null) > a.cpio; cpio -t < a.cpio 2> /dev/null | wc -l; mkdir o; (cd o; cpio -idm < ../a.cpio 2> /dev/null); cmp o/numbers src/numbers && echo same; readlink o/link; head -c 6 a.cpio; echo

#@ unzip
printf 'PK\003\004\n\000\000\000\000\000\000\000!\000\055;\010\257\014\000\000\000\014\000\000\000\005\000\034\000hello' > a.zip; unzip -l a.zip > /dev/null 2>&1; [ $? -ne 0 ] && echo refused

#@ ar
echo one > 1; echo two > 2; ar -rc a.ar 1 2 2> /dev/null; ar -t a.ar; ar -p a.ar 2; echo $?

#@ dpkg-deb and rpm refuse
echo x > x.deb; dpkg-deb -c x.deb > /dev/null 2>&1; [ $? -ne 0 ] && echo refused; echo x > x.rpm; rpm2cpio x.rpm > /dev/null 2>&1; [ $? -ne 0 ] && echo refused

#@ large pipe
head -c 3000000 /dev/zero | gzip | gunzip | wc -c; seq 1 200000 | gzip -1 | zcat | md5sum
