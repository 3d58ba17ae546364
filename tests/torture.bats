#!/usr/bin/env bats
# Writers change a tree in all ways at once; what a recorder lists for each image must leave nothing out. The short form of
# "make track-torture". Judged by the trees alone: steps are counted, nothing is timed.

load lib/setup
export REPL_LEAKS=0

# torture TYPE SOURCE
torture() {
	requires "$1"
	local fs steps
	steps=$(samples 240)
	fs=$(mk_fs "$1" 300M)
	run -0 python3 "$repl_root/tests/lib/torture-cuts" --dir="$fs" --work="$PWD/work" --source="$2" --writers=4 --burst="$steps" \
		--storm="$steps" --rounds=3 --quiet
	has "$output" " 0 missed"
	echo "# $1, $2: ${lines[-1]}" >&3
}

@test "torture: ext4, a mark for the filesystem" { torture ext4 fanotify; }
@test "torture: XFS, marks for directories" { torture xfs fanotify-dirs; }
@test "torture: btrfs" { torture btrfs fanotify; }
@test "torture: inotify" { torture ext4 inotify; }
