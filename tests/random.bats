#!/usr/bin/env bats
# Random trees, random changes: each step is a delta, and the replica must be the source exactly. The seed is printed. A check takes
# one seed, always the same; REPL_SEED=$RANDOM REPL_RUNS=50 make bats T=tests/random.bats looks further.

load lib/setup
export REPL_LEAKS=0

many() { # TYPE MODE
	local fs seed i
	requires root "$1"
	fs=$(mk_fs "$1" 400M)
	for ((i = 0; i < ${REPL_RUNS:-$(samples 2)}; i++)); do
		seed=$((${REPL_SEED:-1} + i))
		mkdir "$fs/$i"
		"$repl_root/tests/lib/random-trees" --dir "$fs/$i" --seed "$seed" --steps "$(samples 18)" --mode "$2"
		rm -rf "${fs:?}/$i"
	done
}

@test "random changes arrive exactly, with a state, on ext4" { many ext4 state; }
# bats test_tags=slow
@test "random changes arrive exactly, with a state, on XFS" { many xfs state; }
# bats test_tags=slow
@test "random changes arrive exactly, with a state, on btrfs" { many btrfs state; }
# bats test_tags=slow
@test "random changes arrive exactly, without a state, on ext4" { many ext4 stateless; }
# bats test_tags=slow
@test "random changes arrive exactly, without a state, on btrfs" { many btrfs stateless; }

@test "a replica that is changed at random, too, can always be mended" { REPL_RUNS=${REPL_RUNS:-3} many ext4 edited; }

# bats test_tags=slow
@test "random changes of a group arrive exactly, its trees on three filesystems" {
	local seed one two fs
	requires root ext4 xfs
	fs=$(mk_fs ext4 400M)
	one=$(mk_fs ext4 200M)
	two=$(mk_fs xfs 400M)
	for ((seed = ${REPL_SEED:-1}; seed < ${REPL_SEED:-1} + ${REPL_RUNS:-$(samples 2)}; seed++)); do
		mkdir "$fs/$seed"
		"$repl_root/tests/lib/random-trees" --dir "$fs/$seed" --seed "$seed" --steps "$(samples 18)" --mode group \
			--place "a=$one/$seed/" --place "b=$two/$seed/"
		rm -rf "${fs:?}/$seed" "${one:?}/$seed" "${two:?}/$seed"
	done
}

# bats test_tags=slow
@test "images of files that are written all the time" {
	local fs type
	for type in ext4 ${REPL_LONG:+xfs btrfs}; do
		requires root "$type"
		fs=$(mk_fs "$type" 1G)
		"$repl_root/tests/lib/restless" --dir "$fs" --seed "${REPL_SEED:-1}" --rounds "$(samples 24)"
	done
}

@test "a renamed directory is one record, by inode and by content" {
	mkdir -p src/lib/deep
	for i in {1..300}; do echo "file $i" >src/lib/deep/"$i"; done
	head -c 3000000 /dev/urandom >src/lib/deep/big
	go="repl-snap -s S src | repl-track -s S | repl-diff -s S | tee delta | repl-apply R | repl-snap -s S --commit"
	run_pipe "$go"
	cp -a src old
	mv src/lib/deep src/elsewhere
	run_pipe "$go"
	same_tree src R
	(($(stat -c %s delta) < 2000)) || fail "with a state the rename cost $(stat -c %s delta) bytes"
	repl-diff old src >delta2
	(($(stat -c %s delta2) < 2000)) || fail "by content the rename cost $(stat -c %s delta2) bytes"
	[[ $(repl-show delta2 | grep -c ^attach) == 1 ]]
}

@test "an insertion at the front of 64 MiB costs a few KiB" {
	mkdir src
	head -c 64M /dev/urandom >src/f
	go="repl-snap -s S src | repl-track -s S | repl-diff -s S | tee delta | repl-apply R | repl-snap -s S --commit"
	run_pipe "$go"
	{ echo 123456789; cat src/f; } >src/g
	mv src/g src/f
	run_pipe "$go"
	same_tree src R
	(($(stat -c %s delta) < 65536)) || fail "it cost $(stat -c %s delta) bytes"
}

@test "content that moved between files is copied, not sent" {
	mkdir src
	head -c 4M /dev/urandom >src/a
	head -c 4M /dev/urandom >src/b
	go="repl-snap -s S src | repl-track -s S | repl-diff -s S | tee delta | repl-apply R | repl-snap -s S --commit"
	run_pipe "$go"
	{ head -c 1000 /dev/urandom; tail -c 2M src/b; head -c 1M src/a; } >src/c
	head -c 2M src/b >src/b2 && mv src/b2 src/b
	run_pipe "$go"
	same_tree src R
	(($(stat -c %s delta) < 100000)) || fail "it cost $(stat -c %s delta) bytes"
}

@test "the same two trees give the same bytes, and no change gives a tiny delta that touches nothing" {
	mkdir -p src/d
	for i in {1..50}; do echo "$i" >src/d/"$i"; done
	repl-diff src >one
	repl-diff src >two
	cmp one two
	repl-apply R <one >/dev/null
	before=$(find R -not -path 'R/.repl*' -printf '%p %C@ %T@ %i\n')
	cp -a src old
	repl-diff old src >none
	(($(stat -c %s none) < 1000))
	repl-apply R <none >/dev/null
	[[ $(find R -not -path 'R/.repl*' -printf '%p %C@ %T@ %i\n') == "$before" ]]
}

@test "a tree in which every file was replaced costs what changed in it" {
	mkdir -p src/d
	for i in {1..40}; do head -c 20000 /dev/urandom >src/d/"$i"; done
	go="repl-snap -s S src | repl-track -s S | repl-diff -s S | tee delta | repl-apply R | repl-snap -s S --commit"
	run_pipe "$go"
	cp -a src/d new && rm -rf src/d && mv new src/d
	printf x | dd of=src/d/7 bs=1 seek=5000 conv=notrunc status=none
	run_pipe "$go"
	same_tree src R
	(($(stat -c %s delta) < 20000)) || fail "it cost $(stat -c %s delta) bytes"
}
