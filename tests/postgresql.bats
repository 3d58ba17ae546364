#!/usr/bin/env bats
# PostgreSQL under load: each image starts on a copy of the replica, recovers, can be read from end to end, and holds every transaction
# that was committed before its instant and none that was begun after it.

load lib/setup

SERVER=$(find /usr/lib/postgresql -path '*/bin/postgres' 2>/dev/null | sort -V | tail -n 1)
SERVER=${SERVER%/postgres}
export SERVER

setup_file() {
	[[ -x $SERVER/initdb ]] || skip "needs PostgreSQL"
	requires root btrfs xfs ext4
	local dir=$BATS_FILE_TMPDIR
	# The server does not run as root, and has to get here.
	while [[ $dir != / ]]; do
		chmod o+x "$dir"
		dir=${dir%/*}
		dir=${dir:-/}
	done
	install -d -o postgres "$BATS_FILE_TMPDIR/fresh"
	as_server "$SERVER/initdb" -D "$BATS_FILE_TMPDIR/fresh/data" -A trust -N >&2
	cat >>"$BATS_FILE_TMPDIR/fresh/data/postgresql.conf" <<-'END'
		listen_addresses = ''
		shared_buffers = 16MB
		max_wal_size = 64MB
		checkpoint_timeout = 30s
		log_min_messages = log
	END
}

setup() {
	common_setup
	chmod o+x "$BATS_TEST_TMPDIR"
	writer='' load='' data='' copies=0
	install -d -o postgres "$BATS_TEST_TMPDIR/sock"
}

teardown() {
	local pid
	for pid in $writer $load; do
		kill "$pid" || :
		wait "$pid" || :
	done
	[[ -z $data ]] || stop "$data"
	[[ ! -e copy/data/postmaster.pid ]] || stop copy/data
	umount -R "$BATS_TEST_TMPDIR"/{wal,db,there/wal,there/db,there} 2>/dev/null || :
	common_teardown
}

as_server() { setpriv --reuid postgres --regid postgres --clear-groups env HOME=/ PGTZ=UTC "$@"; }

# start DIR PORT
start() { as_server "$SERVER/pg_ctl" -w -t 100 -D "$1" -l "$PWD/sock/log.$2" -o "-k $PWD/sock -p $2" start >&2 3>&-; }

stop() {
	[[ ! -e $1/postmaster.pid ]] || kill -CONT "$(head -n 1 "$1/postmaster.pid")" || :
	as_server "$SERVER/pg_ctl" -w -D "$1" -m immediate stop >&2 || :
}

sql() { as_server "$SERVER/psql" -qAtX -h "$PWD/sock" -p "$1" -d postgres -c "$2"; }

# run_on DIR: the server, a load, and a writer of numbered transactions, one after the other; ./journal says of each when it was begun
# and when it was committed.
run_on() {
	data=$1
	start "$data" 5501
	sql 5501 'create table t(n int primary key, filler text)'
	as_server "$SERVER/pgbench" -h "$PWD/sock" -p 5501 -i -s 2 -q postgres >&2
	as_server "$SERVER/pgbench" -h "$PWD/sock" -p 5501 -c 3 -T 10000 -n postgres >/dev/null 2>&1 3>&- &
	load=$!
	# Checkpoints all the time: what is older than the last one cannot be made whole from the log.
	echo 'checkpoint' >checkpoint.sql
	as_server "$SERVER/pgbench" -h "$PWD/sock" -p 5501 -c 1 -T 10000 -n -R 4 -f checkpoint.sql postgres >/dev/null 2>&1 3>&- &
	load+=" $!"
	python3 - "$SERVER/psql" "$PWD/sock" 3>&- <<-'PY' &
		import subprocess, sys, time
		psql = subprocess.Popen(["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", sys.argv[1], "-qAtX",
		                         "-h", sys.argv[2], "-p", "5501", "-d", "postgres"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
		with open("journal", "w") as log:
		    for n in range(1, 10**9):
		        begun = time.time_ns()
		        psql.stdin.write(b"insert into t values(%d, repeat('x', 500)) returning n;\n" % n)
		        psql.stdin.flush()
		        line = psql.stdout.readline()
		        if line.strip() != b"%d" % n:
		            sys.exit("psql said %r" % line)
		        log.write("%d %d %d\n" % (n, begun, time.time_ns()))
		        log.flush()
	PY
	writer=$!
	until_true has_lines 20
}

has_lines() { [[ -e journal ]] && (($(wc -l <journal) > $1)); }

# The image's time, in nanoseconds.
instant() { date -d "$(repl-show -n image | sed -n 's/.* time=\([^ ]*\) .*/\1/p')" +%s%N; }

# opens DIR UNTIL: a server starts on DIR, which is a copy; what was committed before the image's instant is there, what was begun
# after UNTIL is not.
opens() {
	local t0
	rm -f "$1/postmaster.pid"
	start "$1" 5502
	sql 5502 'select min(n), max(n), count(*) from t' >found
	as_server "$SERVER/pg_dumpall" -h "$PWD/sock" -p 5502 >/dev/null
	[[ $(sql 5502 'select (select sum(abalance) from pgbench_accounts) - (select sum(bbalance) from pgbench_branches)') == 0 ]]
	stop "$1"
	t0=$(instant)
	python3 - "$t0" "$2" <<-'PY'
		import sys
		first, last, count = map(int, open("found").read().split("|"))
		assert first == 1 and count == last, (first, last, count)
		for line in open("journal"):
		    if line.endswith("\n"):
		        n, begun, committed = map(int, line.split())
		        assert committed >= int(sys.argv[1]) or n <= last, ("lost", n, last)
		        assert begun <= int(sys.argv[2]) or n > last, ("not yet begun", n, last)
	PY
	copies=$((copies + 1))
}

# take REPL-SNAP-ARGUMENT...: one image, onto R. Sets until.
take() {
	repl-snap -s S "$@" >image
	until=$(date +%s%N)
	until_true has_lines "$(($(wc -l <journal) + 5))"
	repl-track -s S <image | repl-diff -s S | repl-apply R | repl-snap -s S --commit
}

# opens_tree: R is the directory of a server.
opens_tree() {
	rm -rf copy
	mkdir copy
	cp -a R copy/data
	rm -rf copy/data/.repl
	opens copy/data "$until"
}

# by_checkpoint: the option that has the server write down what it has in memory first.
by_checkpoint() {
	echo "--quiesce=setpriv --reuid postgres --clear-groups --regid postgres $SERVER/psql -qX -h $PWD/sock -p 5501 -d postgres -c checkpoint"
}

# images COMMAND ARGUMENT...: so many in a row, a moment between them.
images() {
	local i
	for ((i = 0; i < ${REPL_RUNS:-$(samples 6)}; i++)); do
		"$@"
		sleep 1
	done
	echo "# $copies images of $(wc -l <journal) transactions" >&3
}

@test "btrfs, by its snapshots: as after a crash" {
	fs=$(mk_fs btrfs 1500M)
	btrfs -q subvolume create "$fs/db"
	cp -a "$BATS_FILE_TMPDIR/fresh/data" "$fs/db/"
	run_on "$fs/db/data"
	one() {
		take "$fs/db"
		has "$(repl-show -n image)" "consistency=crash"
		rm -rf copy
		cp -a R copy
		opens copy/data "$until"
	}
	images one
}

# bats test_tags=long
@test "btrfs, quiesced by a checkpoint" {
	fs=$(mk_fs btrfs 1500M)
	btrfs -q subvolume create "$fs/db"
	cp -a "$BATS_FILE_TMPDIR/fresh/data" "$fs/db/"
	run_on "$fs/db/data"
	one() {
		take "$(by_checkpoint)" "$fs/db"
		has "$(repl-show -n image)" "consistency=app"
		rm -rf copy
		cp -a R copy
		opens copy/data "$until"
	}
	images one
}

# bats test_tags=long
@test "XFS, a tree of clones, while all its processes stand still" {
	fs=$(mk_fs xfs 1500M -m reflink=1)
	cp -a "$BATS_FILE_TMPDIR/fresh/data" "$fs/"
	run_on "$fs/data"
	# The first process makes the others: after it no new ones come.
	cat >still <<-END
		pm=\$(head -n 1 $fs/data/postmaster.pid)
		kill -\$1 \$pm
		kill -\$1 \$(pgrep -P \$pm)
	END
	one() {
		take --provider=reflink --quiesce="sh still STOP" --resume="sh still CONT" "$fs/data"
		opens_tree
	}
	images one
}

# in_a_volume TYPE CONSISTENCY REPL-SNAP-OPTION...
in_a_volume() {
	local type=$1 consistency=$2
	shift 2
	fs=$(mk_fs xfs 1500M -m reflink=1)
	truncate -s 600M "$fs/img"
	"mkfs.$type" -q "$fs/img"
	mkdir db there
	mount -o loop "$fs/img" db
	cp -a "$BATS_FILE_TMPDIR/fresh/data" db/
	run_on "$PWD/db/data"
	one() {
		take --freeze "$@" v="$fs/img"
		has "$(repl-show -n image)" "consistency=$consistency"
		cp --sparse=always R/v v
		[[ $type != ext4 ]] || e2fsck -fn v >&2
		[[ $type == xfs ]] && options=loop,nouuid || options=loop # beside its original
		mount -o "$options" v there
		opens there/data "$until"
		umount there
		[[ $type != xfs ]] || xfs_repair -n v >&2 2>&1
	}
	images one "$@"
}

# bats test_tags=long
@test "ext4 in a volume that is cloned while it is frozen" { in_a_volume ext4 crash; }
# bats test_tags=long
@test "XFS in a volume that is cloned while it is frozen" { in_a_volume xfs crash; }
# bats test_tags=long
@test "ext4 in a volume, quiesced by a checkpoint" { in_a_volume ext4 app "$(by_checkpoint)"; }
# bats test_tags=long
@test "XFS in a volume, quiesced by a checkpoint" { in_a_volume xfs app "$(by_checkpoint)"; }

# bats test_tags=long
@test "data and log, trees of one group on two filesystems, land on two others" {
	local one two three four
	one=$(mk_fs btrfs 1500M)
	two=$(mk_fs btrfs 1000M)
	three=$(mk_fs ext4 1500M)
	four=$(mk_fs xfs 1000M)
	btrfs -q subvolume create "$one/db"
	btrfs -q subvolume create "$two/wal"
	cp -a "$BATS_FILE_TMPDIR/fresh/data" "$one/db/"
	mv "$one/db/data/pg_wal" "$two/wal/"
	ln -s "$two/wal/pg_wal" "$one/db/data/pg_wal"
	run_on "$one/db/data"
	cat >still <<-END
		pm=\$(head -n 1 $one/db/data/postmaster.pid)
		kill -\$1 \$pm
		kill -\$1 \$(pgrep -P \$pm)
	END
	one_of_both() {
		repl-snap -s S --quiesce="sh still STOP" --resume="sh still CONT" db="$one/db" wal="$two/wal" >image
		until=$(date +%s%N)
		has "$(repl-show -n image)" "consistency=app" "provider=btrfs"
		until_true has_lines "$(($(wc -l <journal) + 5))"
		repl-track -s S <image | repl-diff -s S | repl-apply --where "db=$three" --where "wal=$four/wal/" R | repl-snap -s S --commit
		rm -rf copy
		cp -a R/db/. copy
		rm copy/data/pg_wal
		cp -a R/wal/pg_wal copy/data/
		opens copy/data "$until"
	}
	images one_of_both
	run -0 repl-apply --verify R
}

@test "data on ext4 and its log on XFS, two volumes in one group" {
	fs=$(mk_fs xfs 2500M -m reflink=1)
	truncate -s 600M "$fs/data.img"
	truncate -s 600M "$fs/wal.img"
	mkfs.ext4 -q "$fs/data.img"
	mkfs.xfs -q "$fs/wal.img"
	mkdir db wal there
	mount -o loop "$fs/data.img" db
	mount -o loop "$fs/wal.img" wal
	cp -a "$BATS_FILE_TMPDIR/fresh/data" db/
	mv db/data/pg_wal wal/
	ln -s "$PWD/wal/pg_wal" db/data/pg_wal
	run_on "$PWD/db/data"
	one() {
		take --freeze data="$fs/data.img" wal="$fs/wal.img"
		has "$(repl-show -n image)" "consistency=crash"
		cp --sparse=always R/data data.img
		cp --sparse=always R/wal wal.img
		mkdir -p there/db there/wal
		mount -o loop data.img there/db
		mount -o loop,nouuid wal.img there/wal
		rm there/db/data/pg_wal
		ln -s "$PWD/there/wal/pg_wal" there/db/data/pg_wal
		opens there/db/data "$until"
		umount there/db there/wal
	}
	images one
}
