# The shell itself: expansion, control flow, redirection, functions, traps.

#@ variables and defaults
a=1
echo "$a ${b:-default} ${c:=set} $c ${a:+alt} ${b:+alt}."
(: ${nothing:?is missing}) 2>&1
echo $?
unset a; echo "[${a-unset}]"

#@ string operations
f=/usr/lib/libfoo.so.1.2
echo "${f##*/} ${f%/*} ${f%%.*} ${f#*/usr} ${#f}"
s=banana
echo "${s/an/AN} ${s//an/AN} ${s:2} ${s:1:3}"

#@ arithmetic
echo $((1 + 2 * 3)) $(((1 + 2) * 3)) $((7 / 2)) $((-7 % 3)) $((1 << 20)) $((0xff & 0x0f)) $((5 > 3 ? 10 : 20))
i=5; echo $((i++)) $((++i)) $((i -= 3)); echo $((2 ** 10))
echo $((1 / 0)) 2>&1

#@ quoting
echo 'single $HOME' "double $((1 + 1))" un\ quoted "a\"b" 'it'\''s'
set -- "a b" c; echo $# "$1"; for w in "$@"; do echo "<$w>"; done; for w in $*; do echo "($w)"; done

#@ globbing
touch a.txt b.txt c.dat .hidden; mkdir sub; touch sub/d.txt
echo *.txt; echo *; echo .h*; echo [ab].txt; echo ?.dat; echo sub/*; echo *.none; echo */
set -f; echo *.txt

#@ command substitution
echo "today: $(echo a; echo b)" `echo back``echo tick`
x=$(printf 'trailing\n\n\n'); echo "[$x]"
echo $(echo $(echo nested $(echo deep)))

#@ here documents
name=world
cat <<END
hello $name $((2 + 2)) $(echo sub)
END
cat <<'END'
hello $name
END
cat <<-END
	tabs are gone
	END
cat <<A; cat <<B
one
A
two
B

#@ if and test
if [ -d / ] && [ ! -e /nonexistent ]; then echo yes; elif true; then echo no; else echo never; fi
[ 3 -lt 10 ] && echo less; [ abc = abc ] && echo same; [ -z "" ] && echo empty; [ "a" != "b" -a 1 -eq 1 ] && echo both
[[ abc == a* ]] && echo match; test -f /etc/passwd && echo file; [ -x /bin/sh ] && echo exec; [ -L /bin/sh ] && echo link
touch -d @1000 old; touch -d @2000 new; [ new -nt old ] && echo newer

#@ loops
for i in 1 2 3 4 5; do [ $i = 2 ] && continue; [ $i = 4 ] && break; echo $i; done
i=0; while [ $i -lt 3 ]; do i=$((i + 1)); echo w$i; done
until [ $i -eq 0 ]; do i=$((i - 1)); done; echo $i
for i in a b; do for j in 1 2; do echo $i$j; [ $i$j = a2 ] && break 2; done; done
printf '1 2\n3 4\n' | while read a b; do echo "$b $a"; done

#@ case
for w in apple 42 -x "" other.c; do
  case $w in
    [0-9]*) echo number;;
    -*) echo option;;
    "") echo empty;;
    a*|b*) echo word;;
    *.[ch]) echo source;;
    *) echo unknown;;
  esac
done

#@ functions
f() { local x=inner; echo "$1 $# $x"; return 3; }
x=outer; f a b; echo $? $x
fact() { [ $1 -le 1 ] && echo 1 || echo $(($1 * $(fact $(($1 - 1))))); }
fact 10
g() { echo "$@"; }; g "a b" c

#@ redirection
echo out > f; echo more >> f; cat < f
ls /nonexistent 2> err; wc -l < err
{ echo a; echo b >&2; } > both 2>&1; cat both
exec 3> three; echo to3 >&3; exec 3>&-; cat three
echo x > f; exec 4< f; read line <&4; echo "read $line"; exec 4<&-
(echo never > /) 2>&1; echo $?
cat < /nonexistent 2>&1; echo $?
set -C; echo y > f; echo $?; cat f

#@ pipes and statuses
echo abc | tr a-c A-C | rev
false | true; echo $?
true | false; echo $?
set -o pipefail; false | true; echo $?
! true; echo $?
(exit 42); echo $?
seq 1 100000 | head -n 1
yes | head -n 3

#@ subshells and background
x=1; (x=2; echo in $x); echo out $x
{ x=3; }; echo $x
(sleep 0.1; echo late) & echo early; wait; echo done
sleep 0.1 & p=$!; wait $p; echo $?
(exit 5) & wait $!; echo $?
for i in 1 2 3; do (exit $i) & done; wait; echo all

#@ traps and signals
trap 'echo exiting' EXIT
trap 'echo got usr1' USR1
kill -USR1 $$
echo after
(trap 'echo term; exit 9' TERM; kill -TERM $(sh -c 'echo $PPID'); echo not reached)
echo $?
trap '' USR2; kill -USR2 $$; echo ignored
sh -c 'kill -KILL $$'; echo $?
sh -c 'kill -TERM $$'; echo $?

#@ set options
set -e
true || false
if false; then :; fi
echo still
(set -u; echo $undefined) 2>&1 || echo unbound
(set -x; echo traced) 2>&1
false
echo never

#@ positional parameters
set -- a b c d; echo $# $1 $4; shift 2; echo $# $1; set --; echo $#
while getopts ab:c o -a -b val -x 2>&1; do echo "$o ${OPTARG-none}"; done
echo $OPTIND

#@ read
printf 'one two three\nnext\n' > f
{ read a rest; read b; } < f; echo "$a|$rest|$b"
IFS=: read x y z < /etc/passwd; echo $x $y
printf 'no newline' | { read v; echo "$? $v"; }
printf 'a\\tb\n' | { read -r v; echo "$v"; }
echo input | { read -t 5 v; echo $v; }
IFS=,; set -- $(echo a,b,,c); echo $#

#@ printf and echo
printf '%d %5d|%-5s|%05.1f|%x|%o|%c|%%\n' 42 42 ab 3.14159 255 8 xyz
printf '%s\n' a b c
printf '%b' 'tab\there\n'
echo -n no newline; echo; echo -e 'a\tb\n\x41'
printf '%s %s\n' a b c

#@ eval and source
cmd='echo $((1 + 1))'; eval $cmd
echo 'v=sourced; echo "args $*"' > lib; . ./lib; echo $v
eval 'for i in 1 2; do echo $i; done'

#@ exec and PATH
echo '#!/bin/sh
echo "script $0 $#"' > s; chmod +x s; ./s a b; PATH=.:$PATH; s x
echo 'echo no shebang' > t; chmod +x t; ./t
echo '#!/nonexistent' > u; chmod +x u; ./u 2>&1 | sed 's/.*: //'
chmod -x s; ./s 2>&1 | sed 's/.*: //'; ./s 2> /dev/null; echo $?
/nonexistent 2> /dev/null; echo $?; nosuchcommand 2> /dev/null; echo $?
sh -c 'exec echo replaced; echo no'
printf '#!/bin/sed -f\ns/a/b/\n' > v; chmod +x v; echo banana | ./v

#@ aliases and types
alias ll='echo alias'
eval ll
type cd; type nosuch 2>&1 | sed 's/.*nosuch/nosuch/'; command -v ls; command -v cd

#@ umask and ulimit
umask; umask 077; touch f; mkdir d; stat -c '%a' f d; umask 022; umask
ulimit -n > /dev/null && echo has
(ulimit -n 10; ulimit -n)
(ulimit -c 0; ulimit -c)

#@ directories
mkdir -p a/b; cd a/b; pwd | sed 's/.*cases/cases/'; cd ..; basename $PWD; cd - > /dev/null; basename $PWD
cd /nonexistent 2> /dev/null; echo $?; cd /; pwd; cd; pwd
ln -s /usr/bin /tmp/l$$; cd /tmp/l$$; pwd -P; rm /tmp/l$$

#@ environment
A=1 sh -c 'echo $A'; echo "[$A]"; export B=2; sh -c 'echo $B'; env -i C=3 /bin/sh -c 'echo $C$B'
env | grep -c '^B='; env -u B sh -c 'echo "[$B]"'

#@ deep recursion and many processes
f() { [ $1 -gt 0 ] && f $(($1 - 1)) || echo bottom; }; f 200
i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i + 1)); done; echo $i
n=$(for i in $(seq 1 50); do echo $i & done | wc -l); echo $n

#@ long pipeline
echo 1 | cat | cat | cat | cat | cat | cat | cat | cat | cat | cat | cat | cat | cat | cat | sed 's/$/ end/'

#@ large variable
x=$(head -c 60000 /dev/zero | tr '\0' x); echo ${#x}; echo "$x" | wc -c
