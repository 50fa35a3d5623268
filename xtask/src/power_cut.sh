# What a machine does whose plug will be pulled. First it looks whether all is there that was reported written: GONE is the
# commit that was reported last (or nothing), and the lines of FILES are `HASH  NAME` of files that were synced. Then it
# works, and reports what it has synced.

seed=$1 gone=$2 files=$3 from=repository
base=/var/tmp/power-cut
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@x GIT_COMMITTER_NAME=c GIT_COMMITTER_EMAIL=c@x HOME=/none
export GIT_AUTHOR_DATE="1700000000 +0000" GIT_COMMITTER_DATE="1700000000 +0000" GIT_CONFIG_NOSYSTEM=1
# Settings in no file, which a cut could damage.
export GIT_CONFIG_COUNT=4 GIT_CONFIG_KEY_0=init.defaultBranch GIT_CONFIG_VALUE_0=main GIT_CONFIG_KEY_1=gc.auto GIT_CONFIG_VALUE_1=0 \
    GIT_CONFIG_KEY_2=core.fsync GIT_CONFIG_VALUE_2=all GIT_CONFIG_KEY_3=advice.detachedHead GIT_CONFIG_VALUE_3=false

fail() {
    echo "@@ lost $*"
    exit 1
}

# Whether a repository has all of the commit; what it lacks is in `err`.
whole() { # REPOSITORY
    # git syncs no HEAD, and what names came after the last sync does not matter.
    test -d "$1/.git" && rm -rf "$1/.git/refs/heads" "$1/.git/packed-refs" && mkdir "$1/.git/refs/heads"
    echo "ref: refs/heads/main" > "$1/.git/HEAD"
    git -C "$1" cat-file -e "$gone^{commit}" 2> err || return
    git -C "$1" rev-list --objects "$gone" 2> err > objects || return
    cut -d ' ' -f 1 objects | git -C "$1" cat-file --batch 2> err > content || return
    ! grep -a ' missing$' content > err || return
    test "$(git -C "$1" archive "$gone" | sha256sum)" = "$4  -" || echo "its tree has changed" > err
    test ! -s err
}

mkdir -p $base/files || fail "no folder can be made"
cd $base || fail "no folder"
if test -n "$gone"; then
    # A plug that was pulled while the one became the other.
    if whole repository "" "" "$4"; then from=repository
    elif mv err first && whole next "" "" "$4"; then from=next
    else fail "the commit $gone: $(cat first); $(cat err)"
    fi
fi
if test -n "$files"; then
    printf '%s\n' "$files" | (cd files && sha256sum --quiet -c -) > err 2>&1 || fail "files: $(head -n 5 err)"
fi
echo "@@ verified"

# What was not synced may be damaged, as anywhere: only the sound part goes on.
if test "$from" != next; then
    rm -rf next
    git init -q next || fail "no new repository"
    if test -n "$gone"; then
        git -C next fetch -q ../repository "$gone" && git -C next reset -q --hard FETCH_HEAD || fail "no copy of $gone"
    fi
    sync
fi
rm -rf repository objects content
mv next repository
sync
cd repository || fail "no repository"
git reset -q --hard || test -z "$gone" || fail "no tree of $gone"
echo "@@ kept"

# Numbers that the seed decides.
random() { # BELOW
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    number=$((seed / 65536 % $1))
}

step=0
while :; do
    step=$((step + 1))
    random 12
    for change in $(seq 0 $number); do
        random 40; name=d$((number % 7))/f$number
        mkdir -p ${name%/*}
        random 6
        case $number in
        0) rm -f $name ;;
        1) random 60000; head -c $number /dev/urandom > $name ;;
        2) seq 1 $step >> $name ;;
        3) test -e $name && mv $name $name.moved ;;
        4) test -e $name && truncate -s 1000 $name ;;
        *) random 3000; seq $step $number > $name ;;
        esac
    done
    git add -A && git commit -q --allow-empty -m "step $step" || fail "no commit"
    random 5
    case $number in
    # The new pack is there for sure before the old ones go.
    0) git repack -aq && sync && git repack -adq || fail "no pack" ;;
    1) git checkout -q -b side$step && git checkout -q main && git branch -q -D side$step ;;
    esac
    archive=$(git archive HEAD | sha256sum | cut -d ' ' -f 1)
    sync
    echo "@@ commit $(git rev-parse HEAD) $archive"
    # One file and its folder, by fsync alone.
    random 200000
    name=file-$((step % 9))
    head -c $number /dev/urandom > ../files/new
    hash=$(sha256sum < ../files/new | cut -d ' ' -f 1)
    sync ../files/new
    echo "@@ forget $name"
    mv ../files/new ../files/$name
    sync ../files
    echo "@@ file $hash $name"
done
