#!/usr/bin/env bats
# A catalog that was lost or damaged costs a comparison, never a wrong delta, and never ends a program by a signal: it says which
# file it is and what to do. And what it says to do helps.
#
# REPL_DAMAGE=N tries N damaged files of each sort (a check: a sample, always the same), REPL_SEED another sample.

load lib/setup

# Long names: pages enough for a tree in each table, with few files.
setup_file() {
	PATH=$REPL_BUILD:$PATH
	cd "$BATS_FILE_TMPDIR" || return 1
	local long i
	long=$(printf 'x%.0s' {1..180})
	mkdir -p src/dir src/going src/moving
	for i in {1..20}; do
		echo "$i" >"src/file$i-$long"
		echo "in $i" >"src/dir/file$i-$long"
	done
	head -c 20000 /dev/zero | tr '\0' x >src/big
	ln src/big src/link
	echo going >src/going/file
	echo moving >src/moving/file
	{
		bash -o pipefail -c "$PIPE"
		echo 1 >src/later
		bash -o pipefail -c "$PIPE"
	} || return 1
	# An image under way, with a bit of everything; then, what the source has to do with it, and the replica, is of one file each.
	echo other >"src/dir/file7-$long"
	mv src/moving src/dir/moved
	rm -r src/going src/link "src/file3-$long"
	mkdir src/new
	echo new >src/new/file
	printf yyy | dd of=src/big bs=1 seek=9000 conv=notrunc status=none
	repl-snap -s S src >image || return 1
	cp -a S before
	repl-diff -s S <image >some.rpl || return 1
	cp -a S sent
	repl-snap --digest R >R.img
	cp -a R landed
	repl-apply landed <some.rpl >ack
}

PIPE='repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-apply R | repl-snap -s S --commit'
export PIPE

# Of our own: copies of what setup_file made.
setup() {
	common_setup
	cp -a "$BATS_FILE_TMPDIR"/{src,image,some.rpl,ack,R.img} .
}

# damaged FILE N: so many damaged copies of it in bad/.
damaged() {
	local n=${REPL_DAMAGE:-$2}
	[[ $REPL_BUILD != *san ]] || n=$(((n + 3) / 4))
	"$repl_root/tests/lib/damage-file" "$1" bad "$n" "${REPL_SEED:-1}"
}

# tried WHAT STATUS: a program ended well; or it said in one line, in the file err, whose catalog it is and what to do, with a status that
# it documents.
tried() {
	if (($2 == 0)); then
		[[ ! -s err ]] || fail "$1: 0, but $(<err)"
		return
	fi
	[[ $2 == [1456] && $(wc -l <err) == 1 ]] || fail "$1: status $2, $(<err)"
	case $2:$(<err) in
	1:*"/catalog' is damaged, "*": repl-snap --adopt takes what the replica holds in its place, see repl(7), "*) ;;
	1:*"/.repl/catalog' is damaged, "*": remove it and run repl-apply --adopt, see repl(7), "*) ;;
	[456]:*) ;;
	*) fail "$1: status $2, $(<err)" ;;
	esac
}

# What somebody who looks at the tree could see of it.
look() {
	(
		cd "$1" || exit
		find . -name .repl -prune -o -type f -printf '%p %s %m %T@ %n\n' -o -type d ! -path . -printf '%p %m %T@\n' | sort
		find . -name .repl -prune -o -type f -print0 | sort -z | xargs -0 cat | cksum
	)
}

# The recipes of repl(7), word for word.
adopt_at_source() {
	repl-snap --digest R | repl-snap -s S --adopt
}

adopt_at_replica() {
	rm -f R/.repl/catalog
	repl-apply --adopt R >/dev/null
}

# Whatever was the matter: it is mended, and an ordinary run after it makes the replica the source.
mends() {
	"$@"
	run_pipe "$PIPE"
	same_tree src R
	repl-apply --verify R
}

@test "a damaged base makes the right delta or none" {
	damaged "$BATS_FILE_TMPDIR/before/catalog" 56
	for f in bad/*; do
		rm -rf S
		cp -a "$BATS_FILE_TMPDIR/before" S
		cp "$f" S/catalog
		rc=0
		repl-diff -s S <image >made 2>err || rc=$?
		tried "$f" $rc
		((rc == 0)) || continue
		cmp -s made some.rpl && continue
		# It may speak of other numbers, or send what could have been moved; or it is one that the replica refuses.
		rm -rf R
		cp -a "$BATS_FILE_TMPDIR/R" R
		rc=0
		repl-apply R <made >/dev/null 2>err || rc=$?
		[[ $rc != 1 ]] || fail "$f: $(<err)"
		tried "$f" $rc
		[[ $rc != 0 || $(look R) == "$(look src)" ]] || fail "$f: a wrong delta landed"
	done
}

@test "an answer makes a damaged base the right one or none" {
	damaged "$BATS_FILE_TMPDIR/sent/catalog" 24
	want=$(repl-apply --list "$BATS_FILE_TMPDIR/landed" | awk 'NR == 1 { print $2 }')
	[[ -n $want ]]
	for f in bad/*; do
		rm -rf S
		cp -a "$BATS_FILE_TMPDIR/sent" S
		cp "$f" S/catalog
		rc=0
		repl-snap -s S --commit <ack 2>err || rc=$?
		tried "$f" $rc
		((rc == 0)) || continue
		repl-snap -s S --list >list 2>err || rc=$?
		tried "$f" $rc
		[[ $rc != 0 || $(grep ^base list) == *"$want"* ]] || fail "$f: $(<list)"
	done
}

@test "a damaged catalog lets the replica be the new image or the old one" {
	damaged "$BATS_FILE_TMPDIR/R/.repl/catalog" 24
	old=$(look "$BATS_FILE_TMPDIR/R")
	new=$(look src)
	is_fresh=false
	for f in bad/*; do
		$is_fresh || {
			rm -rf R
			cp -a "$BATS_FILE_TMPDIR/R" R
		}
		cp "$f" R/.repl/catalog
		rc=0
		repl-snap --digest R >made 2>err || rc=$?
		tried "$f" $rc
		# Block digests may be lost, which costs sending; but it is that image, or none.
		[[ $rc != 0 ]] || cmp -s made R.img || {
			run repl-snap -s T --adopt <made
			[[ $status == 0 || $output == *"the image is not what its id says"* ]] || fail "$f: $status $output"
		}
		rc=0
		repl-apply R <some.rpl >/dev/null 2>err || rc=$?
		tried "$f" $rc
		is_fresh=true
		if ((rc == 0)); then
			[[ $(look R) == "$new" ]] || fail "$f: it is not the new image"
			is_fresh=false
		else
			[[ $(look R) == "$old" ]] || fail "$f: it is not the old image any more"
		fi
	done
}

@test "what the program says to do when the base is damaged helps" {
	cp -a "$BATS_FILE_TMPDIR"/{R,before} .
	mv before S
	dd if=/dev/urandom of=S/catalog bs=4096 seek=2 count=30 conv=notrunc status=none
	run -1 --separate-stderr repl-diff -s S <image
	has "$stderr" "the catalog 'S/catalog' is damaged, "
	mends adopt_at_source
}

@test "what the program says to do when a replica's catalog is damaged helps" {
	cp -a "$BATS_FILE_TMPDIR"/{R,before} .
	mv before S
	dd if=/dev/urandom of=R/.repl/catalog bs=4096 seek=2 count=30 conv=notrunc status=none
	for mode in --verify --ack --list --status; do
		run -1 --separate-stderr repl-apply $mode R
		has "$stderr" "the catalog 'R/.repl/catalog' is damaged, "
	done
	both() {
		adopt_at_replica
		adopt_at_source
	}
	mends both
}

@test "an empty catalog, random bytes and no catalog at all" {
	cp -a "$BATS_FILE_TMPDIR"/{R,before} .
	mv before S
	: >S/catalog
	run -1 --separate-stderr repl-diff -s S <image
	has "$stderr" "the catalog 'S/catalog' is damaged, it is empty: repl-snap --adopt "
	head -c 50000 /dev/urandom >S/catalog
	run -1 --separate-stderr repl-diff -s S <image
	has "$stderr" "the catalog 'S/catalog' is damaged, MDB_INVALID"
	rm S/catalog
	run -5 --separate-stderr run_pipe 'repl-diff -s S <image | repl-apply R'
	has "$stderr" "the delta starts from nothing"
	has "$stderr" "repl-snap --digest"
	mends adopt_at_source

	: >R/.repl/catalog
	run -1 --separate-stderr repl-apply R <some.rpl
	has "$stderr" "the catalog 'R/.repl/catalog' is damaged, it is empty: remove it and run repl-apply --adopt"
	rm R/.repl/catalog
	run -6 --separate-stderr repl-apply R <some.rpl
	has "$stderr" "'R' has content but no catalog: --adopt takes it as it is"
	run -6 --separate-stderr repl-apply --verify R
	has "$stderr" "'R' is not a replica: it has no catalog; repl-apply --adopt takes a directory as it is"
	both() {
		adopt_at_replica
		adopt_at_source
	}
	mends both
}

# bats test_tags=slow
@test "an older copy is noticed, on both sides" {
	cp -a "$BATS_FILE_TMPDIR"/{landed,sent,before} .
	mv landed R
	mv sent S
	repl-snap -s S --commit <ack
	# The source has an older base than the replica.
	cp before/catalog S/catalog
	echo more >src/more
	run -5 --separate-stderr run_pipe "$PIPE"
	has "$stderr" "repl-snap --digest"
	mends adopt_at_source

	getfattr -n user.repl.image R/.repl >/dev/null 2>&1 || skip "no attributes here: the replica cannot tell"
	cp "$BATS_FILE_TMPDIR/R/.repl/catalog" R/.repl/catalog
	for mode in --verify --ack --status; do
		run -1 --separate-stderr repl-apply $mode R
		has "$stderr" "'R/.repl/catalog' is damaged, it is of another image than was landed last, such as an older copy is: remove it"
	done
	run -1 --separate-stderr repl-apply R <some.rpl
	run -1 repl-snap --digest R
	both() {
		adopt_at_replica
		adopt_at_source
	}
	mends both
}

# killed_after_the_decision: R is left with a delta that was decided and is not finished. The decision is a rename.
killed_after_the_decision() {
	local k renames
	if [[ ! -e calls ]]; then
		cp -a "$BATS_FILE_TMPDIR/R" R
		"$REPL_BUILD/tests/lib/cut" trace calls repl-apply R <some.rpl >/dev/null
	fi
	mapfile -t renames < <(awk '/rename/ { print NR + 1 }' calls)
	for k in "${renames[@]}"; do
		rm -rf R
		cp -a "$BATS_FILE_TMPDIR/R" R
		run "$REPL_BUILD/tests/lib/cut" kill "$k" repl-apply R <some.rpl
		[[ $status == 137 ]]
		[[ ! -e R/.repl/commit ]] || return 0
	done
	fail "it never was decided"
}

# bats test_tags=slow
@test "a decided delta is finished before the replica is adopted, or given up with the catalog" {
	cp -a "$BATS_FILE_TMPDIR/sent" S
	killed_after_the_decision
	run -0 --separate-stderr repl-apply -v --adopt R
	has "$stderr" "finished a delta that had been interrupted"
	[[ ! -e R/.repl/commit ]]
	same_tree src R
	mends adopt_at_source

	killed_after_the_decision
	: >R/.repl/catalog
	run -1 --separate-stderr repl-apply --adopt R
	has "$stderr" "is damaged, it is empty: remove it"
	rm R/.repl/catalog
	run -0 --separate-stderr repl-apply -v --adopt R
	has "$stderr" "discarded a delta that had been interrupted"
	[[ ! -e R/.repl/commit ]]
	run -0 repl-apply --verify R
	mends adopt_at_source
}

# bats test_tags=slow
@test "killed while the first catalog is made, a replica is none yet" {
	mkdir few
	echo 1 >few/file
	repl-diff few >few.rpl
	repl-apply other <few.rpl >answer
	for k in {1..60}; do
		rm -rf R
		run "$REPL_BUILD/tests/lib/cut" kill "$k" repl-apply R <few.rpl
		[[ $status == 137 ]]
		[[ ! -e R/.repl/catalog ]] || break
		run -0 bash -c 'repl-apply R <few.rpl | cmp - answer'
		cmp few/file R/file
	done
	((k > 2))
}

@test "what is our own fault is not taken for a damaged catalog" {
	requires no-sanitizer
	mkfifo in
	for signal in SEGV BUS FPE ABRT; do
		repl-show <in >/dev/null 2>err &
		pid=$!
		exec 9>in
		kill -$signal $pid
		rc=0
		wait $pid || rc=$?
		exec 9>&-
		[[ $rc == $((128 + $(kill -l $signal))) ]] || fail "$signal: status $rc, $(<err)"
	done
}

# Dropped from memory, each page of a catalog that is touched is a fault that waits for the disk; what is asked for ahead is none.
@test "a catalog that is not in memory is not waited for row by row" {
	mkdir many
	python3 - <<-'PY'
		import os
		for i in range(4000):
		    d = "many/%02d" % (i // 50)
		    os.makedirs(d, exist_ok=True)
		    with open("%s/a name that takes some room in the table of names, %04d" % (d, i), "w") as f:
		        f.write("%d\n" % i)
	PY
	repl-snap -s T many | repl-diff -s T | repl-apply Q | repl-snap -s T --commit
	for f in many/*/*[05]0; do
		echo more >>"$f"
	done
	repl-snap -s T many | repl-diff -s T >more.rpl
	cat >faults <<-'PY'
		import os, resource, subprocess
		for p in ("T/catalog", "Q/.repl/catalog"):
		    fd = os.open(p, os.O_RDONLY)
		    os.fsync(fd)
		    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
		with open("more.rpl") as delta, open("ack", "w") as ack:
		    subprocess.run(["repl-apply", "Q"], stdin=delta, stdout=ack, check=True)
		print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_majflt)
	PY
	run python3 faults
	echo "$status, $output faults"
	((status == 0))
	# 160 names, their directories, objects and inodes.
	((output < 60))
	repl-snap -s T --commit <ack
	same_tree many Q
}
