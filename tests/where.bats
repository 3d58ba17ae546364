#!/usr/bin/env bats
# Members of a replica that stand elsewhere (--where): volumes on block devices and in files outside of it, trees on filesystems of
# their own; and groups of which they are part.

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
	run -2 repl-apply --where disk=/dev/null R <full
	has "$output" "neither a directory for a tree, nor a file or a block device for a volume"
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

@test "what is no volume cannot stand where one is to, and what is no tree not where one is" {
	mkdir disk
	echo x >disk/f
	repl-snap -s S disk=disk other=disk | repl-diff -s S >delta
	run -6 repl-apply --where disk=there R <delta
	has "$output" "the member 'disk' is to stand at '$PWD/there', and is no volume"
	[[ ! -s there && $(find R -mindepth 1 ! -path 'R/.repl*') == '' ]]
	rm -rf R
	echo >file
	repl-snap -s T disk=file other=disk | repl-diff -s T >delta
	run -6 repl-apply --where disk=dir/ R <delta
	has "$output" "the member 'disk' is to stand at '$PWD/dir', and is no tree"
	[[ $(find dir -mindepth 1 ! -path 'dir/.repl*') == '' && $(find R -mindepth 1 ! -path 'R/.repl*') == '' ]]
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

# three: a source of three trees, of which a and b go to filesystems of their own.
three() {
	fs1=$(mk_fs ext4 60M)
	fs2=$(mk_fs xfs 320M)
	mkdir -p src/a/sub src/b/deep src/c
	echo 1 >src/a/sub/one
	ln src/a/sub/one src/a/two
	ln -s nowhere src/a/link
	seq 300000 >src/b/large
	echo b >src/b/deep/er
	chmod 700 src/b
	echo c >src/c/c
	members="a=src/a b=src/b c=src/c"
}

# three_are_same: on the replica as at the source, links to places elsewhere included.
three_are_same() {
	same_tree src/a R/a/ && same_tree src/b R/b/ && same_tree src/c R/c
	[[ $(readlink R/a) == "$fs1" && $(readlink R/b) == "$fs2/b" ]]
	repl-apply --verify R
}

@test "trees of a group stand on filesystems of their own: changed, mended, back and forward, and a source again" {
	three
	ship --where "a=$fs1" --where "b=$fs2/b/"
	three_are_same
	has "$(repl-apply --status R)" "where    b is $fs2/b"
	cp -a src first

	mv src/b/deep src/b/shallow
	sed -i 's/^4000$/four thousand/' src/b/large
	ln src/b/shallow/er src/b/again
	rm src/a/two
	mkdir src/a/new
	mv src/a/sub/one src/a/new/
	ln -sfn elsewhere src/a/link
	chattr +i src/b/shallow/er || : # where there is no such flag
	ship
	three_are_same
	(($(stat -c %s delta) < 400000)) || fail "$(stat -c %s delta) bytes"
	repl-apply --rollback=-1 R >/dev/null
	same_tree first/a R/a/ && same_tree first/b R/b/
	repl-apply --rollback=-1 R >/dev/null
	three_are_same
	repl-apply --at=-1 --into=earlier R
	same_tree first/a earlier/a && same_tree first/b earlier/b

	# Edited: refused, put aside in its own filesystem, mended.
	echo mine >"$fs1/new/file"
	mkdir src/a/new/file
	repl-snap -s S a=src/a b=src/b c=src/c | repl-diff -s S >delta
	run -6 repl-apply R <delta
	has "$output" "edited on the replica 'R': 'a/new/file'"
	run -0 repl-apply --edited=keep R <delta
	has "$output" "it is now '$fs1/.repl/aside/"
	[[ $(cat "$fs1"/.repl/aside/*/a/new/file) == mine ]]
	repl-apply --ack R | repl-snap -s S --commit
	chattr -i "$fs2/b/shallow/er" || :
	rm -r R/b/shallow R/a
	mkdir R/a
	echo mine >R/a/file
	echo edited >>"$fs1/new/one"
	run -10 repl-apply --verify R
	has "$output" "edited 'a/new/one'" "missing 'b/shallow'"
	run -3 bash -c "repl-apply --verify --wanted R | repl-diff -s S | repl-apply R 2>&1 >/dev/null"
	has "$output" "'a' in the replica 'R' is no link, which would lead to where the member stands: left alone"
	[[ $(cat R/a/file) == mine ]]
	rm -r R/a
	echo >>src/c/c
	ship
	three_are_same
	run -0 repl-apply --restore-meta R

	# The other way round, each by its own path.
	repl-snap -s T a=R/a b=R/b | repl-diff -s T | repl-apply back | repl-snap -s T --commit
	same_tree src/a back/a && same_tree src/b back/b
	[[ ! -e back/a/.repl ]]
}

@test "a member leaves a group and what stood elsewhere goes, and comes back with a rollback" {
	three
	ship --where "a=$fs1" --where "b=$fs2/b/"
	members="b=src/b c=src/c"
	ship
	[[ ! -e R/a && ! -L R/a && $(find "$fs1" -mindepth 1 ! -path '*/.repl*' ! -name lost+found) == '' ]]
	run -0 repl-apply --verify R
	repl-apply --rollback=-1 R >/dev/null
	three_are_same
	repl-apply --rollback=-1 R >/dev/null
	members="a=src/a b=src/b c=src/c"
	ship
	three_are_same
}

@test "a tree's place that is not mounted, not its own, or in the way is refused, and nothing changes" {
	three
	repl-snap -s T a=src/a b=src/b c=src/c | repl-diff -s T >full
	mkdir content
	echo x >content/x
	run -6 repl-apply --where a=content R <full
	has "$output" "a tree begins in an empty directory"
	run -6 repl-apply --where a=. R <full
	has "$output" "are one in the other"
	mkdir -p R/inside
	run -6 repl-apply --where a=R/inside R <full
	ln -s . again
	for b in place/ again/place/ place/in/; do
		run -6 repl-apply --where a=place/ --where "b=$b" R <full
		has "$output" "are one in the other"
	done
	rm -rf R place
	ship --where "a=$fs1" --where "b=$fs2/b/"
	run -6 repl-apply --where "a=$fs1" other <full
	has "$output" "'$fs1' is not where the tree 'a' of the replica stands: it belongs to another member or another replica"
	run -6 repl-apply --where a=R other <full
	has "$output" "it is a replica itself"
	run -6 repl-apply --where "a=$fs2/b" R <full
	has "$output" "'$fs2/b' and '$fs2/b' are one in the other"
	mkdir "$fs2/empty"
	run -6 repl-apply --where "a=$fs2/empty" R <full
	has "$output" "'$fs2/empty' does not hold what the replica's 'a' does: is it mounted? A place that is new needs all of it first, with its .repl"
	run -6 repl-apply --where "c=$fs2/empty" R <full
	three_are_same

	echo 2 >src/c/c
	echo 2 >src/a/two
	repl-snap -s S a=src/a b=src/b c=src/c | repl-diff -s S >delta
	mount -t tmpfs none "$fs1" # something else
	for run in "" --verify --status; do
		# shellcheck disable=SC2086 # may be none
		run -6 repl-apply $run R <delta
		has "$output" "'$fs1' is not where the tree 'a' of the replica stands: is it mounted?"
	done
	run -6 repl-apply --where "a=$fs1" R <delta # as the line in authorized_keys does each time
	has "$output" "'$fs1' does not hold what the replica's 'a' does: is it mounted?"
	run -0 repl-apply --list R
	[[ $(cat R/c/c) == c && -z $(ls -A "$fs1") ]]
	umount "$fs1"
	# Another place: with all that is in it.
	mkdir "$fs2/moved"
	cp -a "$fs1/." "$fs2/moved"
	run -0 repl-apply --where "a=$fs2/moved" R <delta
	fs1=$fs2/moved
	three_are_same
}

@test "a replica with members elsewhere is adopted: its catalog gone, all of .repl, and as somebody else made it" {
	three
	fill 1
	members+=" disk"
	d=$(device there.img 24M)
	ship --where "a=$fs1" --where "b=$fs2/b/" --where "disk=$d"
	goes_on() {
		repl-snap --digest R | repl-snap -s S --adopt
		echo "$1" >>src/b/large
		echo "$1" >src/a/new
		ship
		three_are_same
		holds "$d"
		(($(stat -c %s delta) < 300000)) || fail "$(stat -c %s delta) bytes"
	}
	rm R/.repl/catalog
	run -0 repl-apply --adopt R
	three_are_same
	goes_on 1
	rm -r R/.repl
	ln -s nowhere R/link
	run -6 repl-apply --adopt --where "a=$fs1" --where "b=$fs2/b" --where "disk=$d" R
	has "$output" "'link' in the replica 'R' is neither a tree nor a volume"
	rm R/link
	run -0 repl-apply --adopt --where "a=$fs1" --where "b=$fs2/b" --where "disk=$d" R
	goes_on 2
	rm -r R "$fs1/.repl" "$fs2/b/.repl"
	mkdir R
	cp -a src/c R/
	mkdir R/a
	run -6 repl-apply --adopt --where "a=$fs1" --where "b=$fs2/b" --where "disk=$d" R
	has "$output" "'a' stands in the replica 'R' and elsewhere: move one of them away"
	rmdir R/a
	mkdir -m 700 "$fs1/lost+found"
	run -0 repl-apply --adopt --where "a=$fs1" --where "b=$fs2/b" --where "disk=$d" R
	run -0 repl-apply --verify R
	run -1 grep lost <(repl-snap --digest R | repl-show)
	rmdir "$fs1/lost+found"
	goes_on 3
	mkdir other
	run -6 repl-apply --adopt --where a=R other
	has "$output" "it is a replica itself"
}

@test "nothing is moved or linked from one member's tree to another" {
	three
	echo shared >src/c/shared
	ln src/c/shared src/a/shared
	ship --where "a=$fs1" --where "b=$fs2/b/"
	three_are_same
	mv src/b/large src/a/
	mv src/a/sub src/c/
	ship
	three_are_same
	# Of one filesystem, under a number that another member had.
	mkdir src/bb
	mv src/c/sub src/bb/
	members="a=src/a b=src/b bb=src/bb c=src/c"
	ship
	three_are_same && same_tree src/bb R/bb
	# By content, where no inode tells.
	rm -rf S
	repl-snap --digest R | repl-snap -s S --adopt
	mv src/a/large src/c/
	mv src/bb/sub src/b/
	ship
	three_are_same && same_tree src/bb R/bb
	run -1 grep attach <(repl-show delta)
	# Where things do move there are no members.
	mkdir -p one/a one/b
	repl-snap -s T one | repl-diff -s T >delta
	run -6 repl-apply --where a=here/ Q <delta
	has "$output" "has to be a member of a group"
}

@test "the first copy of a tree elsewhere breaks off and is resumed" {
	three
	noise src/b/more 6000000
	# shellcheck disable=SC2086 # several
	repl-snap -s S $members | repl-diff -s S >delta
	run -4 bash -c "head -c 5000000 delta | repl-apply --checkpoint=256K --where 'a=$fs1' --where 'b=$fs2/b/' R"
	has "$output" "what came is kept"
	[[ -e $fs1/.repl/stage/1 && -z $(ls R/.repl/stage) && -n $(ls "$fs2/b/.repl/stage") ]]
	repl-pack --resume="$(repl-apply --resume-token R)" <delta >rest
	run -0 repl-apply R <rest
	three_are_same
	[[ -z $(find "$fs1/.repl/stage" "$fs2/b/.repl/stage" -type f) ]]
}

# same STATE: all members are as they were in it.
same() {
	holds_of "$1" && same_tree "$1/a" R/a/ && same_tree "$1/b" R/b
}

holds_of() {
	cmp -s -n "$(stat -c %s "$1/disk")" "$1/disk" "$d" && cmp -s "$1/file" "$far/file"
}

@test "a member that gets another place gives up what was staged for the old one" {
	mkdir -p a/d b/e there
	noise a/d/x 300000 1
	for n in 2 3 4; do noise "b/e/$n" 300000 "$n"; done
	repl-snap -s S a=a b=b | repl-track -s S | repl-diff -s S >delta
	head -c 1000000 delta | repl-apply R || (($? == 4))
	repl-pack --resume="$(repl-apply --resume-token R)" <delta >rest
	run -5 repl-apply -v --where "b=$PWD/there" R <rest
	has "$output" "gave up what was kept"
	has "$output" "keeps no part"
	run -0 --separate-stderr repl-apply R <delta
	same_tree a R/a
	same_tree b there
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
	snap | repl-apply --where "disk=$d" --where "file=$far/file" --where "a=$far/a/" R | repl-snap -s S --commit
	same state1
	make_state 2
	snap >delta
	cp -a R before
	cp -a "$far/a" before-a
	run -0 "$cut" trace calls repl-apply R <delta
	same state2
	n=$(wc -l <calls)
	max=$(samples 24)
	old=0 new=0
	for ((at = 0; at < max && at < n; at++)); do
		k=$((at * n / (max < n ? max : n) + 1))
		rm -rf R "$far/a"
		cp -a before R
		cp -a before-a "$far/a"
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
