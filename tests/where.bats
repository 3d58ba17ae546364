#!/usr/bin/env bats
# Volumes of a replica that stand elsewhere (--where): on block devices, and in files outside of it; and groups of which they are part.

# Streams have names that shellcheck takes for those of commands.
# shellcheck disable=SC2238

load lib/setup
load lib/trees

setup() {
	common_setup
	requires root ext4
	mkdir mnt
}

teardown() {
	umount "$BATS_TEST_TMPDIR/mnt" "$BATS_TEST_TMPDIR/there" 2>/dev/null || :
	[[ ! -e devices ]] || while read -r device; do losetup -d "$device" || :; done <devices
	common_teardown
}

# device FILE SIZE: a block device, with nonsense on it; prints its name.
device() {
	head -c "$2" /dev/urandom >"$1"
	losetup -f --show "$1" | tee -a devices
}

# fill NUMBER: the filesystem in the file `disk`, made when it is not there.
fill() {
	if [[ ! -e disk ]]; then
		truncate -s 24M disk
		mkfs.ext4 -q -F disk
	fi
	mount -o loop disk mnt
	echo "$1" >mnt/file
	noise mnt/noise 300000 "$1"
	umount mnt
}

# ship REPL-APPLY-OPTION...: image of $members onto R
ship() {
	# shellcheck disable=SC2086 # several
	repl-snap -s S $members | repl-track -s S | repl-diff -s S | tee delta | repl-apply "$@" R | repl-snap -s S --commit
}

# holds DEVICE-OR-FILE: it begins with what `disk` is.
holds() {
	cmp -n "$(stat -c %s disk)" disk "$1"
}

@test "a block device is the target: filled, changed, verified, back and forward" {
	members=disk
	d=$(device there.img 30M)
	tail -c 6M there.img >rest
	fill 1
	ship --where "disk=$d"
	holds "$d"
	tail -c 6M "$d" | cmp - rest
	[[ $(readlink R/disk) == "$d" ]]
	cp disk first

	fill 2
	ship
	holds "$d"
	(($(stat -c %s delta) < 900000)) || fail "$(stat -c %s delta) bytes"
	e2fsck -fn "$d" >&2
	run -0 repl-apply --verify R
	has "$(repl-apply --status R)" "where    disk is $d"
	[[ $(repl-apply --status --json R | python3 -c 'import json, sys; print(json.load(sys.stdin)["where"])') == "{'disk': '$d'}" ]]

	repl-apply --rollback=-1 R >/dev/null
	cmp -n "$(stat -c %s first)" first "$d"
	repl-apply --rollback=-1 R >/dev/null
	holds "$d"
	repl-apply --at=-1 --into=earlier R
	cmp first earlier/disk

	# Smaller, larger, with a hole at the end that is not whole sectors.
	truncate -s 20000001 disk
	ship
	holds "$d"
	truncate -s 26M disk
	ship
	holds "$d"
	fallocate -p -o 0 -l 1M disk
	ship
	holds "$d"
	run -0 repl-apply --verify R
	printf x | dd of="$d" bs=1 seek=5000000 conv=notrunc status=none
	run -10 repl-apply --verify R
	has "$output" "edited 'disk': content"
	repl-apply --verify --wanted R | repl-diff -s S | repl-apply R >/dev/null
	holds "$d"
}

@test "a device that is too small, mounted, in use or gone is refused, and nothing changes" {
	members="disk tree=src"
	mkdir src
	echo 1 >src/f
	fill 1
	d=$(device small.img 16M)
	repl-snap -s T disk | repl-diff -s T >big
	run -6 repl-apply --where "disk=$d" small <big
	has "$output" "'$d' is too small: it has 16777216 bytes, the volume 'disk' has more"
	[[ $(find small -mindepth 1 ! -path 'small/.repl*') == '' ]]

	d=$(device there.img 24M)
	ship --where "disk=$d"
	same_tree src R/tree
	cp disk old
	fill 2
	echo 2 >src/f
	repl-snap -s S disk tree=src | repl-diff -s S >delta
	before=$(sha256sum <"$d")
	nothing_changed() {
		[[ $(sha256sum <"$d") == "$before" && $(cat R/tree/f) == 1 && ! -e R/.repl/commit ]]
	}
	mkdir there
	mount "$d" there
	run -6 repl-apply R <delta
	has "$output" "'$d' is not written to, what is on it is mounted at '$PWD/there': unmount that"
	umount there
	before=$(sha256sum <"$d") # the mount wrote to it
	if ! holds "$d" 2>/dev/null; then
		dd if=old of="$d" bs=1M conv=notrunc status=none
		before=$(sha256sum <"$d")
	fi
	nothing_changed
	python3 -c "import os, time; os.open('$d', os.O_RDWR | os.O_EXCL); print(flush=True); time.sleep(1000)" 3>&- >holding &
	until_true test -s holding
	run -8 repl-apply R <delta
	has "$output" "is in use: mounted, part of another device, or being written by somebody else"
	kill $!
	wait $! || :
	nothing_changed
	# Another one in its place, smaller.
	losetup -d "$d"
	truncate -s 8M other.img
	losetup "$d" other.img
	run -6 repl-apply R <delta
	has "$output" "too small"
	losetup -d "$d"
	run -6 repl-apply R <delta
	has "$output" "'$d' is too small: it has 0 bytes"
	losetup "$d" there.img
	nothing_changed
	run -0 repl-apply R <delta
	holds "$d"
	same_tree src R/tree
}

@test "a file elsewhere, on another filesystem, and another place for it" {
	members=disk
	far=$(mk_fs ext4 80M)
	fill 1
	repl-snap -s T disk | repl-diff -s T >full
	run -2 repl-apply --where "disk" R <full
	run -2 repl-apply --where "disk=$far" R <full
	has "$output" "a tree only in the replica"
	run -1 repl-apply --where "disk=$far/none/there" R <full
	[[ ! -e R ]]
	ship --where "disk=$far/copy"
	cmp disk "$far/copy"
	fill 2
	ship
	cmp disk "$far/copy"
	# Nobody makes a new one where it is missing.
	fill 3
	mv "$far/copy" "$far/hidden"
	repl-snap -s S disk | repl-diff -s S >delta
	run -1 repl-apply R <delta
	has "$output" "cannot read '$far/copy', where the volume 'disk' stands: No such file"
	[[ ! -e $far/copy && ! -e R/.repl/commit ]]
	mv "$far/hidden" "$far/copy"
	ship
	cmp disk "$far/copy"
	# It moves: first the content, then the word.
	: >moved
	run -6 bash -c "repl-apply --where disk=moved --ack R"
	has "$output" "'$PWD/moved' does not hold what the replica's 'disk' does: copy that there first"
	cp "$far/copy" moved
	run -0 bash -c "repl-apply --where disk=moved --ack R >ack"
	fill 4
	ship
	cmp disk moved
	[[ $(readlink R/disk) == "$PWD/moved" ]]
	# The member goes: what stood elsewhere is left to whom it belongs.
	mkdir src
	members=src
	rm -rf S
	repl-snap --digest R >theirs
	run -0 bash -c "repl-diff theirs src | repl-apply --max-delete=9 R"
	[[ ! -e R/disk && ! -L R/disk ]]
	cmp disk moved
}

@test "what is no volume cannot stand elsewhere, and what has volumes elsewhere is not adopted" {
	mkdir disk
	echo x >disk/f
	mkdir R
	run -6 repl-apply --adopt --where "disk=there" R
	rm -rf R
	repl-snap -s S disk=disk other=disk | repl-diff -s S >delta
	run -6 repl-apply --where disk=there R <delta
	has "$output" "the member 'disk' is to stand at '$PWD/there', and is no volume"
	[[ ! -s there && $(find R -mindepth 1 ! -path 'R/.repl*') == '' ]]
}

@test "the first copy of a volume breaks off and is resumed in its place" {
	fill 1
	noise more 5000000
	dd if=more of=disk bs=1M seek=12 conv=notrunc status=none
	d=$(device there.img 24M)
	repl-snap -s S disk | repl-diff -s S >delta
	size=$(stat -c %s delta)
	rest="delta"
	for part in $((size / 3)) $((size / 3)); do
		run -4 bash -c "head -c $part '$rest' | repl-apply --checkpoint=256K --where disk=$d R"
		has "$output" "what came is kept"
		[[ -z $(ls R/.repl/stage) ]] # it need not fit twice
		token=$(repl-apply --resume-token R)
		repl-pack --resume="$token" <delta >rest.new
		mv rest.new rest
		rest="rest"
	done
	run -0 repl-apply R <rest
	holds "$d"
	run -0 repl-apply --verify R
}

# same STATE: all members are as they were in it.
same() {
	holds_of "$1" && same_tree "$1/a" R/a && same_tree "$1/b" R/b
}

holds_of() {
	cmp -s -n "$(stat -c %s "$1/disk")" "$1/disk" "$d" && cmp -s "$1/file" "$far/file"
}

@test "a group of four is killed at any call while it lands: all of it is old, or new" {
	cut=$REPL_BUILD/tests/lib/cut
	far=$(mk_fs ext4 80M)
	d=$(device there.img 8M)
	make_state() { # NUMBER
		mkdir -p now/a now/b/deep
		echo "$1" >now/a/one
		noise now/a/large 1500000 7
		printf '%09d' "$1" | dd of=now/a/large bs=1 seek=700000 conv=notrunc status=none
		echo "$1" >"now/b/deep/$1"
		[[ -e now/disk ]] || { noise now/disk 2000000 1; truncate -s 8M now/disk; }
		[[ -e now/file ]] || noise now/file 3000000 2
		noise part 9000 "$1"
		dd if=part of=now/disk bs=1 seek=123456 conv=notrunc status=none
		dd if=part of=now/file bs=1 seek=2500000 conv=notrunc status=none
		rm -rf "state$1"
		cp -a now "state$1"
	}
	snap() {
		repl-snap -s S a=now/a b=now/b disk=now/disk file=now/file | repl-diff -s S
	}
	make_state 1
	snap | repl-apply --where "disk=$d" --where "file=$far/file" R | repl-snap -s S --commit
	same state1
	make_state 2
	snap >delta
	cp -a R before
	run -0 "$cut" trace calls repl-apply R <delta
	same state2
	n=$(wc -l <calls)
	max=$(samples 24)
	old=0 new=0
	for ((at = 0; at < max && at < n; at++)); do
		k=$((at * n / (max < n ? max : n) + 1))
		rm -rf R
		cp -a before R
		dd if=state1/disk of="$d" bs=1M conv=notrunc,fsync status=none
		cp state1/file "$far/file"
		run -137 bash -c "$cut kill $k repl-apply R <delta >ack"
		# Recovers, and says what it is.
		run -0 repl-apply --status R
		if same state1 2>/dev/null; then
			old=$((old + 1))
		else
			same state2 || fail "killed at call $k of $n: neither the one nor the other"
			new=$((new + 1))
		fi
		run -0 repl-apply R <delta
		same state2
	done
	run -0 repl-apply --verify R
	echo "# killed at $max of $n calls: $old times the old image, $new times the new one" >&3
	((old > 0 && new > 0))
}
