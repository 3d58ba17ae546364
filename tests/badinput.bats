#!/usr/bin/env bats
# Damaged, hostile and impossible input: the documented status, a sentence, and a replica that nobody touched.

# Streams have names that shellcheck takes for those of commands.
# shellcheck disable=SC2238

load lib/setup
load lib/trees
load lib/craft
export REPL_LEAKS=0

setup() {
	common_setup
	export PYTHONPATH=$repl_root/tests/lib PYTHONDONTWRITEBYTECODE=1
}

# All there is to see of a tree but its control directory.
fingerprint() {
	find "$1" -path "$1/.repl" -prune -o -printf '%P %i %T@ %C@ %m %s %l\n' | sort
}

# refused_each STATUS FILE...: each goes to a replica that has content and to none at all: both stay as they are. With sanitizers,
# which take long to start, of many files every third.
refused_each() {
	local want=$1 before file n=0
	shift
	if [[ ! -e held ]]; then
		mkdir held.src
		echo precious >held.src/precious
		repl-diff held.src >held.full
		repl-apply held <held.full >held.ack
	fi
	before=$(fingerprint held)
	for file; do
		[[ $REPL_BUILD != *san || $# -lt 6 || $((n++ % 3)) == 0 ]] || continue
		repl-apply new <"$file" >answer 2>said && status=0 || status=$?
		[[ $status == "$want" ]] || fail "$file: status $status: $(<said)"
		[[ ! -s answer ]] || fail "$file: an acknowledgement came"
		if [[ -e new ]]; then
			[[ -z $(find new -mindepth 1 ! -path 'new/.repl*') ]] || fail "$file: $(find new)"
			rm -rf new
		fi
		repl-apply held <"$file" >/dev/null 2>&1 && status=0 || status=$?
		[[ $status == "$want" || $status == 5 ]] || fail "$file: status $status"
	done
	[[ $(fingerprint held) == "$before" && $(<held/precious) == precious ]] || fail "one of $*: $(fingerprint held)"
}

# refused STATUS FILE [TEXT]: the same for one, which says TEXT
refused() {
	refused_each "$1" "$2"
	has "$(<said)" "${3:-}"
}

@test "empty input is an error everywhere, and makes nothing" {
	mkdir src
	repl-snap -s S src >image
	for p in "repl-track -s S" "repl-diff -s S" "repl-diff - src" repl-pack "repl-pack -d" "repl-apply R" "repl-apply -n R" \
		"repl-snap -s S --commit" repl-show; do
		run -4 --separate-stderr bash -c "$p </dev/null"
		[[ -z $output && ${#stderr_lines[@]} == 1 && $stderr == "${p%% *}: "* ]] || fail "$p: $output $stderr"
	done
	[[ ! -e R ]]
}

@test "what is no stream at all is refused" {
	mkdir src
	head -c 5000 /dev/zero >zeros
	noise noise 5000
	echo "Welcome to host dr" >motd
	head -c 7 "$repl_root/tests/golden/full.repl" >seven
	for f in zeros noise motd seven; do
		for p in "repl-track -s S" "repl-diff - src" repl-pack "repl-pack -d" "repl-apply R" repl-show; do
			[[ $p != *track* ]] || continue
			run -4 --separate-stderr bash -c "$p <$f"
			[[ -z $output && $stderr == "${p%% *}: "* ]] || fail "$p <$f: $output $stderr"
		done
	done
	[[ ! -e R ]]
}

@test "a stream that is cut at any record border or anywhere else changes nothing" {
	small_tree src
	small_tree old
	repl-diff old >full
	change_tree src
	repl-apply R <full >ack
	repl-diff old src >delta
	before=$(fingerprint R)
	python3 - <<-'PY'
		import os, random, subprocess
		from craft import split
		d = open("delta", "rb").read()
		random.seed(5)
		cuts = set(split(d)[:-1]) | {random.randrange(len(d)) for _ in range(40)}
		if os.environ["REPL_BUILD"].endswith("san"):
		    cuts = set(random.sample(sorted(cuts), 25))
		for n in sorted(cuts | {0, 1, 8, 15, 16, 17, len(d) - 1, len(d) - 81}):
		    r = subprocess.run(["repl-apply", "R"], input=d[:n], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
		    assert r.returncode == 4 and not r.stdout and r.stderr.count(b"\n") == 1, (n, r)
	PY
	[[ $(fingerprint R) == "$before" ]]
	run -0 bash -c 'repl-apply R <delta >ack'
	same_tree src R
}

# bats test_tags=slow
@test "one flipped bit anywhere is noticed and changes nothing" {
	mkdir -p old/dir
	echo one >old/dir/file
	echo two >old/gone
	noise old/photo 9000
	cp -a old src
	mv src/dir src/moved
	rm src/gone
	echo three >src/new
	ln -s target src/link
	ln src/new src/hard
	printf xx | dd of=src/photo bs=1 seek=5000 conv=notrunc status=none
	repl-diff old >full
	repl-apply R <full >ack
	repl-diff old src >delta
	before=$(fingerprint R)
	python3 - <<-'PY'
		import os, random, subprocess
		d = open("delta", "rb").read()
		assert len(d) < 8000
		random.seed(6)
		# All of the header, every tenth byte of the rest; with sanitizers, which take long to start, fewer.
		step = 40 if os.environ["REPL_BUILD"].endswith("san") else 10
		start = random.randrange(step)
		for i in range(len(d)):
		    if i > 16 and i % step != start:
		        continue
		    bad = bytearray(d)
		    bad[i] ^= 1 << random.randrange(8)
		    r = subprocess.run(["repl-apply", "R"], input=bad, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
		    # 5: the damage made it a delta for somebody else; 6: or one beyond a limit.
		    # 1: or one for a file that is too large for this filesystem.
		    assert r.returncode in (4, 5, 6) or b"File too large" in r.stderr, (i, bad[i] ^ d[i], r)
		    # To a delta for another image it answers which one it has.
		    assert (not r.stdout or r.returncode == 5) and r.stderr.count(b"\n") == 1, (i, r)
	PY
	[[ $(fingerprint R) == "$before" ]]
	same_tree old R
	run -0 bash -c 'repl-apply R <delta >ack'
	same_tree src R
}

@test "how far the source's journal has come is nothing to repl-apply" {
	craft cursor <<-'PY'
		class Read(Delta):
		    def member(self):
		        return super().member().rec(0x44, b"j" * 16 + struct.pack("<Q", 7) + text(b""), flags=1)
		s = Read()
		s.file(1, b"name", b"content")
	PY
	run -0 bash -c 'repl-apply R <cursor >ack'
	[[ $(cat R/name) == content ]]
	run -0 repl-show cursor
	has "$output" "cursor journal=6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a seq=7"
}

@test "what only a plan may hold is refused when it is sent" {
	craft changed <<<'s.rec(0x41, struct.pack("<QB", 1, 32) + text(b"name"))'
	refused 4 changed "a 'changed' record, which only a plan may hold"
	craft gap <<<'s.rec(0x42, struct.pack("<Q", 1) + text(b"why"))'
	refused 4 gap "a 'gap' record, which only a plan may hold"
}

@test "a state that says nonsense about its journal is damaged" {
	mkdir src
	repl-snap -s S src >image
	for text in '' 'relative' '/no newline' ; do
		printf '%s' "$text" >S/journal
		run -1 bash -c 'repl-track -s S <image >change'
		has "$output" "the state directory is damaged: 'journal' holds no path"
		run -1 bash -c 'repl-snap -s S src >image2'
	done
}

@test "a well crafted stream is accepted: the tests below fail for their own reasons" {
	craft good <<-'PY'
		d = s.dir(1, b"dir")
		s.file(d, b"file", b"x" * 10000)
		s.link(1, b"link", b"dir")
		s.file(1, b"n" * 255, b"")
	PY
	run -0 bash -c 'repl-apply R <good >ack'
	[[ $(readlink R/link) == dir && $(stat -c %s R/dir/file) == 10000 ]]
}

# bats test_tags=slow
@test "names that lead elsewhere are refused" {
	n=0
	for name in ".." "." "" "a/b" "/abs" "../x" 'a\0b' '\0' "dir/"; do
		for make in "s.file(1, NAME, b'x')" "s.dir(1, NAME)" "s.link(1, NAME, b't')" "s.node(1, NAME, FIFO)" \
			"s.rec(0x12, struct.pack('<QQ', s.file(1, b'f', b'x'), 1) + text(NAME))" \
			"s.rec(0x10, struct.pack('<QQB', 2, 1, 1) + text(NAME))"; do
			n=$((n + 1))
			craft bad$n <<<"NAME = b'$name'"$'\n'"$make"
		done
	done
	craft long <<<"s.file(1, b'n' * 256, b'x')"
	craft member <<<"s = Delta(root=False); s.out.clear(); s = Stream(DELTA).image().member(name=b'..'); s.end = lambda: s"
	[[ $n == 54 ]]
	refused_each 4 bad* long member
}

@test "a newline in a name is a name, and stays on one line of the messages" {
	craft newline <<<"s.file(1, b'a\\nrepl-apply: all is well', b'x')"
	run -0 --separate-stderr bash -c 'repl-apply -i R <newline >ack'
	[[ ${#stderr_lines[@]} == 2 ]] || fail "$stderr"
	[[ -e R/$'a\nrepl-apply: all is well' ]]
}

@test "the replica's own directory cannot be named" {
	craft ctl <<<"d = s.dir(1, b'.repl'); s.file(d, b'catalog', b'mine now')"
	refused 4 ctl
	craft ctl2 <<<"s.link(1, b'.repl', b'/tmp')"
	refused 4 ctl2
	# Deeper down it is a name like any other.
	craft deep <<<"d = s.dir(1, b'd'); s.dir(d, b'.repl')"
	run -0 bash -c 'repl-apply R2 <deep >ack'
	[[ -d R2/d/.repl ]]
}

@test "records out of order, twice, of no kind or without their object are refused" {
	craft no-root <<<"s = Delta(root=False); s.id = lambda: bytes(32); s.file(1, b'f', b'x')"
	craft two-roots <<<"s.rec(0x11, struct.pack('<QQB', 1, 0, DIR) + text(b'')).rec(0x20, meta(0o755))"
	craft two-deltas <<<"s.rec(0x03, ZERO + bytes(16))"
	craft image-late <<<"s.file(1, b'f', b'x'); s.image()"
	craft early-end <<<"s.end(); s.file(1, b'f', b'x')"
	craft two-ends <<<"s.end()"
	craft orphan-meta <<<"s = Stream(DELTA).image().member(); s.rec(0x20, meta()); s.end = lambda: s"
	craft data-of-dir <<<"s.dir(1, b'd'); s.data(0, b'x')"
	craft content-of-link <<<"s.link(1, b'l', b't'); s.rec(0x21, b'\\0' + struct.pack('<I', 4096)); s.seal(0, tree(b''))"
	craft no-content <<<"s.create(1, b'f', FILE); s.rec(0x20, meta()); s.data(0, b'x'); s.seal(1, tree(b'x'))"
	craft no-seal <<<"r = s.create(1, b'f', FILE); s.rec(0x20, meta()).rec(0x21, b'\\0' + struct.pack('<I', 4096)); s.data(0, b'x'); s.objects[r] = [FILE, meta(), 1, tree(b'x'), {}]"
	craft no-meta <<<"s.create(1, b'f', DIR); s.objects[2] = [DIR, meta(), 0, ZERO, {}]"
	craft backwards <<<"r = s.create(1, b'f', FILE); s.rec(0x20, meta()).rec(0x21, b'\\0' + struct.pack('<I', 4096)); s.data(4096, b'x'); s.data(0, b'y' * 4096); s.seal(4097, tree(b'y' * 4096 + b'x')); s.objects[r] = [FILE, meta(), 4097, tree(b'y' * 4096 + b'x'), {}]"
	craft overlap <<<"r = s.create(1, b'f', FILE); s.rec(0x20, meta()).rec(0x21, b'\\0' + struct.pack('<I', 4096)); s.data(0, b'y' * 4096); s.data(100, b'x'); s.seal(4096, tree(b'y' * 4096)); s.objects[r] = [FILE, meta(), 4096, tree(b'y' * 4096), {}]"
	craft never-given <<<"s.file(77, b'f', b'x')"
	craft skipped-number <<<"s.create(1, b'f', FIFO, ref=9); s.rec(0x20, meta())"
	craft not-a-dir <<<"f = s.file(1, b'f', b'x'); s.file(f, b'g', b'x')"
	craft twice <<<"s.file(1, b'f', b'x'); s.file(1, b'f', b'y')"
	craft no-base <<<"s.rec(0x10, struct.pack('<QQB', 2, 1, 0) + text(b'f'))"
	craft copy <<<"r = s.create(1, b'f', FILE); s.rec(0x20, meta()).rec(0x21, b'\\0' + struct.pack('<I', 4096)).rec(0x23, struct.pack('<QQQQ', 0, 1, 1, 0)); s.seal(1, tree(b'x'))"
	craft patch <<<"r = s.create(1, b'f', FILE); s.rec(0x20, meta()).rec(0x21, b'\\1' + struct.pack('<I', 4096)); s.seal(0, tree(b'')); s.objects[r] = [FILE, meta(), 0, tree(b''), {}]"
	craft unknown <<<"s.rec(0x7777, b'payload')"
	craft ack-record <<<"s.rec(0x50, bytes(129))"
	craft wrong-id <<<"s.id = lambda: bytes([7]) * 32"
	craft wrong-digest <<<"r = s.create(1, b'f', FILE); s.rec(0x20, meta()).rec(0x21, b'\\0' + struct.pack('<I', 4096)); s.data(0, b'x', tree(b'y')); s.seal(1, tree(b'x')); s.objects[r] = [FILE, meta(), 1, tree(b'x'), {}]"
	craft wrong-seal <<<"r = s.create(1, b'f', FILE); s.rec(0x20, meta()).rec(0x21, b'\\0' + struct.pack('<I', 4096)); s.data(0, b'x'); s.seal(1, tree(b'y')); s.objects[r] = [FILE, meta(), 1, tree(b'y'), {}]"
	craft dir-loop <<<"d = s.dir(1, b'd'); s.rec(0x12, struct.pack('<QQ', d, d) + text(b'again'))"
	craft dir-twice <<<"d = s.dir(1, b'd'); s.rec(0x12, struct.pack('<QQ', d, 1) + text(b'again'))"
	craft root-again <<<"d = s.dir(1, b'd'); s.rec(0x12, struct.pack('<QQ', 1, d) + text(b'up'))"
	refused_each 4 no-root two-roots two-deltas image-late early-end two-ends orphan-meta data-of-dir content-of-link no-content \
		no-seal no-meta backwards overlap never-given skipped-number not-a-dir copy patch unknown ack-record wrong-id \
		wrong-digest wrong-seal dir-loop dir-twice root-again
	refused 5 no-base
	refused 5 twice
}

@test "an unknown record is named, an optional one is passed over" {
	craft unknown <<<"s.rec(0x7777, b'payload')"
	refused 4 unknown 7777
	craft optional <<<"s.rec(0x7776, b'payload', flags=1)"
	run -0 bash -c 'repl-apply R <optional >ack'
	run -0 --separate-stderr repl-show optional
	has "$stderr" "skipped 1 optional"
}

@test "a newer version and an unknown feature are named and refused" {
	craft version <<<"s = Delta(version=2)"
	refused 4 version "version 2"
	craft feature <<<"s = Delta(features=4)"
	refused 4 feature
	for f in version feature; do
		run -4 repl-show $f
		run -4 repl-pack <$f
	done
}

@test "lengths at the limits are taken, past them refused, and nobody allocates what is only promised" {
	craft data-max <<<"r = s.create(1, b'f', FILE); s.rec(0x20, meta()).rec(0x21, b'\\0' + struct.pack('<I', 1048576)); s.data(0, b'x' * 1048576); s.seal(1048576, tree(b'x' * 1048576)); s.objects[r] = [FILE, meta(), 1048576, tree(b'x' * 1048576), {}]"
	run -0 bash -c 'repl-apply R <data-max >ack'
	craft target-max <<<"s.file(1, b'f', b''); s.rec(0x04, b'\\0' + struct.pack('<I', 5) + text(b'n' * 4096))"
	run -0 bash -c 'repl-apply R3 <target-max >ack'
	craft data-over <<<"r = s.create(1, b'f', FILE); s.rec(0x20, meta()).rec(0x21, b'\\0' + struct.pack('<I', 1048576)); s.data(0, b'x' * 1048577); s.seal(1048577, tree(b'x' * 1048577)); s.objects[r] = [FILE, meta(), 1048577, tree(b'x' * 1048577), {}]"
	craft owner-over <<<"s.rec(0x04, b'\\0' + struct.pack('<I', 5) + text(b'n' * 4097))"
	craft target-over <<<"s.link(1, b'l', b't' * 65536)"
	craft no-target <<<"s.link(1, b'l', b'')"
	craft record-over <<<"s.rec(0x7776, b'', flags=1, length=4194305)"
	craft record-huge <<<"s.rec(0x7776, b'', flags=1, length=0xffffffff)"
	craft string-huge <<<"s.rec(0x11, struct.pack('<QQBI', 2, 1, FILE, 0xffffffff) + b'x')"
	craft string-wrap <<<"s.rec(0x11, struct.pack('<QQBI', 2, 1, FILE, 0xfffffff8) + b'x')"
	craft trailing <<<"s.rec(0x11, struct.pack('<QQB', 2, 1, FILE) + text(b'f') + b'more')"
	craft short <<<"s.rec(0x20, meta()[:-5])"
	craft mode <<<"s.file(1, b'f', b'', mode=0o10644)"
	craft nanoseconds <<<"s.file(1, b'f', b'', ns=1000000000)"
	craft attr <<<"s.file(1, b'f', b'', attr=1)"
	craft type <<<"s.node(1, b'f', 9)"
	craft socket <<<"s.node(1, b'f', SOCKET)"
	craft grain <<<"r = s.create(1, b'f', FILE); s.rec(0x20, meta()).rec(0x21, b'\\0' + struct.pack('<I', 1234)); s.seal(0, tree(b''))"
	craft xattr-order <<<"s.file(1, b'f', b'', xattrs=text(b'user.b') + text(b'') + text(b'user.a') + text(b''))"
	craft xattr-cut <<<"s.file(1, b'f', b'', xattrs=text(b'user.b') + struct.pack('<I', 4000000) + b'x')"
	content="r = s.create(1, b'f', FILE); s.rec(0x20, meta()).rec(0x21, b'\\0' + struct.pack('<I', 4096))"
	craft off-over <<<"$content; s.data(1 << 62, b'x'); s.seal((1 << 62) + 1, ZERO)"
	craft off-wrap <<<"$content; s.data((1 << 64) - 1, b'xx'); s.seal(1, ZERO)"
	craft hole-wrap <<<"$content; s.hole(4096, (1 << 64) - 4096); s.seal(0, ZERO)"
	craft hole-over <<<"$content; s.hole(0, (1 << 62) + 1); s.seal(0, ZERO)"
	craft seal-over <<<"$content; s.seal((1 << 62) + 1, ZERO)"
	craft seal-short <<<"$content; s.data(0, b'xxxx'); s.seal(2, tree(b'xx'))"
	refused_each 4 data-over owner-over target-over no-target record-over record-huge string-huge string-wrap trailing short mode \
		nanoseconds attr type socket grain xattr-order xattr-cut off-over off-wrap hole-wrap hole-over seal-over seal-short
	# The largest size is not wrong, only too much for a disk.
	craft size-max <<<"$content; s.hole(0, 1 << 62); s.seal(1 << 62, bytes([1]) * 32)"
	limit="ulimit -v 4000000"
	[[ $REPL_BUILD != *san ]] || limit=: # a sanitizer's shadow does not fit into any limit
	run bash -c "$limit; repl-apply R2 <size-max >ack"
	[[ $status == @(1|4|6) ]]
	[[ -z $(find R2 -mindepth 1 ! -path 'R2/.repl*') ]]
}

@test "a link in the stream is not a way out" {
	mkdir outside
	craft through <<<"l = s.link(1, b'l', b'$PWD/outside'); s.file(l, b'evil', b'x')"
	refused 4 through
	# In two streams: first the link, then what goes through it.
	craft first <<<"s.link(1, b'l', b'$PWD/outside')"
	repl-apply R <first >ack
	python3 - <<-'PY'
		from craft import *
		first = Delta()
		first.link(1, b"l", open("/proc/self/cwd/first", "rb").read().split(b"/outside")[0])
		base = split(open("first", "rb").read())
		d = open("first", "rb").read()
		end = d[base[-3] + 8:base[-3] + 40]
		s = Delta(base=end, root=False)
		s.id = lambda: bytes(32)
		s.rec(0x10, struct.pack("<QQB", 2, 1, 0) + text(b"l"))
		s.file(2, b"evil", b"x")
		s.save("second")
	PY
	run -4 bash -c 'repl-apply R <second >ack'
	[[ -z $(ls outside) && -L R/l ]]
}

@test "a link that somebody planted in the replica is not followed" {
	mkdir outside
	mkdir -p src/dir/sub
	echo 1 >src/dir/sub/file
	repl-diff src >full
	repl-apply R <full >ack
	cp -a src old
	echo 2 >src/dir/sub/file
	echo new >src/dir/sub/new
	rm -rf R/dir/sub
	ln -s "$PWD/outside" R/dir/sub
	echo mine >outside/file
	repl-diff old src >delta
	before=$(fingerprint R)
	run -6 bash -c 'repl-apply R <delta >ack'
	[[ $(fingerprint R) == "$before" && $(cat outside/file) == mine && $(ls outside) == file ]]
	# Nor in place of the control directory.
	mkdir R2
	ln -s "$PWD/outside" R2/.repl
	run bash -c 'repl-apply R2 <full >ack'
	[[ $status -ne 0 && $(ls -A outside) == file && $(ls -A R2) == .repl ]]
	mv R/.repl moved
	ln -s "$PWD/moved" R/.repl
	run bash -c 'repl-apply R <delta >ack'
	[[ $status -ne 0 && $(cat outside/file) == mine ]]
}

@test "a file on the replica that was edited, or is in the way, stops the delta with status 6" {
	mkdir src
	for n in 1 2 3; do
		echo $n >src/$n
	done
	repl-diff src >full
	repl-apply R <full >ack
	cp -a src old
	echo changed >src/1
	rm src/2
	echo new >src/new
	repl-diff old src >delta
	for edit in 'echo edited >R/1' 'echo edited >R/2' 'rm R/1; mkdir R/1' 'echo in the way >R/new' 'rm R/1' 'mkdir R/new'; do
		rm -rf R
		repl-apply R <full >ack
		bash -c "$edit"
		before=$(fingerprint R)
		run -6 bash -c 'repl-apply R <delta >ack'
		[[ $(fingerprint R) == "$before" ]] || fail "$edit"
	done
	# What the delta does not touch is not looked at.
	rm -rf R
	repl-apply R <full >ack
	echo local >R/local
	run -0 bash -c 'repl-apply R <delta >ack'
	[[ $(cat R/local) == local ]]
}

@test "a target that is a file, not writable or missing its parent fails with status 1" {
	requires root setpriv
	small_tree src
	repl-diff src >full
	chmod 644 full
	echo text >file
	run -1 bash -c 'repl-apply file <full >ack'
	has "$output" file
	[[ $(cat file) == text ]]
	run -1 bash -c 'repl-apply nowhere/R <full >ack'
	mkdir closed
	chmod 755 .
	run -1 bash -c 'setpriv --reuid nobody --clear-groups repl-apply closed/R <full >ack'
	run -1 bash -c 'setpriv --reuid nobody --clear-groups repl-apply closed <full >ack'
	[[ -z $(ls -A closed) ]]
	fs=$(MOUNT_OPTIONS=ro mk_fs ext4 8M)
	run -1 bash -c "repl-apply '$fs/R' <full >ack"
}

@test "a full filesystem fails with status 1, leaves the old image, and the next try succeeds" {
	requires ext4
	fs=$(mk_fs ext4 12M)
	mkdir src
	noise src/a 2000000
	repl-diff src >full
	repl-apply "$fs" <full >ack
	noise src/b 9000000 2
	noise src/a 2000000 3
	repl-snap --digest "$fs" >theirs
	repl-diff theirs src >delta
	fallocate -l 1500000 "$fs/ballast"
	rm "$fs/ballast"
	free=$(stat -f -c %f "$fs")
	before=$(fingerprint "$fs")
	for n in 1 2; do
		run -1 bash -c "repl-apply '$fs' <delta >ack"
		has "$output" "No space left"
		diff <(echo "$before") <(fingerprint "$fs")
		[[ $(stat -f -c %f "$fs") -ge $((free - 100)) ]] || fail "the space was not given back"
	done
	rm src/b
	echo small >src/c
	repl-diff theirs src >delta
	run -0 bash -c "repl-apply '$fs' <delta >ack"
	same_tree src "$fs"
}

@test "an OLD that is no image is refused with status 4" {
	mkdir src
	echo x >src/x
	repl-diff src >delta
	noise noise 3000
	for old in delta noise; do
		run -4 --separate-stderr repl-diff $old src
		[[ -z $output ]]
	done
	repl-snap --digest src >image
	head -c 200 image >cut
	run -4 --separate-stderr repl-diff cut src
	run -1 repl-diff missing src
	run -1 repl-diff src missing
	run -2 repl-diff src image
}

# bats test_tags=slow
@test "a tree that changes under the walk is read as far as it holds still" {
	mkdir -p src/calm
	noise src/calm/file 100000
	python3 - 3>&- <<-'PY' &
		import os, random, shutil, sys
		random.seed(7)
		os.chdir("src")
		while not os.path.exists("../stop"):
		    n = "churn%d" % random.randrange(30)
		    if os.path.islink(n) or not os.path.isdir(n):
		        if os.path.lexists(n):
		            os.unlink(n)
		    else:
		        shutil.rmtree(n)
		    what = random.randrange(6)
		    if what == 0:
		        os.mkdir(n)
		        os.mkdir(n + "/sub")
		        open(n + "/sub/file", "w").write("x" * random.randrange(10000))
		    elif what == 1:
		        open(n, "w").write("y" * random.randrange(100000))
		    elif what == 2:
		        os.symlink("/etc", n)
		    elif what == 3:
		        os.mkfifo(n)
		    elif what == 4 and os.path.exists("churn0"):
		        try:
		            os.rename("churn0", n)
		        except OSError:
		            pass
	PY
	pid=$!
	[[ $REPL_BUILD == *san ]] && rounds=6 || rounds=12
	for ((round = 1; ; round++)); do
		run timeout 20 bash -o pipefail -c 'repl-snap -s S src | repl-track -s S | repl-diff -s S >delta'
		[[ $status == [03] ]] || break
		run timeout 20 bash -c 'repl-apply R <delta >ack'
		[[ $status == 0 ]] || break
		cmp src/calm/file R/calm/file
		run -0 repl-snap -s S --commit <ack
		((round < rounds)) || break
	done
	touch stop
	wait $pid
	[[ $round == "$rounds" && $status == 0 ]] || fail "round $round: status $status, $output"
	run_pipe 'repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-apply R | repl-snap -s S --commit'
	same_tree src R
}

# bats test_tags=slow
@test "directories 1000 levels deep and paths beyond PATH_MAX travel, change and go" {
	python3 - <<-'PY'
		import os
		os.mkdir("src")
		os.chdir("src")
		for i in range(1000):
		    os.mkdir("d")
		    os.chdir("d")
		open("bottom", "w").write("deep")
	PY
	python3 - <<-'PY'
		import os
		os.chdir("src")
		for i in range(40):
		    name = "%03d" % i + "n" * 252
		    os.mkdir(name)
		    os.chdir(name)
		    open("f" * 255, "w").write("far %d" % i)
	PY
	run -0 run_pipe 'repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-pack | repl-apply R | repl-snap -s S --commit'
	[[ -z $output ]]
	same_tree src R
	python3 - <<-'PY'
		import os
		os.chdir("src")
		for i in range(999):
		    os.chdir("d")
		open("d/bottom", "a").write("er")
		os.rename("d", "e")
		os.symlink("e", "d")
	PY
	run -0 run_pipe 'repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-pack | repl-apply R | repl-snap -s S --commit'
	[[ -z $output ]]
	same_tree src R
	rm -rf src/d src/000*
	run -0 run_pipe 'repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-pack | repl-apply R | repl-snap -s S --commit'
	[[ -z $output ]]
	same_tree src R
}

@test "what cannot be read is named, left out with status 3, and the replica keeps what it had" {
	requires root setpriv
	chmod 777 .
	chmod 711 "$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR/test"
	as_nobody() {
		TMPDIR=. setpriv --reuid nobody --regid nogroup --clear-groups bash -o pipefail -c "$1"
	}
	mkdir -p src/closed src/open
	echo secret >src/secret
	echo inside >src/closed/inside
	echo plain >src/open/plain
	repl-diff src >full
	repl-apply R <full >ack
	cp -a R R2
	chmod 600 src/secret
	chmod 700 src/closed
	echo changed >src/secret
	echo changed >src/closed/inside
	echo changed >src/open/plain
	repl-snap --digest R >theirs
	chmod 644 theirs
	run -3 --separate-stderr as_nobody 'repl-diff theirs src >delta'
	has "$stderr" "'secret'"
	has "$stderr" "'closed'"
	run -0 bash -c 'repl-apply R <delta >ack'
	[[ $(cat R/open/plain) == changed && $(cat R/secret) == secret && $(cat R/closed/inside) == inside ]]
	# With nothing there to keep, they are just missing.
	run -3 as_nobody 'repl-diff src >first'
	run -0 bash -c 'repl-apply R3 <first >ack'
	[[ $(cat R3/open/plain) == changed && ! -e R3/secret && ! -e R3/closed/inside ]]
	# Over a state, and again when it can be read.
	run -3 as_nobody 'repl-snap -s S ./src | repl-track -s S | repl-diff -s S >delta'
	run -0 bash -c 'repl-apply R4 <delta >ack'
	chmod 644 src/secret ack
	chmod 755 src/closed
	run -0 as_nobody 'repl-snap -s S --commit <ack && repl-snap -s S src | repl-track -s S | repl-diff -s S >delta'
	run -0 bash -c 'repl-apply R4 <delta >ack'
	same_tree src R4
}

@test "a delta that would remove too much is refused with status 6" {
	mkdir src
	for n in {1..20}; do
		echo "$n" >"src/$n"
	done
	repl-diff src >full
	repl-apply R <full >ack
	cp -a src old
	rm src/1*
	repl-diff old src >delta
	before=$(fingerprint R)
	for limit in 10 0 40% 1%; do
		run -6 bash -c "repl-apply --max-delete $limit R <delta >ack"
		[[ $(fingerprint R) == "$before" ]]
	done
	run -2 bash -c "repl-apply --max-delete many R <delta >ack"
	run -0 bash -c "repl-apply --max-delete 11 R <delta >ack"
	same_tree src R
}

@test "a replica can be the source of another, and its own directory stays at home" {
	small_tree src
	repl-diff src >full
	repl-apply R <full >ack
	repl-diff R >second
	run -0 bash -c 'repl-apply R2 <second >ack'
	same_tree src R2
	echo more >src/more
	repl-diff R src >delta
	run -0 bash -c 'repl-apply R2 <delta >ack'
	same_tree src R2
}
