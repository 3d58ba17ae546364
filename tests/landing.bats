#!/usr/bin/env bats
# Landing: what a change costs, and what readers of the replica see meanwhile. Crashes have crash.bats.

load lib/setup
load lib/trees
load lib/craft

setup() {
	common_setup
	cd "$BATS_TEST_TMPDIR" || return 1
}
teardown() { common_teardown; }

# Bytes that a command wrote, by the kernel's count for it and its children (proc(5), io).
written() {
	python3 -c '
import os, subprocess, sys
p = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
os.waitid(os.P_PID, p.pid, os.WEXITED | os.WNOWAIT)
n = [int(l.split()[1]) for l in open("/proc/%d/io" % p.pid) if l.startswith("wchar")][0]
sys.exit("failed") if p.wait() else print(n)' "$@"
}

# Rewrites the N-th 4 KiB page of FILE.
new_page() { dd if=/dev/urandom of="$1" bs=4096 seek="$2" count=1 conv=notrunc status=none; }

# bats test_tags=slow
@test "a change inside a large file is written twice where nothing can be shared, and the file stays itself" {
	requires ext4
	at=$(mk_fs ext4 400M)
	mkdir src
	noise src/big 100000000
	run -0 bash -c "repl-diff src | repl-apply $at/R >ack"
	inode=$(stat -c %i "$at/R/big")
	cp -a src old
	for i in 3 77 1000 1001 20000; do new_page src/big $i; done
	printf 'not aligned' | dd of=src/big bs=1 seek=50001234 conv=notrunc status=none
	repl-diff old src >change.rpl
	bytes=$(written repl-apply "$at/R" <change.rpl)
	same_tree src "$at/R"
	[[ $(stat -c %i "$at/R/big") == "$inode" ]]
	# Twice six pages; catalog, plan and undo beside it.
	((bytes < 1000000)) || fail "$bytes bytes were written for 24 KiB"
}

@test "shared extents cost a change once" {
	requires xfs
	at=$(mk_fs xfs 400M -m reflink=1)
	mkdir src
	noise src/big 50000000
	run -0 bash -c "repl-diff src | repl-apply $at/R >ack"
	cp -a src old
	for i in 3 77 1000; do new_page src/big $i; done
	repl-diff old src >change.rpl
	bytes=$(written repl-apply "$at/R" <change.rpl)
	same_tree src "$at/R"
	((bytes < 1000000)) || fail "$bytes bytes were written for 12 KiB"
}

@test "a file in very many extents is not shared: what changes in it is written into it, and can be taken back" {
	requires xfs python3 no-sanitizer
	at=$(mk_fs xfs 900M -m reflink=1)
	mkdir src
	head -c 20000000 /dev/urandom >src/few
	head -c 139264000 /dev/urandom >src/many
	run -0 bash -c "repl-diff src | repl-apply $at/R >ack"
	# Every other page into what shares extents with the base's.
	cp -a src old
	python3 - src/many <<-'PY'
		import random, sys
		with open(sys.argv[1], "r+b") as f:
		    for i in range(0, 34000, 2):
		        f.seek(i * 4096)
		        f.write(random.randbytes(4096))
	PY
	run -0 bash -c "repl-diff old src | repl-apply $at/R >ack"
	sync -f "$at/R"
	[[ $(filefrag "$at/R/many") =~ ([0-9]+)\ extents ]] && ((BASH_REMATCH[1] > 16384)) || fail "$(filefrag "$at/R/many")"
	many=$(stat -c %i "$at/R/many") few=$(stat -c %i "$at/R/few")
	rm -r old
	cp -a src old
	for i in 3 77 1000; do
		new_page src/many $i
		new_page src/few $i
	done
	printf 'not aligned' | dd of=src/many bs=1 seek=50001234 conv=notrunc status=none
	repl-diff old src >change.rpl
	bytes=$(written repl-apply "$at/R" <change.rpl)
	same_tree src "$at/R"
	[[ $(stat -c %i "$at/R/many") == "$many" && $(stat -c %i "$at/R/few") != "$few" ]]
	((bytes < 1000000)) || fail "$bytes bytes were written for 32 KiB"
	run -0 repl-apply --rollback=-1 "$at/R"
	same_tree old "$at/R"
	[[ $(stat -c %i "$at/R/many") == "$many" ]]
	run -0 repl-apply --verify "$at/R"
}

# fill NAME...: half a MiB of anything in each.
fill() {
	local f
	for f; do dd if=/dev/urandom of="$f" bs=512K count=1 status=none; done
}

@test "what was replaced or removed takes no room once repl-apply has ended" {
	requires ext4
	at=$(mk_fs ext4 100M)
	mkdir src
	fill src/{1..60}
	ship="repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-apply --keep=0 $at/R | repl-snap -s S --commit"
	run_pipe "$ship"
	for _ in 1 2; do
		sync -f "$at"
		free=$(stat -f -c %f "$at")
		fill src/{1..50}
		rm src/{51..60}
		run_pipe "$ship"
		sync -f "$at"
		# Ten of 128 blocks less; what the catalog grew by is far less than one of them.
		(($(stat -f -c %f "$at") > free + 9 * 128)) || fail "$(stat -f -c %f "$at") blocks are free, $free were"
		same_tree src "$at/R"
		fill src/{51..60}
		run_pipe "$ship"
	done
}

@test "a file that somebody has open, or has linked elsewhere, is replaced and not changed" {
	requires ext4
	at=$(mk_fs ext4 200M)
	mkdir src
	noise src/open 3000000
	noise src/linked 3000000
	run -0 bash -c "repl-diff src | repl-apply $at/R >ack"
	cp -a src old
	ln "$at/R/linked" "$at/kept"
	for f in src/open src/linked; do
		new_page "$f" 5 # what is short and what is long are kept apart until then
		dd if=/dev/urandom of="$f" bs=4096 seek=100 count=50 conv=notrunc status=none
		new_page "$f" 200
	done
	repl-diff old src >change.rpl
	exec 8<"$at/R/open"
	run -0 bash -c "repl-apply $at/R <change.rpl >ack"
	cmp old/open - <&8
	exec 8<&-
	cmp old/linked "$at/kept"
	same_tree src "$at/R"
}

# bats test_tags=slow
@test "a reader sees each file old or new, never half" {
	requires ext4
	at=$(mk_fs ext4 200M)
	# Every page of a file holds the number of the image.
	make_image() {
		python3 - "$1" <<-'PY'
			import os, sys
			with open("src/file", "r+b" if os.path.exists("src/file") else "w+b") as f:
			    for page in range(0, 3000, 3):
			        f.seek(page * 4096)
			        f.write(b"%04095d\n" % int(sys.argv[1]))
		PY
	}
	mkdir src
	make_image 0
	run -0 bash -c "repl-diff src | repl-apply $at/R >ack"
	python3 - "$at/R/file" <<-'PY' 3>&- &
		import os, sys
		last = seen = 0
		while not os.path.exists("stop") and os.getppid() != 1:
		    with open(sys.argv[1], "rb") as f:
		        pages = {f.seek(p * 4096) * 0 or f.read(4096) for p in range(0, 3000, 3)}
		    assert len(pages) == 1, sorted(int(p) for p in pages)
		    now = int(pages.pop())
		    assert now >= last
		    seen += now != last
		    last = now
		open("seen", "w").write(str(seen))
	PY
	reader=$!
	for i in $(seq "$(samples 15)"); do
		cp -a --reflink=never src old
		make_image "$i"
		repl-diff old src >change.rpl
		rm -r old
		run -0 bash -c "repl-apply $at/R <change.rpl >ack"
	done
	touch stop
	wait "$reader"
	[[ -s seen ]]
	same_tree src "$at/R"
}

# bats test_tags=slow
@test "edits of every shape inside large files come out right, in place and replaced" {
	requires ext4
	at=$(mk_fs ext4 300M)
	mkdir src
	noise src/a 2500000
	noise src/b 4200001
	cp src/a src/c
	run -0 bash -c "repl-diff src | repl-apply $at/R >ack"
	cat >edit.py <<-'PY'
		import os, random, sys
		seed = int(sys.argv[1])
		r = random.Random(seed)
		for name in ("a", "b", "c"):
		    p = "src/" + name
		    for _ in range(r.randrange(1, 6)):
		        size = os.stat(p).st_size
		        f = open(p, "r+b")
		        what = r.randrange(7)
		        at = r.randrange(size)
		        n = r.choice([1, 11, 4095, 4096, 4097, 70000, 300000])
		        if what <= 1:
		            f.seek(at); f.write(r.randbytes(n))
		        elif what == 2:  # zeros, or a hole
		            if r.randrange(2):
		                f.seek(at); f.write(bytes(n))
		            else:
		                f.close(); os.system("fallocate -p -o %d -l %d %s" % (at, n, p)); continue
		        elif what == 3 and size < 9e6:
		            f.truncate(size + n)
		        elif what == 4 and size > 2e6:
		            f.truncate(size - n)
		        elif what == 5:  # moved inside the file
		            f.seek(at); d = f.read(n); f.seek(r.randrange(size)); f.write(d)
		        elif what == 6 and size < 9e6:  # an insertion
		            f.seek(at); d = f.read(); f.seek(at); f.write(r.randbytes(r.choice([1, 10, 4096])) + d)
		        f.close()
	PY
	for seed in $(seq "${REPL_SEED:-1}" $((${REPL_SEED:-1} + ${REPL_RUNS:-$(samples 24)}))); do
		cp -a --reflink=never src old
		python3 edit.py "$seed"
		repl-diff old src >change.rpl
		rm -r old
		run -0 bash -c "repl-apply $at/R <change.rpl >ack" || fail "seed $seed: $output"
		same_tree src "$at/R" || fail "seed $seed"
	done
}

# R2 is a copy of R. What cp(1) forgets: files named locked are immutable.
fresh() {
	rm -rf R2
	cp -a R R2
	find R2 -path R2/.repl -prune -o -name locked -exec chattr +i {} +
}

# killed_at CALL...: in R2 change.rpl makes what is in src; also when it is killed at one of these calls, and finished by the next run.
killed_at() {
	local n
	for n in '' "$@"; do
		fresh
		if [[ $n ]]; then
			bash -c "$REPL_BUILD/tests/lib/cut kill $n repl-apply R2 <change.rpl >ack" 2>err || :
		fi
		repl-apply R2 <change.rpl >ack
		same_tree src R2 || fail "killed at $n"
		[[ ! $(find R2/.repl/stage R2/.repl/slots -mindepth 1) ]]
	done
}

@test "new directories come whole, and nothing is inherited on the way" {
	requires root ext4
	cd "$(mk_fs ext4 64M)" || return 1
	mkdir -p src/was/in
	echo 1 >src/was/in/1
	repl-diff src | repl-apply R >ack
	for d in R R/.repl/stage; do setfacl -d -m u:1000:rwx "$d"; done
	setfacl -m u:1000:rwx R/.repl/stage
	chattr +d R/.repl/stage
	setfattr -n user.of -v stage R/.repl/stage
	cp -a src old
	mkdir -p src/a/b src/was/c
	for at in src src/a src/a/b src/was src/was/c; do
		echo "$at" >$at/plain
		echo x >$at/suid
		chmod 6751 $at/suid
		echo y >$at/attr
		setfattr -n user.x -v y $at/attr
		setfacl -m u:1000:r $at/attr
		echo z >$at/owned
		chown 1234:1235 $at/owned
		chmod 444 $at/owned
		ln $at/plain $at/second
		ln -s plain $at/link
		ln $at/second src/was/in/"${at//\//-}"
		mkfifo $at/fifo
	done
	truncate -s 100000 src/a/hole
	cp src/was/in/1 src/a/b/copied
	mv src/was/in/1 src/a/b/moved
	repl-diff old src >change.rpl
	# Also when it is killed anywhere, and finished by the next.
	# shellcheck disable=SC2046 # numbers
	killed_at $(seq 150 $((${REPL_LONG:-0} ? 7 : 60)) 800)
	repl-apply --verify R2
	repl-apply --rollback=-1 R2 >ack
	same_tree old R2
}

@test "what came with its directory is known as it stands: an edit of the same size and time is met" {
	mkdir -p src/d/e
	echo "text 1" >src/d/e/f
	echo "text 1" >src/d/e/g
	chmod 640 src/d/e/f
	ln src/d/e/g src/d/h
	cp -a src old
	echo "text 2" >src/d/e/f
	echo "text 2" >src/d/e/g
	repl-diff old src >delta.rpl
	for at in d/e/f d/e/g; do
		rm -rf R
		repl-diff old | repl-apply R >ack
		touch -r "R/$at" time
		echo "edit 1" >"R/$at"
		touch -r time "R/$at"
		run -6 --separate-stderr bash -c 'repl-apply --keep=0 R <delta.rpl >ack'
		has "$stderr" "edited on the replica 'R': 'd/"
		[[ $(cat "R/$at") == "edit 1" ]]
	done
	rm -rf R
	repl-diff old | repl-apply R >ack
	repl-apply R <delta.rpl >ack
	same_tree src R
}

@test "what moves and changes lands as one file, whenever it is killed" {
	requires root ext4
	cd "$(mk_fs ext4 64M)" || return 1
	mkdir -p src/d/e
	for i in 1 2 3; do
		seq $((i * 2000)) >src/d/moved$i
		seq $((i * 1000)) >src/d/swapped$i
		seq 2000 >src/d/linked$i
		ln src/d/linked$i src/d/e/linked$i
	done
	seq 400000 >src/d/large # patched in its place
	seq 3000 >src/d/locked
	cp -a src old
	repl-snap -s S src | repl-diff -s S | repl-apply R | repl-snap -s S --commit
	for i in 1 2 3; do
		mv src/d/moved$i src/d/e/here$i
		echo changed >>src/d/e/here$i
		mv src/d/linked$i src/linked$i # it keeps the other name
		echo changed >>src/linked$i
		mv src/d/swapped$i s$i
	done
	mv s1 src/d/swapped2
	mv s2 src/d/swapped3
	mv s3 src/d/swapped1
	for i in 1 2 3; do
		echo "swapped $i" >>src/d/swapped$i
	done
	mv src/d/large src/large
	printf changed | dd of=src/large bs=1 seek=1000000 conv=notrunc status=none
	mv src/d/locked src/d/e/locked
	echo changed >>src/d/e/locked
	chattr +i R/d/locked
	repl-snap -s S src | repl-diff -s S >change.rpl
	(($(repl-show change.rpl | grep -c '^attach') == 11))
	# shellcheck disable=SC2046 # numbers
	killed_at $(seq 90 $((${REPL_LONG:-0} ? 1 : 8)) 230)
	repl-apply --verify R2
	repl-apply --rollback=-1 R2 >ack
	chattr -i R/d/locked
	same_tree old R2
	repl-apply --rollback=-1 R2 >ack
	same_tree src R2
}

# What moves, comes and goes between directories in which no rename is like any other: old, src, S and change.rpl.
between() {
	mkdir -p src/one/deep/er src/two src/plain
	for at in src/one src/one/deep src/one/deep/er src/two src/plain; do
		echo "$at" >"$at/file"
		echo 1 >"$at/goes"
		ln -s nowhere "$at/link"
		mkfifo -m 640 "$at/fifo"
	done
	ln src/one/file src/one/name
	setfattr -n user.x -v y src/one/deep
	chmod 750 src/one/deep
	touch -h -d @1000000000 src/one/link
	cp -a src old
	repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-apply R | repl-snap -s S --commit
	mv src/one/deep src/two/new
	mv src/one/name src/two/name
	mv src/one/link src/two/link2
	mv src/plain/fifo src/one/fifo2
	ln -sfn elsewhere src/two/link
	ln src/plain/file src/one/more
	ln src/plain/file src/one/most
	mkdir -p src/one/made/it
	echo new | tee src/one/made/it/a src/one/made/b src/two/c >/dev/null
	echo changed >src/one/file
	find src -name goes -delete
	repl-snap -s S src | repl-diff -s S >change.rpl
}

to_and_fro() {
	repl-apply --verify R2
	repl-apply --rollback=-1 R2 >ack
	same_tree old R2
	repl-apply --rollback=-1 R2 >ack
	same_tree src R2
	repl-apply --verify R2
}

@test "directories with projects of their own (quota) on the replica take what comes, and keep their numbers" {
	requires root xfs
	cd "$(mk_fs xfs 300M)" || return 1
	between
	fresh() {
		rm -rf R2
		cp -a R R2
		find R2/one -type d -exec chattr -p 42 +P {} +
		find R2/two -type d -exec chattr -p 43 +P {} +
		[[ $# == 0 ]] || find R2/.repl -type d -exec chattr -p 44 +P {} +
		# What is made now has the number of its directory; of links it cannot be set.
		cp -a --remove-destination R/{one,two} R2/
	}
	# shellcheck disable=SC2046 # numbers
	killed_at $(seq 90 $((${REPL_LONG:-0} ? 1 : 12)) 290)
	[[ $(lsattr -pd R2/one R2/two R2/two/new/er R2/one/made/it | awk '{ print $1 $2 }' | tr -d -) == $'42P\n43P\n43P\n42P' ]]
	[[ $(lsattr -p R2/one/made/it/a R2/two/c R2/two/new/file | awk '{ print $1 }' | xargs) == "42 43 43" ]]
	to_and_fro
	# Also where .repl has one.
	fresh all
	repl-apply R2 <change.rpl >ack
	same_tree src R2
	to_and_fro
}

@test "directories that overlayfs does not rename move all the same" {
	requires root ext4
	cd "$(mk_fs ext4 64M)" || return 1
	mkdir low merged
	(cd low && between)
	mv low/{src,old,change.rpl} .
	mv low/R low/R2
	fresh() {
		! mountpoint -q merged || umount merged
		rm -rf up work
		mkdir up work
		mount -t overlay -o lowerdir=low,upperdir=up,workdir=work overlay merged
		ln -sfn merged/R2 R2
	}
	echo "$PWD/merged" >>"$(undo_dir)/.mounts"
	fresh || skip "cannot mount overlayfs here"
	run ! python3 -c 'import os; os.rename("R2/one/deep", "R2/two/deep")'
	has "$output" "Invalid cross-device link"
	# shellcheck disable=SC2046 # numbers
	killed_at $(seq 90 $((${REPL_LONG:-0} ? 1 : 24)) 290)
	to_and_fro
	[[ ! -e up/R2/one/deep/er ]]
}

@test "exFAT: what cannot be there is a loss, a name that cannot stand is refused, and nothing gets stuck" {
	local name before
	requires root mkfs.exfat mount.exfat-fuse
	mkdir small src src/d
	truncate -s 64M exfat.img
	mkfs.exfat exfat.img >&2
	mount -o loop -t exfat-fuse exfat.img small || skip "cannot mount exFAT here"
	echo "$PWD/small" >>"$(undo_dir)/.mounts"
	go="repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-apply small/R 2>said | repl-snap -s S --commit"
	content() { (cd "$1" && find . -name .repl -prune -o -type f -exec sha256sum {} + | sort -k2); }
	noise src/big 300000
	for name in one two/a two/b d/x; do
		mkdir -p "src/$(dirname $name)"
		echo "$name" >"src/$name"
	done
	for name in fifo d/fifo2; do mkfifo src/$name; done
	ln -s nowhere src/link
	ln src/one src/same
	run -3 bash -o pipefail -c "$go"
	has "$(cat said)" "'same' is a copy of another file, no hard link to it"
	has "$(cat said)" "the node 'fifo' was not made"
	has "$(cat said)" "the link 'link' was not made"
	diff <(content src) <(content small/R)
	repl-apply --verify small/R
	for name in one same; do # each of them changes when the file does
		echo "to $name" >>src/$name
		run -3 bash -o pipefail -c "$go"
		diff <(content src) <(content small/R)
	done
	repl-apply --verify small/R
	echo edited >small/R/same
	run -10 repl-apply --verify small/R
	has "$output" "edited 'same'"
	run bash -c "repl-apply --verify --wanted small/R | repl-diff -s S | repl-apply small/R | repl-snap -s S --commit"
	repl-apply --verify small/R

	# Changed, moved, and a name that goes while the other stays.
	printf x | dd of=src/big bs=1 seek=70000 conv=notrunc status=none
	mv src/d src/two/e
	rm src/one src/fifo
	echo three >>src/two/a
	run -3 bash -o pipefail -c "$go"
	diff <(content src) <(content small/R)
	repl-apply --verify small/R
	before=$(content small/R)

	# A name that is none there, or the same as another one; new, moved, and in a new directory.
	for name in 'a:b' $'bad\xff' $'new\nline' BIG; do
		echo bad >"src/$name"
		run -6 bash -c "repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-apply small/R"
		has "$output" "cannot stand on the filesystem of the replica"
		rm "src/$name"
		mv src/two "src/$name"
		run -6 bash -c "repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-apply small/R"
		has "$output" "cannot stand on the filesystem of the replica"
		mv "src/$name" src/two
	done
	[[ $(content small/R) == "$before" ]]
	mkdir src/new
	echo 1 >src/new/name
	echo 2 >src/new/NAME
	run -6 bash -c "repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-apply small/R"
	has "$output" "'new/"
	mv src/new/NAME src/new/other
	run -3 bash -o pipefail -c "$go"
	diff <(content src) <(content small/R)
	run -3 repl-apply --rollback=-1 small/R
	[[ $(content small/R) == "$before" ]]

	# A tree of a group stands there, and the replica on another filesystem.
	mkdir group other
	echo 1 >group/one
	ln group/one group/two
	run -3 bash -o pipefail -c "repl-snap -s T group other | repl-track -s T | repl-diff -s T |
		repl-apply --where group=small/group/ G | repl-snap -s T --commit"
	[[ $(cat small/group/two) == 1 ]]
	repl-apply --verify G
	echo 2 >small/group/two
	run -10 repl-apply --verify G
	umount small
}

@test "a file that was dropped again does not come with its directory" {
	# shellcheck disable=SC2154 # setup.bash sets it
	craft one.rpl <<-'PY'
		d = s.dir(1, b"d")
		s.file(d, b"a", b"stays")
		n = s.file(d, b"b", b"was gone when it was looked at again")
		s.rec(0x14, b"\0")
		del s.objects[d][4][b"b"]
		del s.objects[n]
		s.file(d, b"c", b"stays")
	PY
	repl-apply R <one.rpl >ack
	[[ $(cd R/d && echo *) == "a c" ]]
	repl-apply --verify R
}

# bats test_tags=slow
@test "a delta is finished as it was decided, whatever the options of who finishes it" {
	requires root
	mkdir src
	echo x >src/suid
	chown 12345 src/suid
	chmod 4755 src/suid
	echo y >src/other
	repl-diff src >full
	seen=0
	for n in $(seq 10 $((${REPL_LONG:-0} ? 1 : 3)) 90); do
		rm -rf R
		bash -c "$REPL_BUILD/tests/lib/cut kill $n repl-apply --no-setuid --map-owner=12345:777 R <full >ack" || :
		[[ -e R/.repl/commit ]] || continue
		[[ $(repl-apply --status R) == *finished* ]]
		[[ $(stat -c '%u %a' R/suid) == "777 755" ]] || fail "$n: $(stat -c '%u %a' R/suid)"
		[[ ! -e R/.repl/policy ]]
		seen=$((seen + 1))
	done
	((seen > 3))
}

# A thin disk: what the filesystem took on trust cannot be kept. It is noticed at the latest by the sync at the decision, whoever wrote.
disk_fails() {
	local fs=$1 at=$BATS_TEST_TMPDIR/$1-$2
	mkdir "$at.ram" "$at" src
	mount -t tmpfs -o size=100M tmpfs "$at.ram"
	printf '%s\n' "$at.ram" "$at" >>.mounts
	truncate -s 1G "$at.ram/disk"
	"mkfs.$fs" -q "$at.ram/disk"
	mount -o loop "$at.ram/disk" "$at"
	small_tree src
	noise src/large 3000000
	repl-diff src | repl-apply "$at/R" >ack
	cp -a src old
	"$2"
	repl-diff old src >change.rpl
	run -1 --separate-stderr repl-apply "$at/R" <change.rpl
	[[ ! $output ]] || fail "an acknowledgement came"
	umount "$at"
	mount -o remount,size=1G "$at.ram"
	mount -o loop "$at.ram/disk" "$at"
	run -0 repl-apply --verify "$at/R"
	same_tree old "$at/R"
	run -0 --separate-stderr repl-apply "$at/R" <change.rpl
	same_tree src "$at/R"
	umount "$at"
	umount "$at.ram"
	rm -rf src old
}
one_large() { noise src/large 120000000; }
many_small() {
	mkdir src/many
	for i in {1..20}; do noise "src/many/$i" 6000000; done
}

# bats test_tags=slow
@test "a disk that fails under what was written: nothing is decided, and once there is room the delta goes through" {
	requires ext4 xfs
	disk_fails ext4 one_large
	disk_fails xfs many_small
}
