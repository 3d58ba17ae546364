#!/usr/bin/env bats
# repl-apply is stopped everywhere: by kill, by power cuts, by errors of every call, by full disks; and the replica is always the old
# image or the new one. "make crash" sets REPL_CRASH=all: every call, and hundreds of power cuts; a check takes samples,
# always the same. What was tried is printed, as a comment in the TAP stream.

load lib/setup

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
	local points=$1
	shift
	[[ $REPL_BUILD != *san ]] || points=$(((points + 2) / 3))
	[[ ${REPL_CRASH:-} == all ]] || set -- --points "$points" "$@"
	run -0 crash "$@"
	printf '# %s\n' "$output" >&3
	has "$output" ", 0 lost"
}

@test "killed at any call, the same command or a recovery finishes or discards, on ext4" { stopped 40 kill ext4 small; }
@test "killed at any call, with a private catalog, on ext4" { stopped 30 kill ext4 big; }
@test "killed at any call, where extents are shared, on XFS" { stopped 20 kill xfs small; }
@test "killed at any call, with a private catalog, on XFS" { stopped 20 kill xfs big; }
@test "killed at any call, on btrfs" { stopped 10 kill btrfs small; }
@test "killed at any call, with a private catalog, on btrfs" { stopped 10 kill btrfs big; }

@test "a power cut at any instant, on ext4" { stopped 30 power ext4 small; }
@test "a power cut at any instant, with a private catalog, on ext4" { stopped 20 power ext4 big; }
@test "a power cut at any instant, on XFS" { stopped 15 power xfs small; }
@test "a power cut at any instant, with a private catalog, on XFS" { stopped 15 power xfs big; }
@test "a power cut at any instant, on btrfs" { stopped 10 power btrfs small; }
@test "a power cut at any instant, with a private catalog, on btrfs" { stopped 10 power btrfs big; }

@test "an error of any call changes nothing before the decision and can be repeated after it, on ext4" { stopped 60 fail ext4 small; }
@test "an error of any call, with a private catalog, on ext4" { stopped 40 fail ext4 big; }
@test "an error of any call, where extents are shared, on XFS" { stopped 40 fail xfs big; }
@test "an error of any call, on btrfs" { stopped 20 fail btrfs small; }

@test "a full disk changes nothing, gives back what it took, and is no obstacle later, on ext4" { stopped 10 full ext4 big; }
@test "a full disk, on XFS" { stopped 5 full xfs big; }
@test "a full disk, on btrfs" { stopped 5 full btrfs big; }
