#!/usr/bin/env bats
# The programs in a row, as an operator types them: through a real sshd, by hand, and with stages that die.

# Streams have names that shellcheck takes for those of commands.
# shellcheck disable=SC2238

load lib/setup
load lib/trees

# ship [STAGE=COMMAND...]: one run of the whole pipeline, state S, source src, replica R; a stage can be replaced. The
# statuses of all stages end up in the file statuses, in order.
ship() {
	local snap="repl-snap -s S src" track="repl-track -s S" diff="repl-diff -s S" pack="repl-pack"
	local apply="repl-apply R" commit="repl-snap -s S --commit" arg
	for arg; do
		# shellcheck disable=SC2229 # the name is in the variable
		printf -v "${arg%%=*}" '%s' "${arg#*=}"
	done
	bash -o pipefail -c "$snap | $track | $diff | $pack | $apply | $commit
		rc=(\"\${PIPESTATUS[@]}\")
		echo \"\${rc[@]}\" >statuses
		for x in \"\${rc[@]}\"; do ((x == 0)) || exit \$x; done"
}

remote() {
	printf '%q ' "${SSH[@]}"
	printf "'repl-apply %q'" "$PWD/R"
}

base() {
	repl-snap -s S --list | awk '/^base/ { print $2 }'
}

image_of() {
	repl-snap --digest "$1" | repl-show --json - | sed -n 's/.*"image".*"id":"\([0-9a-f]*\)".*/\1/p'
}

# What a tree is, inode numbers and change times included: an apply that had nothing to do leaves all of it alone.
fingerprint() {
	find "$1" -path "$1/.repl" -prune -o -printf '%P %i %T@ %C@ %m %s %l\n' | sort
}

# bats test_tags=slow
@test "the pipeline over ssh brings a full copy, then the changes, then nothing" {
	small_tree src
	start_sshd
	run -0 ship apply="$(remote)"
	[[ -z $output ]]
	same_tree src R
	full=$(stat -c %i R/home/ada/photo)
	change_tree src
	run -0 ship apply="$(remote)" diff="repl-diff -s S | tee delta"
	[[ -z $output ]]
	same_tree src R
	# The photo of 150,000 bytes lost a few of its bytes and its directory's name; nothing else of it travelled.
	[[ $(stat -c %s delta) -lt 20000 && -n $full ]]
	before=$(fingerprint R)
	run -0 ship apply="$(remote)" diff="repl-diff -s S | tee delta"
	[[ -z $output ]]
	[[ $(stat -c %s delta) -lt 1000 ]] || fail "a delta of nothing has $(stat -c %s delta) bytes"
	[[ $(fingerprint R) == "$before" ]]
	same_tree src R
}

# bats test_tags=slow
@test "what is removed and copied back in, directories and all, travels as what differs" {
	mkdir -p src/a/b/c
	for n in {1..200}; do
		head -c 1500 /dev/urandom | base64 >"src/a/b/c/$n"
	done
	run -0 ship
	cp -a src again
	echo more >>again/a/b/c/7
	rm -r src/a
	cp -a again/a src/a
	run -0 ship diff="repl-diff -s S | tee delta"
	same_tree src R
	[[ $(repl-show delta | grep -c '^create') == 0 ]]
	# Inodes and times of 200 files, and the content of one.
	[[ $(stat -c %s delta) -lt 60000 ]] || fail "the delta has $(stat -c %s delta) bytes"
}

@test "each run makes the acknowledged image the base" {
	small_tree src
	ship
	first=$(base)
	[[ $first == "$(image_of R)" ]]
	ship
	[[ $(base) == "$first" ]]
	change_tree src
	ship
	[[ $(base) != "$first" && $(base) == "$(image_of R)" ]]
}

@test "the first run and the later ones are the same command, silent, with status 0" {
	small_tree src
	for n in 1 2 3; do
		echo "$n" >src/number
		run -0 ship
		[[ -z $output && $(cat statuses) == "0 0 0 0 0 0" ]]
		same_tree src R
	done
}

# bats test_tags=slow
@test "a stage that is killed leaves the base as it was, and the next run catches up" {
	die=$repl_root/tests/lib/die-after
	small_tree src
	ship
	for stage in snap track diff pack apply commit; do
		case $stage in
		snap) whole="repl-snap -s S src" ;;
		apply) whole="repl-apply R" ;;
		commit) whole="repl-snap -s S --commit" ;;
		*) whole="repl-$stage -s S" ;;
		esac
		[[ $stage != pack ]] || whole=repl-pack
		for at in 0 ${REPL_LONG:+1 100} 30000; do
			[[ $at -lt 30000 || $stage == @(diff|pack) ]] || continue
			[[ $at == 0 || $stage != commit ]] || continue
			noise "src/news" 60000 "$at${#stage}"
			echo "$stage $at" >src/which
			old=$(base) held=$(image_of R)
			run ship "$stage=$die $at $whole"
			[[ $status -ne 0 ]] || fail "$stage killed at $at, and no stage minded: $(cat statuses)"
			[[ $(base) == "$old" ]] || fail "$stage killed at $at, and the base moved on"
			[[ $stage == @(apply|commit) || $(image_of R) == "$held" ]]
			# When only the answer got lost, one run is needed to learn where the replica stands.
			[[ $stage != @(apply|commit) ]] || ship 2>said || :
			run -0 ship
			same_tree src R
			[[ $(base) == "$(image_of R)" ]]
		done
	done
}

# bats test_tags=slow
# Somebody writes to the first half of these files all the time, in place, until they are killed; also where others want the processor:
# who sleeps between two writes, and comes first, gets it each time.
restless() {
	nice -n -15 python3 -c 'import os, random, sys, time
fds = [os.open(f, os.O_RDWR) for f in sys.argv[1:]]
size = os.fstat(fds[0]).st_size
while True:
    for fd in fds:
        os.pwrite(fd, os.urandom(64), random.randrange(size // 8192) * 4096)
    time.sleep(0.0001)' "$@" 3>&- &
	restless=$!
	until_true differs "$1" was
}

differs() {
	! cmp -s "$1" "$2"
}

teardown() {
	if [[ ${restless:-} ]]; then
		kill "$restless" 2>/dev/null || :
		wait "$restless" 2>/dev/null || :
	fi
	common_teardown
}

# A new file is not there until it was read whole; that its content is partly another's must not matter.
# bats test_tags=slow
@test "files that never hold still stay as the replica has them, and what both sides know of their blocks with them" {
	requires root ext4
	fs=$(mk_fs ext4 128M)
	mkdir "$fs/src"
	noise "$fs/src/table" 12000000
	noise "$fs/src/other" 12000000 2
	repl() {
		repl-snap -s S "$fs/src" | repl-diff -s S "$@" 2>log | repl-apply R | repl-snap -s S --commit
		echo "${PIPESTATUS[*]}"
	}
	[[ $(repl) == "0 0 0 0" ]]
	cp "$fs/src/table" was
	cp "$fs/src/other" "$fs/src/new"
	restless "$fs/src/table" "$fs/src/new"
	for i in 1 2; do
		[[ $(repl) == "0 3 0 0" ]] || fail "$(cat log)"
		has "$(cat log)" "'table' did not hold still while it was read; the replica keeps what it had"
		has "$(cat log)" "'new' did not hold still"
		repl-apply --verify R
		cmp was R/table
		[[ ! -e R/new ]]
	done
	# As they were read last, when that is wanted.
	[[ $(repl --ship-unsettled) == "0 0 0 0" ]] || fail "$(cat log)"
	repl-apply --verify R
	differs was R/table
	[[ $(stat -c %s R/new) == 12000000 ]]
	kill "$restless"
	wait "$restless" || :
	restless=
	# Back to what it was, and on from there.
	cp was "$fs/src/table"
	[[ $(repl) == "0 0 0 0" ]]
	for i in 1 2 3; do
		dd if=/dev/urandom of="$fs/src/table" bs=100 count=1 seek=$((i * 30000)) conv=notrunc status=none
		[[ $(repl) == "0 0 0 0" ]] || fail "$(cat log)"
		repl-apply --verify R
		same_tree "$fs/src" R
	done
}

@test "--list tells how old the base is, and how far behind" {
	mkdir src
	run_pipe 'repl-snap -s S --time=2026-01-01T00:00:00Z --bookmark=good src | repl-diff -s S | repl-apply R | repl-snap -s S --commit'
	repl-snap -s S --list >list
	grep -q '^base .* seq 1 2026-01-01T00:00:00Z live .good.$' list
	grep -qx 'lag      0 s' list
	repl-snap -s S --time=2026-01-01T00:01:30Z src >image
	repl-snap -s S --list >list
	grep -q '^pending .* seq 2 2026-01-01T00:01:30Z live$' list
	grep -qx 'lag      90 s' list
	age=$(sed -n 's/^age  *\([0-9]*\) s$/\1/p' list)
	((age >= $(date +%s) - $(date -d 2026-01-01T00:00:00Z +%s) - 600))
	repl-snap -s S --list --json | python3 -c 'import json, sys
l = json.load(sys.stdin)
assert l["lag"] == 90 and l["age"] > 0 and l["base"]["consistency"] == "live", l'
	repl-apply --list R | grep -q '^now .* seq 1 2026-01-01T00:00:00Z live .good.$'
	repl-snap -s T src >image
	repl-snap -s T --list --json | grep -q '"base":null,.*"age":null,"lag":null'
}

# bats test_tags=slow
@test "an acknowledgement that got lost is made up for by the next run, though the source went on" {
	small_tree src
	ship
	for n in 1 2 3; do
		echo "sent, answer lost $n" >src/lost
		run ship commit="cat >lost.ack"
		same_tree src R
		echo "and on $n" >src/on
		# One run may be needed to learn where the replica stands; no more.
		ship 2>said || :
		run -0 ship
		same_tree src R
		[[ $(base) == "$(image_of R)" ]]
	done
}

# bats test_tags=slow
@test "answers that got lost several times in a row are made up for" {
	small_tree src
	ship
	for n in 1 2 3; do
		echo "$n" >src/lost
		ship commit="cat >lost.ack" || :
		[[ $n != 2 ]] || ship apply="cat >/dev/null" commit=cat || :
	done
	echo last >src/last
	ship || :
	run -0 ship
	same_tree src R
}

@test "an answer is taken twice, and the second time changes nothing" {
	small_tree src
	ship commit="tee ack | repl-snap -s S --commit"
	id=$(base)
	run -0 --separate-stderr bash -c 'repl-snap -s S --commit <ack'
	[[ -z $output && -z $stderr && $(base) == "$id" ]]
	cat ack ack >twice
	run -0 bash -c 'repl-snap -s S --commit <twice'
	[[ $(base) == "$id" ]]
}

@test "an answer for another image is refused with status 5" {
	small_tree src
	small_tree other
	echo differs >other/differs
	ship
	id=$(base)
	repl-diff other >delta
	repl-apply R2 <delta >ack
	run -5 bash -c 'repl-snap -s S --commit <ack'
	[[ $(base) == "$id" ]]
}

# bats test_tags=slow
@test "an answer that is cut, damaged or missing does not move the base" {
	small_tree src
	ship
	id=$(base)
	echo new >src/new
	ship commit="cat >ack"
	for n in 0 1 8 16 40 100 $(($(stat -c %s ack) - 1)); do
		head -c "$n" ack >cut
		run -4 bash -c 'repl-snap -s S --commit <cut'
		[[ $(base) == "$id" ]]
	done
	python3 - <<-'PY'
		d = bytearray(open("ack", "rb").read())
		d[60] ^= 1
		open("flipped", "wb").write(d)
	PY
	run -4 bash -c 'repl-snap -s S --commit <flipped'
	[[ $(base) == "$id" ]]
	run -0 bash -c 'repl-snap -s S --commit <ack'
	[[ $(base) == "$(image_of R)" ]]
}

@test "a delta applied twice is acknowledged twice and changes nothing the second time" {
	small_tree src
	ship
	change_tree src
	ship diff="repl-diff -s S | tee delta"
	before=$(fingerprint R)
	run -0 --separate-stderr bash -c 'repl-apply R <delta >again'
	[[ -z $stderr && $(fingerprint R) == "$before" ]]
	run -0 repl-show again
	has "$output" "action=already"
	run -0 bash -c 'repl-snap -s S --commit <again'
}

@test "a delta for another base is refused with status 5 and nothing is touched" {
	small_tree src
	ship
	cp -a R R.old
	for n in 1 2 3; do
		echo "$n" >src/number
		ship diff="repl-diff -s S | tee delta$n"
	done
	mv R R.new
	mv R.old R
	before=$(fingerprint R)
	run -5 bash -c 'repl-apply R <delta3 >ack'
	[[ $(fingerprint R) == "$before" ]]
	# In order, they are fine.
	cat delta1 delta2 delta3 >chain
	run -0 bash -c 'repl-apply R <chain >acks'
	same_tree src R
	[[ $(repl-show acks | grep -c ^ack) == 3 ]]
}

@test "each delta of a line copies from the base that the one before has made" {
	mkdir src
	head -c 300000 /dev/urandom >src/a
	repl-snap -s S src | repl-diff -s S | tee line | repl-apply R | repl-snap -s S --commit
	for n in longer longest; do
		{ echo "$n" && cat src/a; } >new
		cat new >src/a
		repl-snap -s S src | repl-diff -s S | tee "$n" | repl-apply R | repl-snap -s S --commit
		has "$(repl-show "$n")" "from='a'"
	done
	# From there a file of the same size: what the first of them copied is not what the third has to.
	{ tail -c +101 src/a && head -c 100 src/a; } >new
	cat new >src/a
	repl-snap -s S src | repl-diff -s S >turned
	cat longer longest turned >>line
	repl-apply R2 <line >ack
	same_tree src R2
	[[ $(repl-show ack | grep -c ^ack) == 4 ]]
	# What each says is about its own.
	[[ $(repl-show ack | grep -o ' bytes=[1-9][0-9]*$' | head -n 1) == " bytes=300000" ]]
	[[ $(repl-show ack | grep -c ' bytes=[0-9]\{1,5\}$') == 3 ]]
}

# bats test_tags=slow
@test "several roots travel as one image" {
	small_tree one
	small_tree two
	echo "I am two" >two/me
	ship snap="repl-snap -s S data=one www=two"
	same_tree one R/data
	same_tree two R/www
	[[ $(find R -mindepth 1 -maxdepth 1 ! -name .repl | wc -l) == 2 ]]
	change_tree one
	mv two/me two/you
	ship snap="repl-snap -s S data=one www=two"
	same_tree one R/data
	same_tree two R/www
	run -0 ship snap="repl-snap -s S data=one www=two" diff="repl-diff -s S | tee delta"
	[[ $(stat -c %s delta) -lt 1000 ]]
	# A file that moves from one root to the other moves on the replica.
	mv one/home/lovelace/photo two/photo
	ship snap="repl-snap -s S data=one www=two" diff="repl-diff -s S | tee delta"
	same_tree one R/data
	same_tree two R/www
	[[ $(stat -c %s delta) -lt 5000 ]]
}

@test "without a state, two directories are enough" {
	small_tree old
	cp -a old new
	change_tree new
	repl-diff old >full
	repl-apply R <full >ack
	same_tree old R
	run -0 run_pipe 'repl-diff old new | repl-pack | repl-apply R >ack'
	[[ -z $output ]]
	same_tree new R
	# Nothing to do is said in few words.
	cp -a new same
	repl-diff new same >delta
	[[ $(stat -c %s delta) -lt 1000 ]]
	run -0 bash -c 'repl-apply R <delta >ack'
	run -0 bash -c 'repl-diff --exit-code new same >delta'
	run -10 bash -c 'repl-diff --exit-code old new >delta'
}

@test "without a state, an image file stands in for the old tree" {
	small_tree src
	repl-diff --image=old.img src >full
	repl-apply R <full >ack
	change_tree src
	run -0 run_pipe 'repl-diff --image=new.img old.img src | repl-pack | repl-apply R >ack'
	same_tree src R
	[[ $(repl-show -n new.img | grep -c '^image') == 1 ]]
	echo more >src/more
	run -0 run_pipe 'repl-diff - src <new.img | repl-apply R >ack'
	same_tree src R
}

@test "an image says nothing of holes, however large they are" {
	# Sanitizers are slow with a TiB.
	size=1099511627776 one=500000000000 two=900000000000
	[[ $REPL_BUILD != *san ]] || size=274877906944 one=100000000000 two=250000000000
	mkdir src
	truncate -s $size src/thin
	printf one | dd of=src/thin bs=1 seek=$one conv=notrunc status=none
	repl-snap --digest src >img
	(($(stat -c %s img) < 1000)) || fail "the image has $(stat -c %s img) bytes"
	repl-diff src | repl-apply R >ack
	printf two | dd of=src/thin bs=1 seek=$two conv=notrunc status=none
	run -0 run_pipe 'repl-diff img src | tee delta | repl-apply R >ack'
	(($(stat -c %s delta) < 70000)) || fail "the delta has $(stat -c %s delta) bytes"
	[[ $(repl-show delta | grep -c "^data") == 1 && $(stat -c %s R/thin) == "$size" ]]
	(($(stat -c %b R/thin) < 1000))
	[[ $(dd if=R/thin bs=1 skip=$one count=3 status=none) == one ]]
	[[ $(dd if=R/thin bs=1 skip=$two count=3 status=none) == two ]]
	repl-apply --verify R
}

@test "the same trees give the same bytes" {
	small_tree old
	cp -a old new
	change_tree new
	repl-diff old new >a
	repl-diff old new >b
	cmp a b
	cp -a old old2
	cp -a new new2
	repl-diff old2 new2 >c
	# Only where they come from differs.
	repl-show a | sed "s|path='[^']*/new'||" >a.txt
	repl-show c | sed "s|path='[^']*/new2'||" >c.txt
	diff a.txt c.txt
	repl-diff -v --progress old new >d 2>/dev/null
	cmp a d
}

@test "a source that lost its state asks the replica what it has" {
	small_tree src
	ship
	rm -rf S
	change_tree src
	repl-snap --digest R >theirs.img
	repl-diff theirs.img src >delta
	[[ $(stat -c %s delta) -lt 20000 ]]
	run -0 run_pipe 'repl-pack <delta | repl-apply R >ack'
	same_tree src R
	# The image of a replica is that of its tree.
	[[ $(image_of R) == "$(image_of src)" ]]
}

# bats test_tags=slow
@test "a lost state over ssh: the replica's image comes back through the pipe" {
	small_tree src
	start_sshd
	ship apply="$(remote)"
	rm -rf S
	change_tree src
	"${SSH[@]}" repl-snap --digest "$PWD/R" >theirs.img
	run -0 run_pipe "repl-diff theirs.img src | repl-pack | $(remote) >ack"
	same_tree src R
}

# bats test_tags=slow
@test "a copy that rsync made is adopted, and only the difference travels" {
	requires rsync
	small_tree src
	rsync -aHAX --numeric-ids src/ R/
	run -0 --separate-stderr bash -c 'repl-apply --adopt R >ack'
	[[ -z $stderr ]]
	run -0 repl-show ack
	has "$output" "action=adopted"
	change_tree src
	repl-snap --digest R >theirs.img
	repl-diff theirs.img src >delta
	[[ $(stat -c %s delta) -lt 20000 ]]
	run -0 bash -c 'repl-apply R <delta >ack'
	same_tree src R
}

@test "a directory with content is no replica until somebody says so" {
	small_tree src
	mkdir R
	echo precious >R/precious
	before=$(fingerprint R)
	repl-diff src >delta
	run -6 bash -c 'repl-apply R <delta >ack'
	has "$output" "--adopt"
	[[ $(fingerprint R) == "$before" && ! -e R/.repl ]]
}

@test "a stream that was stored, split and joined is as good as a pipe" {
	small_tree src
	repl-diff src | repl-pack >full.rpl
	split -b 10000 full.rpl part.
	cat part.* >joined
	run -0 bash -c 'repl-apply R <joined >ack'
	same_tree src R
}

@test "a key signs the stream, and a replica with a key takes no other" {
	small_tree src
	(umask 077 && echo secret >key && echo wrong >key2)
	ship diff="repl-diff -s S --key-file key" pack="repl-pack --key-file key" apply="repl-apply --key-file key R"
	same_tree src R
	change_tree src
	repl-diff R src >unsigned
	repl-diff --key-file key2 R src >other
	before=$(fingerprint R)
	for f in unsigned other; do
		run -4 bash -c "repl-apply --key-file key R <$f >ack"
		[[ $(fingerprint R) == "$before" ]]
	done
}

@test "dry runs change nothing, and say what the real run will do" {
	small_tree src
	repl-diff src >full
	run -0 --separate-stderr bash -c 'repl-apply -n R <full >ack'
	[[ ! -e R ]]
	promised=$stderr
	run -0 --separate-stderr bash -c 'repl-apply -i R <full >ack'
	[[ -n $promised && $stderr == "$promised" ]] || diff <(echo "$promised") <(echo "$stderr")
	cp -a src new
	change_tree new
	repl-diff src new >delta
	before=$(find R -printf '%P %i %T@ %C@ %m %s\n' | sort)
	run -0 --separate-stderr bash -c 'repl-apply -n R <delta >ack'
	[[ $(find R -printf '%P %i %T@ %C@ %m %s\n' | sort) == "$before" && ! -s ack ]]
	promised=$stderr
	run -0 --separate-stderr bash -c 'repl-apply -i R <delta >ack'
	[[ -n $promised && $stderr == "$promised" ]] || diff <(echo "$promised") <(echo "$stderr")
	same_tree new R
}

@test "two runs at once: one is told that the other is busy" {
	small_tree src
	mkfifo never
	repl-diff src >full
	bash -c 'exec 3>&-; { head -c 1000 full; sleep 30; } | exec repl-apply R >ack' 3>&- &
	pid=$!
	for _ in {1..100}; do
		[[ ! -s R/.repl/lock ]] || break
		sleep 0.05
	done
	run -8 bash -c 'repl-apply R <full >ack2'
	pkill -P $pid || :
	kill $pid 2>/dev/null || :
	wait $pid || :
	# The lock died with its holder.
	run -0 bash -c 'repl-apply R <full >ack2'
	same_tree src R
}

# bats test_tags=slow
@test "the state's directory is not part of the tree that it lies in" {
	small_tree src
	ship snap="repl-snap -s src/S src" track="repl-track -s src/S" diff="repl-diff -s src/S" commit="repl-snap -s src/S --commit"
	[[ ! -e R/S ]]
	run -0 ship snap="repl-snap -s src/S src" track="repl-track -s src/S" diff="repl-diff -s src/S | tee delta" \
		commit="repl-snap -s src/S --commit"
	[[ $(stat -c %s delta) -lt 1000 ]] || repl-show delta
	rm -rf src/S
	same_tree src R --root=no
}

@test "without repl-track, and without repl-pack, it is the same image" {
	small_tree src
	run -0 run_pipe 'repl-snap -s S src | repl-diff -s S | repl-apply R | repl-snap -s S --commit'
	same_tree src R
	change_tree src
	run -0 run_pipe 'repl-snap -s S src | repl-diff -s S | repl-apply R | repl-snap -s S --commit'
	same_tree src R
	[[ $(base) == "$(image_of R)" ]]
}
