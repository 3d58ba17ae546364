#!/usr/bin/env bats
# A database in use: what lands on the replica opens, and holds every transaction that was committed before the image's instant, and
# none that was begun after it. SQLite, with a log that is written ahead.

load lib/setup

setup() {
	common_setup
	requires root btrfs xfs ext4
	writer=
}

teardown() {
	if [[ $writer ]]; then
		kill "$writer" || :
		wait "$writer" || :
	fi
	umount "$BATS_TEST_TMPDIR/db" "$BATS_TEST_TMPDIR/there" 2>/dev/null || :
	common_teardown
}

# write_on DIR: numbered transactions, one after the other; ./journal says of each when it was begun and when it was committed.
write_on() {
	python3 - "$1/data" journal 3>&- <<-'PY' &
		import sqlite3, sys, time
		db = sqlite3.connect(sys.argv[1], isolation_level=None)
		db.execute("pragma journal_mode=wal")
		db.execute("create table if not exists t(n integer primary key, filler blob)")
		with open(sys.argv[2], "w") as log:
		    n = 0
		    while True:
		        n += 1
		        begun = time.time_ns()
		        db.execute("begin immediate")
		        db.execute("insert into t values(?, randomblob(3000))", (n,))
		        db.execute("delete from t where n = ?", (n - 300,))
		        db.execute("commit")
		        log.write("%d %d %d\n" % (n, begun, time.time_ns()))
		        log.flush()
		        time.sleep(0.002)
	PY
	writer=$!
	until_true has_lines 20
}

has_lines() { [[ -e journal ]] && (($(wc -l <journal) > $1)); }

# holds DIR FROM UNTIL: the database in DIR is whole; what was committed before FROM is in it, what was begun after UNTIL is not.
holds() {
	python3 - "$@" <<-'PY'
		import sqlite3, sys
		db = sqlite3.connect(sys.argv[1] + "/data")
		assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
		first, last, count = db.execute("select min(n), max(n), count(*) from t").fetchone()
		assert count == last - first + 1, (first, last, count)
		for line in open("journal"):
		    if line.endswith("\n"):
		        n, begun, committed = map(int, line.split())
		        assert committed >= int(sys.argv[2]) or n <= last, ("lost", n, last)
		        assert begun <= int(sys.argv[3]) or n > last, ("not yet begun", n, last)
	PY
}

# The image's time, in nanoseconds.
instant() {
	local t
	t=$(repl-show -n image | sed -n 's/.* time=\([^ ]*\) .*/\1/p')
	date -d "$t" +%s%N
}

@test "on btrfs, by its snapshots: nothing has to hold still" {
	fs=$(mk_fs btrfs 400M)
	btrfs -q subvolume create "$fs/db"
	write_on "$fs/db"
	last=$(samples 12)
	((last >= 3)) || last=3 # an image that has two behind it
	for ((n = 1; n <= last; n++)); do
		repl-snap -s S "$fs/db" >image
		until=$(date +%s%N)
		until_true has_lines "$(($(wc -l <journal) + 5))"
		repl-track -s S <image | repl-diff -s S | repl-apply R | repl-snap -s S --commit
		has "$(repl-show -n image)" "consistency=crash"
		cp -r R "copy$n"
		cp -r R open # opening it writes to it
		holds open "$(instant)" "$until"
		rm -r open
	done
	# Earlier ones, too.
	repl-apply --at=-2 --into earlier R
	cmp earlier/data "copy$((last - 2))/data"
}

# in_a_volume TYPE REPL-SNAP-OPTION...
in_a_volume() {
	local type=$1 options=loop
	shift
	[[ $type != xfs ]] || options=loop,nouuid # beside its original
	fs=$(mk_fs xfs 900M -m reflink=1)
	truncate -s 320M "$fs/img"
	"mkfs.$type" -q "$fs/img"
	mkdir db there
	mount -o loop "$fs/img" db
	write_on db
	for ((n = 0; n < $(samples 9); n++)); do
		repl-snap -s S --freeze "$@" v="$fs/img" >image
		until=$(date +%s%N)
		until_true has_lines "$(($(wc -l <journal) + 5))"
		repl-track -s S <image | repl-diff -s S | repl-apply R | repl-snap -s S --commit
		cp --sparse=always R/v v
		[[ $type != ext4 ]] || e2fsck -fn v >&2
		mount -o "$options" v there
		holds there "$(instant)" "$until"
		umount there
	done
}

@test "on ext4 in a volume, by a clone of that while it is frozen" { in_a_volume ext4; }

# bats test_tags=long
@test "on XFS in a volume, by a clone of that while it is frozen" { in_a_volume xfs; }

# bats test_tags=long
@test "on ext4 in a volume, quiesced by a checkpoint" {
	in_a_volume ext4 --quiesce="python3 -c 'import sqlite3; sqlite3.connect(\"$PWD/db/data\", timeout=20).execute(\"pragma wal_checkpoint(full)\")'"
	has "$(repl-show -n image)" "consistency=app"
}

# bats test_tags=long
@test "on XFS, a tree of clones, while the writer stands still" {
	fs=$(mk_fs xfs 600M -m reflink=1)
	mkdir "$fs/db"
	write_on "$fs/db"
	for ((n = 0; n < $(samples 9); n++)); do
		repl-snap -s S --provider=reflink --quiesce="kill -STOP $writer" --resume="kill -CONT $writer" "$fs/db" >image
		until=$(date +%s%N)
		has "$(repl-show -n image)" "consistency=app"
		until_true has_lines "$(($(wc -l <journal) + 5))"
		repl-track -s S <image | repl-diff -s S | repl-apply R | repl-snap -s S --commit
		rm -rf open
		cp -r R open
		holds open "$(instant)" "$until"
	done
}
