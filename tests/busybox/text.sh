# Text tools.
seq 1 20 > numbers
printf 'banana 3 yellow\napple 10 red\ncherry 2 red\nfig 7 green\napple 1 green\n' > fruit

#@ awk fields and sums
awk '{ s += $2 } END { print s, NR }' fruit
awk '$3 == "red" { print $1 }' fruit
awk -F: '$3 == 0 { print $1, NF }' /etc/passwd
awk 'BEGIN { for (i = 0; i < 3; i++) printf "%d-%s;", i, "x"; print "" }'

#@ awk arrays and functions
awk '{ c[$3] += $2 } END { for (k in c) print k, c[k] }' fruit | sort
awk 'function f(n) { return n < 2 ? n : f(n-1) + f(n-2) } BEGIN { print f(15) }'
awk '{ print length($1), toupper(substr($1, 1, 1)) substr($1, 2), index($1, "an") }' fruit
awk 'BEGIN { s = "a:b:c"; n = split(s, p, ":"); print n, p[1], p[3]; gsub(/:/, "-", s); print s; print match("foobar", /o+/), RSTART, RLENGTH }'
awk 'BEGIN { printf "%.3f %e %g\n", 3.14159, 12345.678, 0.0001; print int(7.9), sqrt(2), 2^10 }'

#@ awk input and output
awk 'NR == 2, NR == 4' numbers
awk '{ print > ("out" NR % 2) }' numbers; wc -l out0 out1
awk 'BEGIN { while (("echo a; echo b" | getline line) > 0) print "got", line }'
awk 'BEGIN { print "to sort" | "sort"; print "and more" | "sort" }'
echo 'a b c' | awk '{ $2 = "X"; print; print NF; NF = 2; print }'
awk -v x=5 'BEGIN { print x * 2; print ENVIRON["HOME"] }'
printf 'a\n\nb\nc\n\n\nd\n' | awk 'BEGIN { RS = "" } { print NR ": " $0 }'

#@ sed substitution
sed 's/a/A/; s/n/N/g' fruit
sed -n 's/\([a-z]*\) \([0-9]*\).*/\2 \1/p' fruit
sed -E 's/(.)(.)/\2\1/' fruit
sed 's|yellow|&&|; s/apple/<&>/2' fruit
echo 'path/to' | sed 's,/,\n,'

#@ sed addresses
sed -n '2p;4,5p' numbers; sed '3,$d' numbers; sed -n '/5/,/7/p' numbers; sed -n '$=' numbers
sed '1~5!d' numbers; sed -n '0~7p' numbers; sed '/1/!d' numbers | wc -l; sed 5q numbers | tail -n 1

#@ sed programs
sed -n '1!G;h;$p' numbers | head -n 3
sed '/apple/a after' fruit; sed '2i before' fruit; sed '1c changed' fruit
sed ':a;N;$!ba;s/\n/,/g' numbers
sed 'y/abc/xyz/' fruit; sed -e '1d' -e 's/red/RED/' fruit; sed '/fig/{s/g/G/g;p}' fruit
printf 's/a/b/\n2d\n' > script; sed -f script fruit

#@ sed in place
cp fruit f; sed -i 's/apple/pear/' f; cat f; sed -i.bak 1d f; wc -l f f.bak

#@ grep
grep apple fruit; grep -c e fruit; grep -v e fruit; grep -n red fruit; grep -i APPLE fruit; grep -o 'an' fruit
grep -E '^(fig|cherry)' fruit; grep -w 1 fruit; grep -x '5' numbers; grep -F '.' fruit; echo $?
grep -l red fruit numbers; grep -L red fruit numbers; grep -q fig fruit && echo quiet; grep -m 2 1 numbers
grep -A 1 banana fruit; grep -B 1 fig fruit; grep -e fig -e banana fruit; echo red > pat; grep -f pat fruit

#@ grep recursive
mkdir -p d/e; echo needle > d/a; echo hay > d/b; echo needle > d/e/c; grep -r needle d | sort; grep -rl hay d; grep nothing /nonexistent; echo $?
grep -s nothing /nonexistent; echo $?

#@ sort
sort fruit; sort -k 2 -n fruit; sort -r fruit | head -n 1; sort -u -k 1,1 fruit; sort -t ' ' -k 3,3 -k 2,2n fruit
printf '10\n9\n1e1\n-3\n' | sort -n; printf 'b\nA\na\nB\n' | sort -f; sort -c numbers; echo $?; sort -n -c numbers; echo $?
printf '3K\n2M\n1G\n' | sort -h; printf 'c\na\nb\n' > x; sort -o x x; cat x; seq 1 5000 | sort -R | sort -n | md5sum

#@ uniq
printf 'a\na\nb\na\nc\nc\n' | uniq; printf 'a\na\nb\n' | uniq -c; printf 'a\na\nb\n' | uniq -d; printf 'a\na\nb\n' | uniq -u
cut -d ' ' -f 3 fruit | sort | uniq -c | sort -rn

#@ cut
cut -d ' ' -f 1,3 fruit; cut -c 1-3 fruit; cut -d: -f 1 /etc/passwd | head -n 1; cut -f 2- -d ' ' fruit; printf 'a\tb\tc\n' | cut -f 2; echo abcdef | cut -b 2,4-

#@ tr
echo hello | tr a-z A-Z; echo 'a  b   c' | tr -s ' '; echo hello | tr -d l; echo abc123 | tr -cd 0-9; echo; echo hello | tr '[:lower:]' '[:upper:]'; printf 'a\nb\n' | tr '\n' ' '; echo

#@ head and tail
head -n 3 numbers; tail -n 3 numbers; head -c 5 numbers; tail -c 6 numbers; tail -n +18 numbers; head -n -17 numbers; head -n 1 fruit numbers

#@ tail follow
(for i in 1 2 3; do sleep 0.2; echo line$i >> log; done) &
touch log; timeout 3 tail -f log; echo $?

#@ wc
wc fruit numbers; wc -l < fruit; wc -c fruit; wc -w fruit; printf 'no newline' | wc -l; wc -L fruit

#@ paste and join
seq 1 3 > a; seq 4 6 > b; paste a b 2> /dev/null || paste -d , a b; paste -s -d + a
printf '1 a\n2 b\n3 c\n' > l; printf '1 x\n3 z\n' > r; join l r 2> /dev/null; echo $?

#@ diff
seq 1 5 > a; seq 3 7 > b; diff a b; echo $?; diff a a; echo $?; diff -u a b | tail -n +3; diff -q a b
mkdir x y; echo 1 > x/f; echo 2 > y/f; touch x/only; diff -r x y | grep -v '^---\|^+++'

#@ patch
seq 1 10 > a; sed 's/5/five/;8d' a > b; diff -u a b > p; patch a < p; cmp a b && echo patched; patch -R a < p; cat a | wc -l

#@ fold and expand
echo 'the quick brown fox jumps' | fold -w 10; echo 'the quick brown fox jumps' | fold -s -w 10; printf 'a\tb\n' | expand | cat -A; printf '        x\n' | unexpand | cat -A

#@ nl and cat
nl fruit; cat -n numbers | tail -n 1; printf 'a\tb\001\n' | cat -vt; cat fruit - < numbers | wc -l; tac numbers | head -n 2; rev fruit | head -n 1

#@ tee and xargs
echo shared | tee a b; cat a b; echo more | tee -a a > /dev/null; wc -l a
seq 1 10 | xargs echo; seq 1 10 | xargs -n 3 echo; printf 'a b\0c\0' | xargs -0 -n 1 echo; echo x y | xargs -I{} echo '<{}>'; seq 1 3 | xargs -t echo 2>&1; false | xargs echo none; echo a | xargs -r false; echo $?

#@ od and hexdump
printf 'ABC\n\0\377' > bin; od -c bin; od -A x -t x1 bin; hexdump -C bin; xxd bin; xxd -p bin; xxd -p bin | xxd -r -p | cmp - bin && echo same; strings -n 3 bin

#@ seq and expr
seq 3; seq 2 2 8; seq 5 -2 1; seq -w 8 11; seq -s , 1 5; expr 3 + 4 \* 2; expr length hello; expr substr hello 2 3; expr hello : 'h\(.*\)'; expr 5 \> 3; expr 1 = 2; echo $?

#@ bc and dc
echo '2 ^ 64; 10 / 3; scale=5; 10 / 3; sqrt(2)' | bc; echo '2 3 + p 4 * p' | dc; factor 360 97 2>&1

#@ base64 and checksums
echo hello | base64; echo aGVsbG8K | base64 -d; head -c 100 /dev/zero | base64 | head -n 1; echo hello | md5sum; echo hello | sha1sum; echo hello | sha256sum; echo hello | sha512sum; echo hello | crc32 2> /dev/null || true
echo hello > f; md5sum f > sums; md5sum -c sums; echo x > f; md5sum -c sums 2>&1; uuencode -m f f | uudecode -o g; cat g

#@ tsort and shuf
printf 'a b\nb c\na c\n' | tsort 2> /dev/null; seq 1 100 | shuf | sort -n | md5sum; shuf -i 1-10 | wc -l; shuf -n 2 numbers | wc -l

#@ dos2unix
printf 'a\r\nb\r\n' | dos2unix | od -c; printf 'a\n' | unix2dos | od -c;

#@ ed
printf '2d\n1s/banana/kiwi/\n$a\nlast line\n.\nw\nq\n' | ed fruit; cat fruit
