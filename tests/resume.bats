#!/usr/bin/env bats
# A lost link costs only what had not come yet: what came whole stays, a token says how far it goes, and the rest is enough.

load lib/setup
load lib/trees

# old/ and new/, delta between them with everything that a file can be in the middle of, and base: a replica of old, for copies.
# Files beyond 1 MiB are patched in place or cloned, smaller ones copied; some content moves, at odd offsets.
setup_file() {
	cd "$BATS_FILE_TMPDIR" || return 1
	PATH=$REPL_BUILD:$PATH
	mkdir trees
	cd trees || return 1
	python3 - <<-'PY'
		import os, random, shutil
		r = random.Random(7)
		os.makedirs("old/dir")

		def put(name, *parts):
		    with open(name, "wb") as f:
		        for p in parts:
		            f.write(p)

		put("old/large", r.randbytes(1800000))
		put("old/small", r.randbytes(300000))
		put("old/moved", was := r.randbytes(200000))
		for i in range(1, 21):
		    put("old/dir/f%d" % i, r.randbytes(i * 500))
		shutil.copytree("old", "new")
		for name, size, n in ("large", 1800000, 40), ("small", 300000, 12):
		    with open("new/" + name, "r+b") as f:
		        for i in range(n):
		            f.seek(r.randrange(size))
		            f.write(r.randbytes(r.choice((1, 100, 5000, 20000))))
		put("new/moved", was[:50000], r.randbytes(777), was[50000:150000], r.randbytes(70001)) # copies at odd offsets
		put("new/fresh", r.randbytes(400001))
		put("new/sparse", r.randbytes(10000))
		with open("new/sparse", "r+b") as f:
		    f.seek(500000)
		    f.write(r.randbytes(90001))
		    f.truncate(1000000)
	PY
	fallocate -p -o 131072 -l 65536 new/large
	mv new/dir new/renamed
	rm new/renamed/f3
	ln new/renamed/f20 new/linked
	chmod 600 new/renamed/f7
	repl-diff old | repl-apply base >/dev/null
	repl-diff old new >delta.rpl
}

make_trees() { # DIR
	cp -a "$BATS_FILE_TMPDIR/trees/." "$1"
}

# Where records begin, and where the stream ends.
borders() { # STREAM
	repl-show --json "$1" | sed -n 's/.*"offset":\([0-9]*\).*/\1/p'
	stat -c %s "$1"
}

# Resumes R with TOKEN; fails unless what is sent is the rest and nothing more: header, RESUME, the records from the border on.
resume_exactly() { # R TOKEN DELTA BORDER
	repl-pack --resume="$2" <"$3" >rest.rpl
	local n want
	n=$(repl-pack -d <rest.rpl | wc -c)
	want=$((16 + 8 + 56 + $(stat -c %s "$3") - $4))
	((n == want)) || fail "cut behind byte $4: the rest has $n bytes, not $want"
	repl-apply "$1" <rest.rpl >/dev/null
}

# Cuts delta at N offsets, the same for the same SEED, and resumes each.
many_cuts() { # N SEED
	local n=$1 at border token total first b
	mapfile -t all < <(borders delta.rpl)
	total=${all[-1]}
	first=$(repl-show --json delta.rpl | sed -n '/"record":"delta"/{n;s/.*"offset":\([0-9]*\).*/\1/p}')
	for at in $(python3 -c 'import random, sys
r = random.Random(int(sys.argv[1]))
print(*(r.randrange(int(sys.argv[2]), int(sys.argv[3])) for i in range(int(sys.argv[4]))))' "$2" "$first" "$total" "$n"); do
		for b in "${all[@]}"; do ((b > at)) || border=$b; done
		cp -a --reflink=auto base R
		run -4 repl-apply R < <(head -c "$at" delta.rpl)
		has "$output" "--resume-token"
		token=$(repl-apply --resume-token R)
		resume_exactly R "$token" delta.rpl "$border" || fail "seed $2, cut at $at"
		diff -r --no-dereference -x .repl new R || fail "seed $2, cut at $at"
		repl-apply --rollback=-1 R >/dev/null || fail "seed $2, cut at $at: no way back"
		diff -r --no-dereference -x .repl old R || fail "seed $2, cut at $at: not the way back"
		rm -rf R
	done
	# The last one for everything that diff does not see.
	cp -a base R
	head -c $((total - 1)) delta.rpl | repl-apply R 2>/dev/null || :
	resume_exactly R "$(repl-apply --resume-token R)" delta.rpl "${all[-2]}"
	same_tree new R
	[[ -z $(ls R/.repl/stage) && ! -e R/.repl/partial && ! -e R/.repl/plan && ! -e R/.repl/plan.new ]] ||
		fail "litter: $(ls -R R/.repl)"
	repl-apply --rollback=-1 R >/dev/null
	same_tree old R
}

# Leaves R as a run does that was killed behind its last checkpoint, which counted the first SAME bytes of DELTA, up to BORDER; sets token.
killed_behind() { # R DELTA SAME BORDER
	mkfifo pipe
	repl-apply --checkpoint=1 "$1" <pipe 2>/dev/null &
	local pid=$! i
	exec 7>pipe
	# A checkpoint at the last border.
	head -c $(($3 - 1)) "$2" >&7
	for ((i = 0; i < 600; i++)); do
		[[ $(od -An -t u8 -j 79 -N 8 "$1/.repl/partial" 2>/dev/null) -ne $4 ]] || break
		sleep 0.1
	done
	cp "$1/.repl/partial" counted
	kill -9 "$pid"
	wait "$pid" || :
	exec 7>&-
	rm pipe
	token=$(repl-apply --resume-token "$1")
	# And on, with more of this delta: but of that run there is no checkpoint.
	repl-pack --resume="$token" <"$2" | repl-pack -d >rest.plain
	head -c $(($(stat -c %s rest.plain) * 9 / 10)) rest.plain | repl-apply "$1" 2>/dev/null || (($? == 4))
	[[ $(repl-apply --resume-token "$1") != "$token" ]]
	cp counted "$1/.repl/partial"
	[[ $(repl-apply --resume-token "$1") == "$token" ]]
}

# bats test_tags=slow
@test "cuts anywhere: the rest is what did not come whole, and the replica comes out right" {
	make_trees .
	many_cuts "$(samples 60)" 1
}

@test "cuts on ext4, where large files are patched in place" {
	requires root ext4
	cd "$(mk_fs ext4 100M)" || return 1
	make_trees .
	many_cuts "$(samples 20)" 2
}

# bats test_tags=slow
@test "cuts on XFS, where files share their extents" {
	requires root xfs
	cd "$(mk_fs xfs 300M -m reflink=1)" || return 1
	make_trees .
	many_cuts "$(samples 20)" 3
}

# bats test_tags=slow
@test "a rest that is cut is resumed too, and again" {
	make_trees .
	cp -a base R
	cp delta.rpl rest.plain
	for i in {1..12}; do
		head -c $(($(borders rest.plain | sed -n 8p) + 5)) rest.plain >part
		run -4 repl-apply R <part
		before=$(stat -c %s rest.plain)
		repl-pack --resume="$(repl-apply --resume-token R)" <delta.rpl | repl-pack -d >rest.plain
		(($(stat -c %s rest.plain) < before)) || fail "round $i came no further"
	done
	repl-apply R <rest.plain >/dev/null
	same_tree new R
}

@test "a full copy is resumed as a delta is" {
	make_trees .
	repl-diff new >full
	head -c 1000000 full | repl-apply R || (($? == 4))
	[[ $(find R -mindepth 1 -not -path 'R/.repl*') == "" ]]
	repl-pack --resume="$(repl-apply --resume-token R)" <full | repl-apply R >/dev/null
	same_tree new R
}

@test "a packed stream that is cut costs at most two chunks more, and a kept packed file is as good as a plain one" {
	make_trees .
	repl-diff new >full
	repl-pack --chunk=64K <full >full.rpl
	for at in 100000 1000001 2500002; do
		head -c $at full.rpl | repl-apply R || (($? == 4))
		token=$(repl-apply --resume-token R)
		repl-pack --chunk=64K --resume="$token" <full.rpl >rest.rpl
		max=$(($(stat -c %s full.rpl) - at + 3 * 65536 + 1048576))
		(($(stat -c %s rest.rpl) < max)) || fail "$(stat -c %s rest.rpl) bytes of at most $max"
		repl-pack --level=1 --threads=2 --resume="$token" <full | repl-apply R >/dev/null
		same_tree new R
		rm -rf R
	done
}

@test "of a chain of deltas, those that were applied are left out" {
	make_trees .
	cp -a new third
	for i in {1..20}; do head -c 10000 /dev/urandom >third/renamed/g"$i"; done
	repl-diff new third >delta2.rpl
	cat delta.rpl delta2.rpl >chain
	cp -a base R
	head -c $(($(stat -c %s delta.rpl) + 100000)) chain | repl-apply R >acks || (($? == 4))
	[[ $(repl-show acks | grep -c ^ack) == 1 ]]
	repl-pack --resume="$(repl-apply --resume-token R)" <chain >rest.rpl
	(($(repl-pack -d <rest.rpl | wc -c) < $(stat -c %s delta2.rpl) - 50000))
	repl-apply R <rest.rpl >/dev/null
	same_tree third R
}

@test "a signed delta stays signed: the rest needs the key, and proves the part that came before" {
	make_trees .
	printf 'a key' >key && chmod 600 key
	repl-pack --key-file=key <delta.rpl | repl-pack -d --key-file=key >signed
	cp -a base R
	head -c 900000 signed | repl-apply --key-file=key R || (($? == 4))
	token=$(repl-apply --resume-token R)
	run -2 bash -o pipefail -c "repl-pack --resume=$token <signed >/dev/null"
	has "$output" "--key-file is needed"
	cp -a R R2
	repl-pack --resume="$token" <delta.rpl >unsigned.rpl
	run -4 repl-apply --key-file=key R2 <unsigned.rpl
	repl-pack --key-file=key --resume="$token" <signed | repl-apply --key-file=key R >/dev/null
	same_tree new R
}

@test "a run that is killed leaves what its last checkpoint counted, even when the rest then is another" {
	make_trees .
	# The same up to a place in `large`; from there on it is as in the base, where the delta has data.
	cp -a new other
	dd if=old/large of=other/large bs=100000 skip=12 seek=12 conv=notrunc status=none
	noise other/small "$(stat -c %s new/small)" 11
	noise other/moved "$(stat -c %s new/moved)" 12 # without a copy in it
	touch -r new/large other/large
	repl-diff old other >delta2.rpl
	same=$(cmp delta.rpl delta2.rpl | sed 's/.*byte \([0-9]*\),.*/\1/')
	for b in $(borders delta.rpl); do ((b >= same)) || border=$b; done
	((border > 500000)) || fail "the two deltas have only $same bytes in common"
	for fs in . "$(can_mount xfs && [[ $(id -u) == 0 ]] && mk_fs xfs 300M -m reflink=1 || echo .)"; do
		cp -a base "$fs/R"
		killed_behind "$fs/R" delta.rpl "$same" "$border"
		repl-pack --resume="$token" <delta2.rpl | repl-apply "$fs/R" >/dev/null
		same_tree other "$fs/R"
		repl-apply --rollback=-1 "$fs/R" >/dev/null
		same_tree old "$fs/R"
		rm -rf "$fs/R"
	done
}

announced() { repl-diff zero "$1" | repl-show | sed -n 's/^delta .*bytes=//p'; }

@test "what a killed run has staged in a new directory is not in the way of another rest" {
	mkdir zero
	echo old >zero/old
	cp -a zero one
	mkdir one/d
	noise one/d/a 600000 1
	for f in u v w x y z; do echo "$f of one" >one/d/$f; done
	noise one/last 900000 2
	cp -a one two
	echo "what is not v" >two/d/v
	ln -sf a two/d/w
	rm two/d/x two/d/y
	mkdir two/d/x
	echo in >two/d/x/in
	ln -f two/d/a two/d/z
	# They announce the same number of things and bytes.
	for last in 900000 $((900000 + $(announced one) - $(announced two))); do
		noise two/last $last 3
		touch -r one/d two/d
		touch -r one two
	done
	repl-diff zero one >delta.rpl
	repl-diff zero two >delta2.rpl
	same=$(cmp delta.rpl delta2.rpl | sed 's/.*byte \([0-9]*\),.*/\1/')
	for b in $(borders delta.rpl); do ((b >= same)) || border=$b; done
	((border > 600000)) || fail "the two deltas have only $same bytes in common"
	repl-diff zero | repl-apply R >/dev/null
	killed_behind R delta.rpl "$same" "$border"
	[[ $(ls R/.repl/stage/d*) == $'a\nu\nv\nw\nx\ny\nz' ]] || fail "staged: $(ls -R R/.repl/stage)"
	repl-pack --resume="$token" <delta2.rpl | repl-apply R >/dev/null
	same_tree two R
	repl-apply --verify R
}

@test "nor is it in the way of further names of what was there before" {
	mkdir src
	echo old >src/old
	ln src/old src/older
	repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-apply R | repl-snap -s S --commit
	mkdir src/d
	mv src/old src/older src/d
	noise src/d/a 300000
	repl-snap -s S src | repl-track -s S | repl-diff -s S >delta.rpl
	head -c 200000 delta.rpl | repl-apply R || (($? == 4))
	in=$(echo R/.repl/stage/d*)
	echo "what it was to be then" | tee "$in/old" >"$in/older"
	repl-pack --resume="$(repl-apply --resume-token R)" <delta.rpl | repl-apply R >/dev/null
	same_tree src R
}

@test "a rest that is applied without owners has none of what came before either" {
	requires root
	make_trees .
	echo also >new/also
	chown -R 1234:1235 new
	chown 0 new/also
	repl-diff new >full
	head -c 1500000 full | repl-apply R || (($? == 4))
	[[ $(find R/.repl/stage -user 1234) && $(find R/.repl/stage -user 0 -group 1235) ]]
	repl-pack --resume="$(repl-apply --resume-token R)" <full | repl-apply --no-owner R >/dev/null
	[[ ! $(find R -uid 1234 -o -gid 1235) ]] || fail "$(find R -uid 1234 -o -gid 1235)"
	diff -r --no-dereference -x .repl new R
}

# bats test_tags=slow
@test "a token that is stale, foreign or damaged, and another delta, are refused before anything flows" {
	make_trees .
	cp -a base R
	head -c 500000 delta.rpl | repl-apply R || (($? == 4))
	token=$(repl-apply --resume-token R)
	((${#token} < 80))
	[[ $token =~ ^rpl1\.[0-9a-f]+$ ]]

	# Damaged, cut, or nothing of the kind.
	for bad in "${token%?}" "${token}0" "${token/rpl1./rpl1.1}" "${token/rpl1./rpl2.}" "" hello "rpl1.${token:6}"; do
		run -2 repl-pack --resume="$bad" -o out.rpl <delta.rpl
		[[ ! -e out.rpl ]]
	done
	digit=${token:40:1}
	run -2 repl-pack --resume="${token:0:40}$((0x$digit ^ 1))${token:41}" -o out.rpl <delta.rpl

	# Another delta: of other content from the same base, of another base, and one that ends before.
	cp -a new other
	echo else >other/renamed/f1
	echo else >other/a-first
	repl-diff old other >delta2.rpl
	repl-diff new >full
	echo tiny >old/tiny
	repl-diff new old >back
	for d in delta2.rpl full back; do
		run -5 repl-pack --resume="$token" -o out.rpl <$d
		has "$output" "not the delta that broke off"
		[[ ! -e out.rpl ]]
		run bash -c "repl-pack --resume=$token <$d 2>/dev/null | wc -c"
		[[ $output == 0 ]]
	done

	# Deltas with the same base before it on the line are another matter.
	cat delta2.rpl back delta.rpl | repl-pack --resume="$token" -o out.rpl
	cmp <(repl-pack -d <out.rpl) <(repl-pack --resume="$token" <delta.rpl | repl-pack -d)
	rm out.rpl

	# Stale: the rest from an older place, after more came; and after it is all there.
	repl-pack --resume="$token" <delta.rpl >rest.rpl
	repl-pack -d <rest.rpl | head -c 200000 | repl-apply R || (($? == 4))
	run -5 repl-apply R <rest.rpl
	has "$output" "goes on elsewhere"
	newer=$(repl-apply --resume-token R)
	[[ $newer != "$token" ]]
	# What was refused did no harm.
	repl-pack --resume="$newer" <delta.rpl | repl-apply R >/dev/null
	same_tree new R
	run -5 repl-apply R <rest.rpl
	has "$output" "keeps no part"
	run -5 repl-apply --resume-token R
	[[ $output == *"nothing to resume"* ]]
}

@test "what is kept is seen, blocks nothing, and makes room for another delta" {
	make_trees .
	cp -a base R
	head -c 500000 delta.rpl | repl-apply R || (($? == 4))
	token=$(repl-apply --resume-token R)
	[[ -e R/.repl/partial && -n $(ls R/.repl/stage) ]]

	# The replica is what it was, and can be looked at.
	repl-snap --digest R >theirs.img
	repl-diff --checksum --exit-code theirs.img R >/dev/null
	repl-apply --dry-run R <delta.rpl
	run -6 repl-apply --dry-run R < <(repl-pack --resume="$token" <delta.rpl)
	repl-apply --ack R >/dev/null

	# A stream that does not fit, or is none, takes nothing away.
	cp -a new third
	echo third >third/third
	repl-diff new third >delta2.rpl
	run -5 repl-apply R <delta2.rpl
	run -4 repl-apply R < <(head -c 100 delta.rpl)
	run -4 repl-apply R <theirs.img
	[[ $(repl-apply --resume-token R) == "$token" ]]

	# Another one that fits does, and says so.
	run -0 bash -c "repl-diff old new | repl-apply -v R 2>&1 >/dev/null"
	has "$output" "gave up what was kept"
	same_tree new R
	run -5 repl-apply --resume-token R
	[[ -z $(ls R/.repl/stage) && ! -e R/.repl/plan ]]
}

@test "a limit counts what came before the cut, too" {
	make_trees .
	cp -a base R
	head -c 500000 delta.rpl | repl-apply --max-content=600000 R || (($? == 4))
	run -6 repl-apply --max-content=600000 R < <(repl-pack --resume="$(repl-apply --resume-token R)" <delta.rpl)
	has "$output" "--max-content"
}

@test "what is damaged, not cut, is not kept" {
	make_trees .
	cp -a base R
	python3 -c 'import sys
b = bytearray(open("delta.rpl", "rb").read())
b[800000] ^= 1
open("bad", "wb").write(b)'
	run -4 repl-apply R <bad
	run -5 repl-apply --resume-token R
	[[ -z $(ls R/.repl/stage) ]]
}

@test "a part that cannot be used is named, and a delta from its start goes on" {
	make_trees .
	cp -a base R
	head -c 900000 delta.rpl | repl-apply R || (($? == 4))
	token=$(repl-apply --resume-token R)
	repl-pack --resume="$token" <delta.rpl >rest.rpl
	cp -a R R2
	printf x | dd of=R/.repl/partial bs=1 seek=200 conv=notrunc status=none
	run -1 repl-apply --resume-token R
	has "$output" "send the delta from its start"
	run -1 repl-apply R <rest.rpl
	repl-apply R <delta.rpl >/dev/null
	same_tree new R
	rm -rf R2/.repl/stage
	run -1 repl-apply R2 <rest.rpl
	repl-apply R2 <delta.rpl >/dev/null
	same_tree new R2
}

@test "an image is opened again, with the same stamps, and makes the same delta" {
	small_tree src
	run_pipe "repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-apply R | repl-snap -s S --commit"
	change_tree src
	noise src/more 800000
	run_pipe "repl-snap -s S --bookmark=b src | repl-track -s S | repl-diff -s S >one"
	run_pipe "repl-snap -s S --again | repl-track -s S | repl-diff -s S >two"
	cmp one two
	# Later content comes behind what came already: its head is the same.
	head -c $(($(stat -c %s one) / 2)) one | repl-apply R || (($? == 4))
	run_pipe "repl-snap -s S --again | repl-track -s S | repl-diff -s S |
		repl-pack --resume=$(repl-apply --resume-token R) | repl-apply R | repl-snap -s S --commit"
	same_tree src R
	run -2 repl-snap -s S --again
	has "$output" "no image under way"
	run -2 repl-snap -s S --again src
}

# bats test_tags=slow
@test "the recipe over ssh: the line breaks, the token comes back, the rest goes over" {
	start_sshd
	small_tree src
	noise src/big 3000000 5
	ssh="${SSH[*]}"
	run_pipe "repl-snap -s S src | repl-track -s S | repl-diff -s S | tee delta.rpl | repl-pack --chunk=64K >all.rpl"
	head -c 1500000 all.rpl | "${SSH[@]}" "repl-apply $PWD/R" || (($? == 4))
	token=$("${SSH[@]}" "repl-apply --resume-token $PWD/R")
	run_pipe "repl-pack --resume=$token <delta.rpl | tee sent | $ssh repl-apply $PWD/R | repl-snap -s S --commit"
	same_tree src R
	(($(stat -c %s sent) < $(stat -c %s delta.rpl) - 1000000))
	repl-snap -s S --list | grep -q '^pending  none'
}

# bats test_tags=slow
@test "a lost answer is asked for again, and costs no run" {
	small_tree src
	go="repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-pack | repl-apply R"
	settle="repl-apply --ack R | repl-snap -s S --commit"
	run -1 repl-apply --ack R
	[[ ! -e R ]]
	mkdir R
	run -6 repl-apply --ack R
	run_pipe "$go | repl-snap -s S --commit"
	# The base is that one already.
	run_pipe "$settle"
	# Lost, then the source goes on: with the answer first, the next run does not fail.
	change_tree src
	run_pipe "$go >/dev/null"
	echo later >src/later
	run_pipe "$settle"
	run_pipe "$go | repl-snap -s S --commit"
	same_tree src R
	# Lost, then a run that never reached the replica: the answer is for the older of the two.
	echo 1 >src/one
	run_pipe "$go >/dev/null"
	echo 2 >src/two
	run_pipe "repl-snap -s S src | repl-track -s S | repl-diff -s S >/dev/null"
	run_pipe "$settle"
	run_pipe "$go | repl-snap -s S --commit"
	same_tree src R
	# An image that this state never heard of.
	cp -a src other
	echo other >other/one
	run_pipe "repl-diff src other | repl-apply R >/dev/null"
	run -5 bash -o pipefail -c "$settle"
	has "$output" "not the one under way"
}

@test "an empty replica has nothing to acknowledge" {
	mkdir src
	echo a >src/a
	repl-diff src >full
	head -c $(($(stat -c %s full) - 1)) full | repl-apply R || (($? == 4))
	run -5 repl-apply --ack R
	has "$output" "empty"
	repl-pack --resume="$(repl-apply --resume-token R)" <full | repl-apply R >/dev/null
	same_tree src R
}
