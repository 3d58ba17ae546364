#!/usr/bin/env bats
# repl-track --record: everything that changes is named, or a gap says that it may not be.

load lib/setup

setup() {
	common_setup
	recorder=
	others= # processes that end with the test
	j=$BATS_TEST_TMPDIR/journal
}

teardown() {
	local p
	for p in $recorder $others; do
		kill -CONT "$p" 2>/dev/null || :
		kill "$p" 2>/dev/null || :
		wait "$p" 2>/dev/null || :
	done
	common_teardown
}

# until_true COMMAND...: waits until the command succeeds, or fails after a minute.
until_true() {
	local deadline=$((SECONDS + 60))
	until "$@"; do
		((SECONDS < deadline)) || fail "waited too long for: $*"
		sleep 0.05
	done
}

# record OPTION... PATH...: starts a recorder and waits until it records.
record() {
	: >log
	repl-track -v -j "$j" --record "$@" 2>log 3>&- &
	recorder=$!
	until_true is_recording
}

is_recording() {
	grep -q 'recording with' log || {
		kill -0 "$recorder" 2>/dev/null || fail "the recorder ended: $(cat log)"
		return 1
	}
}

stop() {
	kill "$recorder"
	wait "$recorder" || :
	recorder=
}

# The number of the last batch, with everything up to now in it.
cut_now() {
	local line
	line=$(repl-track -j "$j" --cut) || return
	echo "${line#* }"
}

# shown AFTER: what the batches above this number say.
shown() {
	local f n
	for f in "$j"/batches/*.repl; do
		n=${f##*-}
		n=$((10#${n%.repl}))
		((n <= $1)) || repl-show "$f" || return
	done
}

# paths AFTER: each path that is named, a line each; gaps as "gap PATH"; inodes as "inode NUMBER".
paths() {
	shown "$1" >shown.txt || return
	sed -n "s/^changed .* path='\(.*\)'\$/\1/p; s/^gap .* path='\(.*\)'\$/gap \1/p; s/^inode .* ino=\([0-9]*\) .*/inode \1/p" \
		shown.txt | sort -u
}

# names AFTER PATH...: fails unless each of them is named.
names() {
	local p got
	got=$(paths "$1") || return
	shift
	for p; do
		grep -qxF -- "${p#/}" <<<"$got" || fail "'$p' is not named, but"$'\n'"$got"
	done
}

# every_call TREE OUTSIDE [MISSED]: what touch-every does is all in the list, but for this.
every_call() {
	local before want got missed
	[[ -e $1/source ]] || "$repl_root/tests/lib/touch-every" prepare "$1" "$2"
	before=$(cut_now)
	"$repl_root/tests/lib/touch-every" do "$1" "$2" >want.txt
	cut_now
	got=$(paths "$before" | sed "s|^${1#/}/||")
	want=$(sort -u want.txt)
	missed=$(comm -23 <(echo "$want") <(echo "$got" | sort -u))
	[[ $missed == "${3:-}" ]] || fail "not named: $missed"$'\n'"named: $got"
	run ! grep '^gap' <<<"$got"
}

@test "every way to change something is named: ext4, filesystem marks" {
	requires ext4
	fs=$(mk_fs ext4 64M)
	mkdir "$fs/tree" "$fs/out"
	record "$fs/tree"
	grep 'recording with fanotify, filesystem marks' log
	every_call "$fs/tree" "$fs/out"
}

@test "every way to change something is named: XFS, filesystem marks" {
	requires xfs
	fs=$(mk_fs xfs 300M)
	mkdir "$fs/tree" "$fs/out"
	record "$fs/tree"
	grep 'recording with fanotify, filesystem marks' log
	every_call "$fs/tree" "$fs/out"
}

@test "every way to change something is named: a btrfs subvolume, directory marks" {
	requires btrfs
	fs=$(mk_fs btrfs 128M)
	btrfs -q subvolume create "$fs/sub"
	mkdir "$fs/sub/tree" "$fs/sub/out"
	record "$fs/sub/tree"
	grep 'recording with fanotify, directory marks' log
	# A mark of a directory does not hear of a name outside.
	"$repl_root/tests/lib/touch-every" prepare "$fs/sub/tree" "$fs/sub/out"
	every_call "$fs/sub/tree" "$fs/sub/out" "inode $(stat -c %i "$fs/sub/tree/linked_out")"
}
