#!/usr/bin/env bats
# The parts change: the replica becomes the source, the old source gets just the difference, and back again.

load lib/setup
load lib/trees

setup() {
	common_setup
	cd "$BATS_TEST_TMPDIR" || return 1
}
teardown() { common_teardown; }

# ship STATE FROM TO, with the size of the packed stream in the file `sent`.
ship() {
	repl-snap -s "$1" "$2" | repl-track -s "$1" | repl-diff -s "$1" | repl-pack | tee >(wc -c >sent) |
		repl-apply "$3" | repl-snap -s "$1" --commit
}

@test "failover and failback ship only what differs, in both directions" {
	mkdir a
	small_tree a/tree
	noise a/big 5000000
	noise a/other 3000000
	run -0 ship S a b
	same_tree a b

	# The source dies with changes that nobody has; the replica takes over.
	new=$(head -c 9000 /dev/urandom | base64 -w0)
	echo "never sent" >a/lost
	printf 'lost' | dd of=a/big bs=1 seek=2000000 conv=notrunc status=none
	mv b/other b/renamed
	printf '%s' "$new" >>b/big
	echo "written on the replica" >b/new
	rm -r b/tree

	# It comes back: what it has is asked, and it is the replica now.
	run -0 repl-apply --adopt a
	run -0 bash -c 'repl-snap --digest a | repl-snap -s T --adopt'
	run -0 ship T b a
	same_tree b a --root=no
	[[ ! -e a/lost && ! -e a/tree && -e a/new ]]
	# 8 MB are there already.
	(($(cat sent) < 100000)) || fail "$(cat sent) bytes were sent"
	echo more >>b/new
	run -0 ship T b a
	same_tree b a --root=no
	(($(cat sent) < 2000)) || fail "$(cat sent) bytes were sent"

	# And the other way round again, also after writes.
	echo "on the first machine again" >a/again
	run -0 repl-apply --adopt b
	run -0 bash -c 'repl-snap --digest b | repl-snap -s S --adopt'
	run -0 ship S a b
	same_tree a b --root=no
	(($(cat sent) < 2000)) || fail "$(cat sent) bytes were sent"
	echo "and on" >>a/again
	run -0 ship S a b
	same_tree a b --root=no
	run -0 repl-apply --rollback=-1 b
	[[ $(cat b/again) == "on the first machine again" ]]
}

@test "a lost state is made again from what the replica holds" {
	small_tree src
	run -0 ship S src R
	rm -r S
	change_tree src
	run -0 bash -c 'repl-snap --digest R | repl-snap -s S --adopt'
	run -0 repl-snap -s S --list
	has "$output" "$(repl-apply --list R | awk '/^now/ {print $2}')"
	run -0 ship S src R
	same_tree src R
	echo more >src/more
	run -0 ship S src R
	same_tree src R
	# What is no image is no base.
	repl-diff src >full
	run -4 bash -c 'repl-snap -s S --adopt <full'
	run -4 bash -c 'repl-snap --digest R | head -c 500 | repl-snap -s S --adopt'
	run -0 ship S src R
}
