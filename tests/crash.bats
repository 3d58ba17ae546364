#!/usr/bin/env bats
# repl-apply is stopped everywhere: by kill, by power cuts, by errors of every call, by full disks; and the replica is always the old
# image or the new one. "make crash" sets REPL_CRASH=all: every call, and hundreds of power cuts; a check takes samples,
# always the same. What was tried is printed, as a comment in the TAP stream.

load lib/setup
export REPL_LEAKS=0

setup_file() {
	requires root ext4 xfs btrfs
	PATH=$REPL_BUILD:$PATH:/usr/sbin:/sbin
	export PATH TMPDIR=$BATS_FILE_TMPDIR
	# In memory: many thousand times the filesystem is told to write to the disk. Clones need XFS below.
	local ram=$BATS_FILE_TMPDIR/ram
	mkdir "$ram"
	mount -t tmpfs -o size=6G tmpfs "$ram"
	echo "$ram" >>"$(undo_dir)/.mounts"
	mkdir "$ram/lab"
	truncate -s 5G "$ram/xfs.img"
	mkfs.xfs -q "$ram/xfs.img"
	mount -o loop "$ram/xfs.img" "$ram/lab"
	echo "$ram/lab" >>"$(undo_dir)/.mounts"
	crash prepare
}

teardown_file() { common_teardown_file; }

crash() {
	"$repl_root/tests/lib/crash" --dir "$BATS_FILE_TMPDIR/ram/lab" --cut "$REPL_BUILD/tests/lib/cut" "$@"
}

# stopped POINTS TEST FILESYSTEM DELTA: all points when everything is asked for, fewer with a sanitizer, which is slow.
stopped() {
	local points=$((($1 + 2) / 3))
	shift
	[[ $REPL_BUILD != *san ]] || points=$(((points + 4) / 5))
	[[ ${REPL_CRASH:-} == all ]] || set -- --points "$points" "$@"
	run -0 crash "$@"
	printf '# %s\n' "$output" >&3
	has "$output" ", 0 lost"
}

@test "killed at any call, the same command or a recovery finishes or discards, on ext4" { stopped 24 kill ext4 small; }
@test "killed at any call, with a private catalog, on ext4" { stopped 16 kill ext4 big; }
@test "killed at any call, of the first delta of all, on ext4" { stopped 16 kill ext4 first; }
@test "killed at any call, where extents are shared, on XFS" { stopped 8 kill xfs small; }
@test "killed at any call, with a private catalog, on XFS" { stopped 8 kill xfs big; }
@test "killed at any call, on XFS without reflinks" { stopped 6 kill plain-xfs small; }
@test "killed at any call, on btrfs" { stopped 8 kill btrfs small; }
@test "killed at any call, with a private catalog, on btrfs" { stopped 8 kill btrfs big; }
@test "killed at any call, while it goes back to an earlier image, on ext4" { stopped 8 kill ext4 back; }
@test "killed at any call, while it goes back to an earlier image, on XFS" { stopped 6 kill xfs back; }

@test "a power cut at any instant, on ext4" { stopped 16 power ext4 small; }
@test "a power cut at any instant, with a private catalog, on ext4" { stopped 12 power ext4 big; }
@test "a power cut at any instant, of the first delta of all, on ext4" { stopped 8 power ext4 first; }
@test "a power cut at any instant, while it goes back to an earlier image, on ext4" { stopped 6 power ext4 back; }
@test "a power cut at any instant, on XFS" { stopped 8 power xfs small; }
@test "a power cut at any instant, with a private catalog, on XFS" { stopped 8 power xfs big; }
@test "a power cut at any instant, on XFS without reflinks" { stopped 10 power plain-xfs small; }
@test "a power cut at any instant, on btrfs" { stopped 6 power btrfs small; }
@test "a power cut at any instant, with a private catalog, on btrfs" { stopped 6 power btrfs big; }

@test "an error of any call changes nothing before the decision and can be repeated after it, on ext4" { stopped 30 fail ext4 small; }
@test "an error of any call, with a private catalog, on ext4" { stopped 20 fail ext4 big; }
@test "an error of any call, of the first delta of all, on ext4" { stopped 12 fail ext4 first; }
@test "an error of any call, while it goes back to an earlier image, on ext4" { stopped 10 fail ext4 back; }
@test "an error of any call, where extents are shared, on XFS" { stopped 16 fail xfs big; }
@test "an error of any call, on btrfs" { stopped 10 fail btrfs small; }

@test "a full disk changes nothing, gives back what it took, and is no obstacle later, on ext4" { stopped 6 full ext4 big; }
@test "a full disk, on XFS" { stopped 3 full xfs big; }
@test "a full disk, on btrfs" { stopped 3 full btrfs big; }

# What can never work must not be found out after the decision: every later run would fail.

@test "a large program that runs from the replica is replaced, not waited for" {
	requires root ext4
	cd "$(mk_fs ext4 64M)"
	mkdir src
	cp "$(type -P sleep)" src/program
	head -c 2M /dev/zero >>src/program
	touch -d @1000000000 src/program
	repl-diff src >full
	repl-apply R <full >/dev/null
	cp -a src old
	printf changed | dd of=src/program bs=1 seek=1500000 conv=notrunc status=none
	repl-diff old src >delta.rpl
	R/program 1000 3>&- &
	until [[ $(readlink "/proc/$!/exe") == */R/program ]]; do kill -0 $!; done
	run -0 repl-apply R <delta.rpl
	kill $!
	same_tree src R
}

# Nothing can be put into R/d, and it cannot go.
refused_both() {
	local delta
	for delta in inside away; do
		run -6 repl-apply R <$delta
		has "$output" "'d' is on another filesystem than the replica: unmount it"
		[[ ! -e R/.repl/commit ]]
	done
}

@test "what is mounted in the replica is refused before anything changes" {
	requires root ext4
	cd "$(mk_fs ext4 64M)"
	mkdir -p src/d/sub
	echo 1 >src/d/file
	repl-diff src >full
	repl-apply R <full >/dev/null
	cp -a src old
	echo 2 >src/d/new
	repl-diff old src >inside
	rm -r src/d
	repl-diff old src >away
	mount -t tmpfs tmpfs R/d
	cp -a old/d/. R/d
	refused_both
	umount R/d
	# Deeper in what goes, and in a stray directory.
	mount -t tmpfs tmpfs R/d/sub
	touch -r old/d/sub R/d/sub
	run -6 repl-apply R <away
	has "$output" "'d/sub' is on another filesystem than the replica: unmount it"
	umount R/d/sub
	repl-snap --digest R | repl-snap -s S --adopt
	repl-snap -s S old | repl-track -s S | repl-diff -s S | repl-apply R | repl-snap -s S --commit
	mkdir -p R/stray/deep
	mount -t tmpfs tmpfs R/stray/deep
	run -6 bash -c "repl-apply --verify --wanted R 2>/dev/null | repl-diff -s S | repl-apply R"
	has "$output" "is on another filesystem than the replica: unmount it"
	umount R/stray/deep
	rm -r R/stray
	# The same filesystem a second time is another mount, and nothing is renamed between two of them.
	mkdir elsewhere
	mount --bind elsewhere R/d
	cp -a old/d/. R/d
	refused_both
	umount R/d
	rm -rf elsewhere
	mv R/.repl elsewhere
	mkdir R/.repl
	mount --bind elsewhere R/.repl
	run -6 repl-apply R <away
	has "$output" "'R/.repl' is on another filesystem or mount than 'R'"
	umount R/.repl
	rmdir R/.repl
	mv elsewhere R/.repl
	run -0 repl-apply R <away
	same_tree src R
}

@test "more hard links than the filesystem allows are a loss, not an end" {
	requires root btrfs
	# All names of a file in one directory have to fit into one block here: about 70 of these.
	cd "$(mk_fs btrfs 128M -O ^extref)"
	mkdir "$BATS_TEST_TMPDIR/src"
	src=$BATS_TEST_TMPDIR/src
	touch "$src/first"
	for i in {100..199}; do ln "$src/first" "$src/$i$(printf 'n%.0s' {1..200})"; done
	repl-diff "$src" >full
	run -3 repl-apply R <full
	has "$output" "was not made: Too many links"
	[[ ! -e R/.repl/commit ]]
	names=$(find R -name .repl -prune -o -type f -printf x | wc -c)
	((names > 32 && names < 101))
	cp -a "$src" "$BATS_TEST_TMPDIR/old"
	echo changed >"$src/first"
	repl-diff "$BATS_TEST_TMPDIR/old" "$src" >delta.rpl
	run -3 repl-apply R <delta.rpl
	# None is left of the old content.
	[[ $(find R -name .repl -prune -o -type f -exec sort -u {} +) == changed ]]
	run -0 repl-apply R <delta.rpl
}
