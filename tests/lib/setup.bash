# shellcheck shell=bash
# Helpers for all *.bats: "load lib/setup" at the top of a test file. Defines setup and teardown; a file that
# needs its own calls common_setup and common_teardown from them.
#
#   requires WHAT...         skips the test, with the reason, unless all of it is there: root, a filesystem (ext4, xfs,
#                            btrfs), no-sanitizer, a command
#   mk_fs TYPE SIZE [OPT...] makes and mounts a filesystem on a loop device; prints the mount point. OPT goes to mkfs,
#                            $MOUNT_OPTIONS to mount. Unmounted in teardown
#   start_sshd               a real sshd on 127.0.0.1; afterwards "${SSH[@]}" COMMAND runs COMMAND through it
#   same_tree A B [OPT...]   fails and prints the differences unless both trees are equal (tests/lib/same-tree)
#   run_pipe 'a | b'         runs a pipeline that fails when any part of it does; for use after run
#   has TEXT PART            fails and prints both unless TEXT contains PART
#   fail TEXT...             fails with this text
#   until_true COMMAND...    waits until it succeeds; fails after two minutes, or at once when its status is 99
#   samples N                prints N when REPL_LONG is set (make soak), else a quarter of it, with sanitizers, which are slow, an eighth:
#                            a check takes some, others all
#
# A test tagged "slow" (bats test_tags=slow) is left out by "make check" with sanitizers; "make asan" has it.
#
# A file whose tests start programs by the thousand says REPL_LEAKS=0: looking for leaks takes twice the time of the rest of a short run
# with sanitizers, and the other files do it for the same programs.
#
# A test runs in its own empty folder ($BATS_TEST_TMPDIR), with the built programs first in PATH. REPL_BUILD is the folder
# of the build to test (default build/release); INSTRUMENT wraps every program of it.

bats_require_minimum_version 1.5.0

repl_root=$(cd "${BASH_SOURCE[0]%/*}/../.." && pwd)
export repl_root
REPL_BUILD=${REPL_BUILD:-build/release}
[[ $REPL_BUILD == /* ]] || REPL_BUILD=$repl_root/$REPL_BUILD
export REPL_BUILD

# shellcheck source=tests/lib/sshd.bash
. "$repl_root/tests/lib/sshd.bash"

fail() {
	printf '%s\n' "$*" >&2
	return 1
}

has() {
	[[ $1 == *"$2"* ]] || fail "this text:"$'\n'"$1"$'\n'"does not contain:"$'\n'"$2"
}

until_true() {
	local deadline=$((SECONDS + 120)) status
	until "$@"; do
		status=$?
		((status != 99)) || return 1
		((SECONDS < deadline)) || fail "waited too long for: $*; $(tail -n 5 ./*.log 2>/dev/null)" || return 1
		sleep 0.02
	done
}

samples() {
	local part=4
	[[ $REPL_BUILD != *san ]] || part=8
	echo $((${REPL_LONG:-0} ? $1 : ($1 + part - 1) / part))
}

run_pipe() {
	bash -o pipefail -c "$1"
}

# Where what must be undone is written down: the subshell of $(mk_fs ...) cannot set variables.
undo_dir() {
	printf '%s\n' "${BATS_TEST_TMPDIR:-$BATS_FILE_TMPDIR}"
}

can_mount() {
	command -v "mkfs.$1" >/dev/null || return 1
	grep -qw "$1" /proc/filesystems || modprobe -q "$1" 2>/dev/null || return 1
	# A container may own the file system driver and yet no loop device.
	[[ -e /dev/loop-control ]]
}

requires() {
	local what
	for what; do
		case $what in
		root) [[ $(id -u) == 0 ]] || skip "needs root" ;;
		ext4 | xfs | btrfs)
			[[ $(id -u) == 0 ]] || skip "needs root, to mount $what"
			can_mount "$what" || skip "cannot mount $what here"
			;;
		no-sanitizer) [[ $REPL_BUILD != *san ]] || skip "not with sanitizers" ;;
		*) command -v "$what" >/dev/null || skip "needs the command $what" ;;
		esac
	done
}

mk_fs() {
	local type=$1 size=$2 at img dir n
	shift 2
	at=$(undo_dir)
	n=$(wc -l 2>/dev/null <"$at/.mounts" || echo 0)
	img=$at/.fs$n.img dir=$at/fs$n
	size=$(numfmt --from=iec "$size")
	# The least that mkfs accepts; the image is sparse anyway.
	case $type in
	xfs) ((size >= 300 << 20)) || size=$((300 << 20)) ;;
	btrfs) ((size >= 128 << 20)) || size=$((128 << 20)) ;;
	esac
	mkdir "$dir"
	truncate -s "$size" "$img"
	case $type in
	ext4) mkfs.ext4 -q -F "$@" "$img" >&2 ;;
	*) "mkfs.$type" -q -f "$@" "$img" >&2 ;;
	esac || return 1
	mount -o "loop${MOUNT_OPTIONS:+,$MOUNT_OPTIONS}" -t "$type" "$img" "$dir" >&2 || return 1
	printf '%s\n' "$dir" >>"$at/.mounts"
	# Root's own folder would be a difference in every comparison.
	[[ ! -d $dir/lost+found ]] || rmdir "$dir/lost+found"
	printf '%s\n' "$dir"
}

unmount_all() {
	local list=$1/.mounts dir rc=0
	[[ -e $list ]] || return 0
	while IFS= read -r dir; do
		mountpoint -q "$dir" || continue
		umount -R "$dir" 2>/dev/null && continue
		# A process that is just going away: wait for it a little.
		sleep 0.5
		umount -R "$dir" && continue
		echo "still in use: $dir" >&2
		umount -R -l "$dir"
		rc=1
	done < <(tac "$list")
	rm -f "$list" "$1"/.fs*.img
	return $rc
}

start_sshd() {
	PATH=$PATH:/usr/sbin:/sbin command -v sshd >/dev/null || skip "needs the command sshd"
	sshd_start "$(undo_dir)/.ssh-test"
}

stop_sshd() {
	sshd_stop "$1/.ssh-test"
}

same_tree() {
	python3 "$repl_root/tests/lib/same-tree" "$@"
}

# One wrapper for each program, when there is something to wrap it in.
instrument() {
	local p
	mkdir -p "$1"
	for p in "$REPL_BUILD"/repl-*; do
		[[ -x $p && -f $p ]] || continue
		printf '#!/bin/sh\nexec %s %q "$@"\n' "$INSTRUMENT" "$p" >"$1/${p##*/}"
		chmod +x "$1/${p##*/}"
	done
}

common_setup() {
	PATH=$REPL_BUILD:$PATH:/usr/sbin:/sbin
	if [[ -n ${INSTRUMENT:-} ]]; then
		instrument "$BATS_TEST_TMPDIR/.bin"
		PATH=$BATS_TEST_TMPDIR/.bin:$PATH
	fi
	export PATH LC_ALL=C.UTF-8 TZ=UTC TMPDIR=$BATS_TEST_TMPDIR
	unset REPL_STATE SOURCE_DATE_EPOCH ZSTD_CLEVEL NO_COLOR
	# A status that no program of ours uses, so that a report never looks like a failure that was expected; and
	# a file for the report, so that it is found even where standard error and status get lost.
	export ASAN_OPTIONS=exitcode=99:detect_leaks=${REPL_LEAKS:-1}:log_path=$BATS_TEST_TMPDIR/.sanitizer
	export UBSAN_OPTIONS=print_stacktrace=1:exitcode=99:log_path=$BATS_TEST_TMPDIR/.sanitizer
	export TSAN_OPTIONS=exitcode=99:log_path=$BATS_TEST_TMPDIR/.sanitizer
	umask 022
	cd "$BATS_TEST_TMPDIR" || return 1
}

common_teardown() {
	local rc=0 f
	cd /
	stop_sshd "$BATS_TEST_TMPDIR"
	for f in "$BATS_TEST_TMPDIR"/.sanitizer.*; do
		[[ -e $f ]] || continue
		cat "$f" >&2
		rc=1
	done
	unmount_all "$BATS_TEST_TMPDIR" || rc=1
	# bats removes the folder with rm, which the immutable flag would stop.
	[[ $(id -u) != 0 ]] || chattr -R -f -i -a "$BATS_TEST_TMPDIR" 2>/dev/null || :
	return $rc
}

# For files that call mk_fs or start_sshd in setup_file.
common_teardown_file() {
	stop_sshd "$BATS_FILE_TMPDIR"
	unmount_all "$BATS_FILE_TMPDIR"
}

setup() { common_setup; }
teardown() { common_teardown; }
teardown_file() { common_teardown_file; }
