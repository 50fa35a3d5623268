# Builds what git's tests need besides git itself: see [[source]] in git-tests.toml.

make -j"$JOBS" CC="$CC" AR="$AR" CFLAGS="-O2 -I$SYSROOT/usr/include" LDFLAGS="-L$SYSROOT/usr/lib/aarch64-linux-gnu" \
    uname_M=aarch64 HOST_CPU=aarch64 NO_CURL=1 NO_EXPAT=1 NO_OPENSSL=1 NO_GETTEXT=1 NO_PYTHON=1 NO_TCLTK=1 \
    GIT-BUILD-OPTIONS t/helper/test-tool t/helper/test-fake-ssh
make -C templates
# Debian's git has this, although the helpers were built without.
sed -i "s/^USE_LIBPCRE2=.*/USE_LIBPCRE2='YesPlease'/" GIT-BUILD-OPTIONS
rm -f t/helper/*.o t/helper/*.c
# Some tests read the makefile, the documentation, the list of commands and the source of scripts.
cp -a GIT-BUILD-OPTIONS Makefile Documentation command-list.txt mergetools templates t gitweb perl po contrib generate-cmdlist.sh \
    git-sh-i18n.sh git-sh-setup.sh unimplemented.sh COPYING "$DEST"
