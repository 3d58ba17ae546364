#!/usr/bin/env bats
# What a file shares with the base's content is not read, and the image is the same as if it had been: against whole reads, on
# XFS and btrfs, with everything that makes an address prove nothing.

# Streams have names that shellcheck takes for those of commands.
# shellcheck disable=SC2238

load lib/setup
export REPL_LEAKS=0

# The pipeline once; $read: what repl-diff read of how much. The replica and the image must be what reading everything gives.
ship() {
	run_pipe "repl-snap -s state src | repl-track -s state | repl-diff -v -s state --clones=${clones:-64K} 2>said >delta &&
		repl-apply replica <delta 2>/dev/null | repl-snap -s state --commit" || fail "$(cat said)"
	read=$(sed -n 's/^repl-diff: read \([0-9]*\) of .*/\1/p' said)
	read=${read:-0}
	same_tree src replica
	[[ $(base_id) == "$(whole_id src)" ]] || fail "the image is not what a whole read gives"
}

base_id() {
	repl-snap -s state --list --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["base"]["id"])'
}

whole_id() {
	repl-snap --digest "$1" | repl-show --json | python3 -c 'import json,sys
for line in sys.stdin:
    r = json.loads(line)
    if r.get("record") == "end": print(r["id"])'
}

# least N, most N: bounds of what was read.
most() { ((read <= $1)) || fail "$read bytes were read, at most $1 had to be: $(cat said)"; }
least() { ((read >= $1)) || fail "$read bytes were read, at least $1 have to be: $(cat said)"; }

poke() { # FILE OFFSET [LENGTH]
	head -c "${3:-4096}" /dev/urandom | dd of="$1" bs=1M seek="$2" oflag=seek_bytes conv=notrunc status=none
}

noise() { head -c "$1" /dev/urandom; }

text() { yes 'the same line over and over again' | head -c "$1"; }

clones() { find src -path '*/.repl/clones/*' -type f ! -name rows | sort; }

begin() { # TYPE
	requires root "$1"
	cd "$(MOUNT_OPTIONS=${MOUNT_OPTIONS:-} mk_fs "$1" 400M "${@:2}")" || return
	mkdir src
}

each_filesystem() { # COMMAND...: on all of them, each in its own folder; a check takes XFS and, test by test, one of the others
	requires root xfs btrfs
	local home=$PWD fs others=(btrfs "btrfs,compress-force=zstd" "btrfs,nodatacow")
	((${REPL_LONG:-0})) || others=("${others[BATS_TEST_NUMBER % 3]}")
	for fs in xfs "${others[@]}"; do
		cd "$home" || return
		echo "# on $fs"
		if [[ $fs == *,* ]]; then
			MOUNT_OPTIONS=${fs#*,} begin "${fs%,*}"
		else
			begin "$fs"
		fi
		"$@" || fail "on $fs"
	done
}

@test "of a changed file only what changed is read and sent" {
	changed() {
		noise 8M >src/noise
		text 8M >src/text
		ship
		least $((16 << 20))
		poke src/noise 40960
		poke src/text 4096000
		ship
		most 65536
		(($(stat -c %s delta) < 20000)) || fail "the delta has $(stat -c %s delta) bytes"
		ship
		[[ $read == 0 ]]
	}
	each_filesystem changed
}

@test "a random history is exact at each step, on XFS" { storm xfs; }
@test "a random history is exact at each step, on XFS with blocks of 1 KiB" { storm xfs -b size=1k; }
@test "a random history is exact at each step, on btrfs" { storm btrfs; }
@test "a random history is exact at each step, on btrfs with compression" { MOUNT_OPTIONS=compress=zstd storm btrfs; }
@test "a random history is exact at each step, on btrfs without copy on write" { MOUNT_OPTIONS=nodatacow storm btrfs; }

storm() {
	begin "$@"
	local seed=${REPL_SEED:-$RANDOM$RANDOM} i steps=${REPL_STEPS:-$(samples 18)}
	echo "# seed $seed"
	for ((i = 0; i < steps; i++)); do
		"$repl_root/tests/lib/region-ops" "$seed.$i" $((i == 0 ? 1 : 12)) src >ops || fail "seed $seed, step $i: $(cat ops)"
		ship || fail "seed $seed, step $i: $(cat ops)"
	done
}

# ---- what an address does not prove, or does ----

@test "holes, preallocated blocks and unaligned tails are exact, and cost no reading while they stay" {
	sparse() {
		truncate -s 30M src/holes
		poke src/holes $((20 << 20))
		fallocate -l 8M src/unwritten
		noise $((6 * 1024 * 1024 + 123)) >src/tail
		ship
		# A hole that is filled and data that becomes one, preallocated blocks that are written and such that come anew.
		poke src/holes $((10 << 20))
		fallocate -p -o $((20 << 20)) -l 4096 src/holes
		poke src/unwritten $((4 << 20)) 100
		fallocate -z -o $((2 << 20)) -l 65536 src/tail
		ship
		most $((1 << 20))
		# The tail: longer inside its block, longer beyond it, shorter inside it, shorter by many.
		local size
		for size in +10 +100000 -7 -3000000; do
			truncate -s "$size" src/tail
			[[ $size != +* ]] || noise "${size#+}" | dd of=src/tail conv=notrunc oflag=append,seek_bytes seek=0 status=none
			ship
			most $((1 << 20))
		done
		# A shorter file that grows again: what was cut off must not come back.
		truncate -s 2M src/tail
		truncate -s 4M src/tail
		ship
	}
	each_filesystem sparse
}

@test "what was written but is not on the disk yet is read" {
	delayed() {
		noise 4M >src/a
		ship
		# Nothing between the write and the image but what repl-snap does by itself.
		poke src/a 8192
		poke src/a $((4 << 20)) 100000
		ship
		most 300000
	}
	each_filesystem delayed
}

@test "compressed extents prove what they hold to who may search the trees, else nothing" {
	MOUNT_OPTIONS=compress-force=zstd begin btrfs
	text 8M >src/a
	ship
	poke src/a $((3 << 20))
	ship
	most 65536
	poke src/a $((5 << 20))
	# shellcheck disable=SC2317
	repl-diff() { setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin "$REPL_BUILD/repl-diff" "$@"; }
	export -f repl-diff
	ship
	# The page that was poked before is noise, which btrfs does not keep compressed.
	least $(((8 << 20) - 4096))
}

@test "without the right to search the trees, maps serve for what is not compressed" {
	begin btrfs
	noise 8M >src/a
	ship
	poke src/a $((5 << 20))
	# shellcheck disable=SC2317
	repl-diff() { setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin "$REPL_BUILD/repl-diff" "$@"; }
	export -f repl-diff
	ship
	most 65536
}

@test "what was moved on the disk meanwhile is read, and equal" {
	begin btrfs
	noise 4M >src/a
	text 4M >src/b
	for i in {0..60}; do poke src/a $((i * 65536)); done
	ship
	btrfs filesystem defragment -f -czlib src/a src/b
	touch src/a src/b
	ship
	(($(stat -c %s delta) < 10000)) || fail "the delta has $(stat -c %s delta) bytes"
	btrfs balance start --full-balance "$PWD" >/dev/null
	poke src/a 4096
	poke src/b 4096
	ship
	(($(stat -c %s delta) < 20000)) || fail "the delta has $(stat -c %s delta) bytes"
}

@test "equal files that were made one on the disk stay equal" {
	one() {
		noise 2M >src/a
		cp --reflink=never src/a src/b
		ship
		dedupe src/a src/b
		touch src/b
		ship
		poke src/b 40960
		ship
		most 65536
	}
	dedupe() {
		python3 - "$@" <<-'PY'
			import fcntl, os, struct, sys
			a, b = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_RDWR)
			arg = bytearray(struct.pack("QQHHI", 0, 2 << 20, 1, 0, 0) + struct.pack("qQQiI", b, 0, 0, 0, 0))
			fcntl.ioctl(a, 0xC0189436, arg)
			assert struct.unpack_from("Qi", arg, 40)[0] > 0, "nothing was shared"
		PY
	}
	each_filesystem one
}

@test "blocks that are written again and again on a full disk are never taken for those of the base" {
	again() {
		noise 60M >src/a
		ship
		noise 400M >fill 2>/dev/null || :
		rm replica/.repl/history -rf
		truncate -s -40M fill
		local i
		for i in 1 2 3; do
			noise 20M | dd of=src/a bs=1M conv=notrunc,fsync status=none
			noise 20M | dd of=src/a bs=1M conv=notrunc,fsync status=none
			ship
			rm replica/.repl/history -rf
		done
	}
	requires root xfs
	begin xfs
	again
}

@test "a file on a realtime device proves nothing" {
	requires root xfs
	local rt
	truncate -s 400M rt.img
	rt=$(losetup --find --show rt.img)
	truncate -s 400M data.img
	mkfs.xfs -q -f -m reflink=0 -d rtinherit=1 -r rtdev="$rt" data.img || { losetup -d "$rt"; skip "no realtime device here"; }
	mkdir m
	mount -o loop,rtdev="$rt" data.img m || { losetup -d "$rt"; skip "no realtime device here"; }
	losetup -d "$rt" # once it is unmounted
	echo "$PWD/m" >>"$(undo_dir)/.mounts"
	cd m
	mkdir src
	noise 2M >src/a
	ship
	poke src/a 8192
	ship
	least $((2 << 20))
	has "$(cat said)" "clones of 0 files"
}

# ---- the clones ----

@test "a clone that was written to, or is gone, costs reading and nothing else" {
	distrust() {
		noise 4M >src/a
		ship
		poke "$(clones)" 8192
		poke src/a 40960
		ship
		least $((4 << 20))
		rm "$(clones)"
		poke src/a 8192
		ship
		least $((4 << 20))
		printf x >>"$(dirname "$(clones)")/rows"
		poke src/a 8192
		ship
		least $((4 << 20))
		poke src/a 8192
		ship
		most 65536
	}
	each_filesystem distrust
}

@test "clones of another start of the machine count once they were synced" {
	begin xfs
	noise 2M >src/a
	noise 2M >src/b
	sleep 0.1 # what was written just before an image is looked at, and cloned, in the next one as well
	ship
	poke src/a 8192
	ship
	# Rows say when they were made; another boot is as good as a changed one. The sum at the end covers it.
	umount -l /proc/sys/kernel/random/boot_id 2>/dev/null || :
	echo 01234567-89ab-cdef-0123-456789abcdef >boot
	mount --bind boot /proc/sys/kernel/random/boot_id
	poke src/a 8192
	poke src/b 8192
	ship || { umount /proc/sys/kernel/random/boot_id; false; }
	umount /proc/sys/kernel/random/boot_id
	least $((2 << 20))
	most $((2 << 20 | 1 << 20))
}

@test "clones go when nothing needs them" {
	begin xfs
	noise 1M >src/a
	noise 1M >src/b
	noise 1M >src/c
	before=$(stat -c %y src)
	ship
	[[ $(stat -c %y src) == "$before" ]]
	[[ $(stat -c %a src/.repl/clones) == 700 ]]
	[[ $(clones | wc -l) == 3 ]]
	rm src/a
	poke src/b 4096
	ship
	[[ $(clones | wc -l) == 2 ]]
	# An image that nobody acknowledges: its clones stand beside the base's until the next image, or until it is forgotten.
	poke src/b 4096
	pending() {
		repl-snap -s state src | repl-track -s state | repl-diff -s state --clones=64K >delta
	}
	pending
	[[ $(clones | wc -l) == 3 ]]
	poke src/b 4096
	pending
	[[ $(clones | wc -l) == 3 ]]
	repl-snap -s state --abort
	[[ $(clones | wc -l) == 2 ]]
	pending
	repl-apply replica <delta 2>/dev/null | repl-snap -s state --commit
	[[ $(clones | wc -l) == 2 ]]
	same_tree src replica
	rm src/b src/c
	ship
	[[ ! -e src/.repl/clones ]]
}

@test "clones of a member that is no longer in the image go" {
	begin xfs
	mkdir src/one src/two
	noise 1M >src/one/a
	noise 1M >src/two/a
	run_pipe "repl-snap -s state src/one src/two | repl-diff -s state --clones=64K | repl-apply replica | repl-snap -s state --commit"
	[[ -d src/one/.repl/clones && -d src/two/.repl/clones ]]
	run_pipe "repl-snap -s state one=src/one | repl-diff -s state --clones=64K | repl-apply replica | repl-snap -s state --commit"
	[[ -d src/one/.repl/clones && ! -e src/two/.repl/clones ]]
}

@test "without clones everything is read, quietly: never, ext4, a root that is read-only, a full disk" {
	requires root ext4 xfs
	begin xfs
	noise 2M >src/a
	clones=never ship
	[[ ! -e src/.repl ]]
	poke src/a 4096
	clones=never ship
	least $((2 << 20))
	home=$PWD
	cd ..
	begin ext4
	noise 2M >src/a
	ship
	poke src/a 4096
	ship
	least $((2 << 20))
	has "$(cat said)" "clones of 0 files are kept (extents cannot be shared: Operation not supported)"
	[[ ! -e src/.repl ]]
	cd "$home"
	mkdir ../outside
	mount --bind src src
	mount -o remount,bind,ro src
	run_pipe "repl-snap -s ../outside/state src | repl-diff -v -s ../outside/state --clones=64K 2>said | repl-apply ../outside/replica"
	umount src
	has "$(cat said)" "Read-only file system"
	same_tree src ../outside/replica
	noise 400M >fill 2>/dev/null || :
	head -c 100M /dev/zero >>fill 2>/dev/null || :
	run_pipe "repl-snap -s ../outside/full src | repl-diff -v -s ../outside/full --clones=64K 2>said >../outside/delta"
	repl-apply ../outside/other <../outside/delta
	same_tree src ../outside/other
}

@test "a directory that is not ours, or open to others, is not used" {
	begin xfs
	noise 1M >src/a
	mkdir -m 777 src/.repl
	ship
	has "$(cat said)" "clones of 0 files are kept (a directory cannot be made in the root: Operation not permitted)"
	chmod 700 src/.repl
	chown 1 src/.repl
	repl-snap -s state --abort
	poke src/a 0
	ship
	has "$(cat said)" "clones of 0 files"
	[[ ! -e src/.repl/clones ]]
}

@test "a large file that is written all the time is of one instant" {
	requires root xfs btrfs
	torn() {
		cat >writer <<-'PY'
			import os, sys
			fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
			n = 0
			while True:
			    n += 1
			    os.pwrite(fd, (b"%07d\n" % n) * (4 << 17), 0)
			    if n == 2: open("ready", "w").close()
		PY
		python3 writer src/a 3>&- &
		until [[ -e ready ]]; do kill -0 $!; done
		for _ in 1 2 3 4; do
			run_pipe "repl-snap -s state src | repl-track -s state | repl-diff -s state --clones=64K |
				repl-apply replica 2>/dev/null | repl-snap -s state --commit" || { kill $!; false; }
			[[ $(sort -u replica/a | wc -l) == 1 ]] || { kill $!; fail "torn: $(sort -u replica/a | head)"; }
		done
		kill $!
		wait $! || :
		ship
	}
	local fs home=$PWD
	for fs in xfs btrfs; do
		cd "$home"
		begin $fs
		torn
	done
}

@test "killed at any call, repl-diff leaves no clone that is used wrongly, and none for good" {
	begin xfs
	cut=$REPL_BUILD/tests/lib/cut
	noise 1M >src/a
	text 1M >src/b
	ship
	poke src/a 4096
	poke src/b 8192
	repl-snap -s state src >image
	cp -a state state.before
	repl-track -s state <image >changes
	"$cut" trace calls "$REPL_BUILD/repl-diff" -s state --clones=64K <changes >delta
	n=$(wc -l <calls)
	echo "# $n calls"
	step=$((n / $(samples 18) + 1))
	for ((k = 1; k <= n; k += step)); do
		rm -rf state && cp -a state.before state
		run -137 bash -c "'$cut' kill $k '$REPL_BUILD/repl-diff' -s state --clones=64K <changes >delta"
		# Other content than the clones that may be there have.
		poke src/a $((k % 200 * 4096))
		ship
		[[ $(clones | wc -l) == 2 ]] || fail "killed at call $k: $(clones)"
		rm -rf state.before
		poke src/a 4096
		poke src/b 8192
		repl-snap -s state src >image
		cp -a state state.before
		repl-track -s state <image >changes
	done
}

# ---- the table ----

@test "repl-track --regions names the blocks that may have changed, and nothing else" {
	table() {
		noise 1M >src/a
		noise 1M >src/other
		ship
		poke src/a 8192
		poke src/a 409600 8192
		fallocate -p -o 40960 -l 4096 src/a
		poke src/other 0
		repl-snap -s state src | repl-track -v -s state --regions 2>said >changes
		has "$(cat said)" "2 files have a table of their regions, with 5 blocks that may have changed"
		repl-show changes >text
		grep -A1 "name='a'" text | tail -n 1 | sed 's/@[0-9]*//g' >row
		[[ $(cat row) == "region file="*" grain=4096 rows=2:$1,10:zeros,100:$1,101:$1" ]] || fail "$(cat row)"
		repl-show --json changes | python3 -c 'import json,sys
rows = [r for line in sys.stdin if (r := json.loads(line))["record"] == "region"]
assert len(rows) == 2 and [b[0] for b in rows[1]["rows"]] == [0], rows'
		"$repl_root/tests/lib/repl-stream-reader" changes >read
		diff read <(repl-show --json changes)
		# It changes nothing for who reads the stream.
		repl-diff -s state --clones=64K <changes | repl-apply replica | repl-snap -s state --commit
		same_tree src replica
	}
	local home=$PWD
	requires root xfs btrfs
	begin xfs
	table changed
	cd "$home"
	begin btrfs
	table changed
	cd "$home"
	MOUNT_OPTIONS=compress-force=zstd begin btrfs
	text 1M >src/a
	ship
	text 65536 | tr a b | dd of=src/a bs=4096 seek=16 conv=notrunc status=none
	repl-snap -s state src | repl-track -s state --regions >changes
	run -0 repl-show changes
	has "$output" "rows=16@0:unknown,17@0:unknown"
}
