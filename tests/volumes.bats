#!/usr/bin/env bats
# Volumes: image files and block devices as members of an image, alone or beside trees.

load lib/setup
load lib/trees

setup() {
	common_setup
	requires root ext4
	recorder=
}

teardown() {
	if [[ $recorder ]]; then
		kill "$recorder" || :
		wait "$recorder" || :
	fi
	umount "$BATS_TEST_TMPDIR/inside" "$BATS_TEST_TMPDIR/mnt" 2>/dev/null || :
	[[ ! -e device ]] || losetup -d "$(cat device)" || :
	common_teardown
}

# once ARGUMENT...: an image of these, onto the replica R; the delta is kept.
once() {
	repl-snap -s S "$@" >image
	repl-track -s S <image | repl-diff -s S | tee delta | repl-apply R | repl-snap -s S --commit
}

# look_into FILE: what is in a filesystem that is mounted from this file, or was.
look_into() {
	mkdir -p inside
	mount -o loop,ro,noload "$1" inside
	cat inside/file
	umount inside
}

# bats test_tags=slow
@test "an image file: only blocks that changed travel, sizes and holes follow, the copy is a filesystem" {
	fs=$(mk_fs ext4 64M)
	volume=$BATS_TEST_TMPDIR/.fs0.img
	noise "$fs/big" 8000000
	echo 1 >"$fs/file"
	umount "$fs"
	once "$volume"
	cmp "$volume" R/.fs0.img
	(($(stat -c %b "$volume") + 64 >= $(stat -c %b R/.fs0.img)))
	[[ $(look_into R/.fs0.img) == 1 ]]
	[[ $(repl-show delta | grep ^member) == "member kind=volume name='.fs0.img' path='$volume'" ]]

	mount -o loop "$volume" "$fs"
	echo 2 >"$fs/file"
	umount "$fs"
	once "$volume"
	cmp "$volume" R/.fs0.img
	(($(stat -c %s delta) < 400000))
	e2fsck -fn R/.fs0.img >&2

	# It grows, and shrinks to where no page ends.
	truncate -s 80M "$volume"
	e2fsck -fp "$volume" >&2 || [[ $? == 1 ]] # lost+found is made again
	resize2fs "$volume" >&2
	once "$volume"
	cmp "$volume" R/.fs0.img
	e2fsck -fn R/.fs0.img >&2
	truncate -s 66000001 "$volume"
	once "$volume"
	cmp "$volume" R/.fs0.img
	fallocate -p -o 0 -l 8M "$volume"
	once "$volume"
	cmp "$volume" R/.fs0.img
	(($(stat -c %s delta) < 4096))
	once "$volume"
	(($(stat -c %s delta) < 1024))
	repl-apply --verify R
	repl-apply --rollback=-4 R
	[[ $(look_into R/.fs0.img) == 1 ]]
}

@test "a block device: zeros are holes, its size is followed, and what its filesystem has on the disk is read" {
	truncate -s 64M img
	device=$(losetup --show -f img)
	echo "$device" >device
	mkfs.ext4 -q "$device"
	mkdir mnt
	once v="$device"
	cmp "$device" R/v
	(($(stat -c %b R/v) * 512 < 12000000))
	# Somebody keeps it open, so that the kernel keeps the pages that were read of it.
	exec 8<"$device"
	mount "$device" mnt
	for n in 1 2 3; do
		noise mnt/file 500000
		sync
		run -0 --separate-stderr once --provider=live v="$device"
		has "$stderr" "'$device' is mounted on '$BATS_TEST_TMPDIR/mnt'"
		cp R/v "copy$n"
	done
	cp mnt/file file
	umount mnt
	exec 8<&-
	mount -o loop,ro,noload copy3 mnt
	cmp mnt/file file
	umount mnt
	once v="$device"
	cmp "$device" R/v
	dd if=/dev/zero of="$device" bs=1M count=40 conv=fsync status=none
	once v="$device"
	cmp "$device" R/v
	(($(stat -c %b R/v) * 512 < 2000000))
	truncate -s 72M img
	losetup -c "$device"
	once v="$device"
	(($(stat -c %s R/v) == 72 << 20))
	cmp "$device" R/v
	repl-apply --verify R
}

@test "what is mounted from a volume is not read while it changes, unless asked for" {
	fs=$(mk_fs ext4 64M)
	volume=$BATS_TEST_TMPDIR/.fs0.img
	device=$(findmnt -no SOURCE "$fs")
	for v in "$volume" "$device"; do
		run -6 --separate-stderr repl-snap -s S "v=$v"
		[[ $stderr == "repl-snap: '$v' is mounted on '$fs' and may change while it is read: unmount it, or say --provider=live" ]]
		run -6 --separate-stderr repl-snap --digest "$v"
	done
	[[ -z $output ]]
	run -0 --separate-stderr repl-snap -v -s S --provider=live --freeze v="$volume"
	has "$stderr" "frozen for"
	mount -o remount,ro "$fs"
	once v="$volume"
	cmp "$volume" R/v
}

# bats test_tags=slow
@test "beside trees, with a recorder: one image, one commit" {
	mkdir srv
	echo 1 >srv/file
	noise srv/img 3000000
	noise other 1000000
	repl-track -v -j J --record srv 2>log 3>&- &
	recorder=$!
	until_true grep -q 'recording with' log
	pipe() {
		repl-snap -s S srv a="$PWD/srv/img" b=other >image
		repl-track -v -s S <image 2>track | repl-diff -s S | tee delta | repl-apply R | repl-snap -s S --commit
	}
	repl-snap -s S srv a="$PWD/srv/img" b=other | repl-track -s S -j J | repl-diff -s S | repl-apply R | repl-snap -s S --commit
	for n in 1 2; do
		echo "more $n" >>srv/file
		printf %s "changed $n" | dd of=srv/img bs=1 seek="$((n * 100000))" conv=notrunc status=none
		printf %s "changed $n" | dd of=other bs=1 seek=5000 conv=notrunc status=none
		pipe
		same_tree srv R/srv
		cmp srv/img R/a
		cmp other R/b
	done
	has "$(cat track)" recorder
	(($(stat -c %s delta) < 100000))
	repl-apply --verify R
}

# bats test_tags=slow
@test "two volumes are compared without a state" {
	noise old 3000000
	cp old new
	printf changed | dd of=new bs=1 seek=1000000 conv=notrunc status=none
	repl-diff old | repl-apply R
	cmp old R/old
	# The same name: what OLD is called does not count.
	mkdir -p old.d new.d
	mv old old.d/disk
	mv new new.d/disk
	rm -r R
	repl-diff old.d/disk | repl-apply R
	repl-diff old.d/disk new.d/disk >"$PWD/delta"
	(($(stat -c %s delta) < 40000))
	repl-apply R <"$PWD/delta"
	cmp new.d/disk R/disk
	mv old.d/disk old.d/of-yesterday
	repl-diff --exit-code new.d/disk R/disk >/dev/null
	run -10 repl-diff --exit-code old.d/of-yesterday new.d/disk

	run -2 --separate-stderr repl-diff old.d new.d/disk
	has "$stderr" "'old.d' is a directory and 'new.d/disk' a volume"
	run -4 repl-diff new.d/disk old.d
	run -2 --separate-stderr repl-diff ./delta
	has "$stderr" "'./delta' is a stream: the target must be a directory or a volume"
	mkfifo pipe
	run -2 --separate-stderr repl-diff pipe
	has "$stderr" "'pipe' is neither a directory nor a file nor a block device"
	run -2 --separate-stderr repl-snap pipe
	has "$stderr" "'pipe' is neither a directory nor a volume"
}

@test "a volume that something else has replaced is not read" {
	noise disk 100000
	once v=disk
	repl-snap -s S v=disk >image
	rm disk
	mkfifo disk
	run -1 --separate-stderr repl-track -s S <image
	has "$stderr" "cannot open '$BATS_TEST_TMPDIR/disk'"
	rm disk
	run -1 --separate-stderr repl-snap -s S v=disk
	has "$stderr" "cannot find 'disk'"
	repl-apply --verify R
}

@test "a volume in use is cloned at an instant at which its filesystem is frozen, and only its changed regions are read (B15)" {
	requires xfs
	at=$(mk_fs xfs 400M -m reflink=1)
	truncate -s 100M "$at/disk.img"
	mkfs.ext4 -q "$at/disk.img"
	mkdir mnt
	mount -o loop "$at/disk.img" mnt
	device=$(findmnt -no SOURCE mnt)
	noise mnt/big 40000000
	# Somebody is busy.
	(while :; do date >>mnt/log; done) 3>&- &
	recorder=$!
	for n in 1 2 3; do
		echo "$n" >mnt/file
		sync -f mnt
		repl-snap -v -s S --freeze disk="$device" >image 2>said
		echo later >mnt/file
		repl-track -s S <image | repl-diff -v -s S 2>read.log | tee delta | repl-apply R | repl-snap -s S --commit
		has "$(cat said)" "frozen for"
		has "$(repl-show -n image)" "consistency=crash"
		cp R/disk "copy$n"
		e2fsck -fn "copy$n" >&2
		[[ $(look_into "copy$n") == "$n" ]]
	done
	(($(stat -c %s delta) < 2000000))
	n=$(sed -n 's/.*read \([0-9]*\) of .*/\1/p' read.log)
	((n < 20000000)) || fail "$(cat read.log)"
	# What the base needs is kept, nothing else, and nothing is left of what is forgotten.
	[[ $(repl-snap -s S --list | grep ^snapshot) == "snapshot seq 3 reflink "* ]] || fail "$(repl-snap -s S --list)"
	repl-snap -s S --quiesce='echo still >>log' --resume='echo on >>log' disk="$at/disk.img" >image
	has "$(repl-show -n image)" "consistency=app"
	[[ $(cat log) == $'still\non' ]]
	repl-snap -s S --abort
	[[ $(repl-snap -s S --list | grep -c ^snapshot) == 1 ]]
	kill "$recorder"
	wait "$recorder" || :
	recorder=
	umount mnt
	run -2 --separate-stderr repl-snap -s S --provider=btrfs disk="$at/disk.img"
	has "$stderr" "'$at/disk.img' is a volume: such snapshots are made of directories only"
	rm "$at/disk.img"
	repl-apply --verify R
}
