#!/usr/bin/env bats
# Somebody means harm: a stream, a client of sshd, a local user beside the replica. What is outside of the replica stays as it is,
# memory and disk are bounded, and what was refused has changed nothing. Damage and nonsense are in badinput.bats.

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

# clean FILE: nothing in it that a terminal would obey
clean() {
	! LC_ALL=C grep -aq $'[\001-\011\013-\037\177]' "$1" || fail "$(cat -v "$1")"
}

# refused STATUS REPLICA FILE [OPTION...]: nothing in the replica changes, no answer comes, one clean line says why
refused() {
	local want=$1 to=$2 file=$3 before
	shift 3
	before=$(fingerprint "$to")
	run bash -c 'repl-apply "${@:3}" "$1" <"$2" 2>said' - "$to" "$file" "$@"
	[[ $status == "$want" ]] || fail "$file: status $status: $(cat said)"
	[[ -z $output && $(fingerprint "$to") == "$before" ]] || fail "$file: something happened: $output"
	[[ $(wc -l <said) == 1 ]] || fail "$file: $(cat -v said)"
	clean said
	[[ -z $(find "$to/.repl/stage" "$to/.repl/slots" -mindepth 1) && ! -e $to/.repl/commit ]] || fail "$file: litter"
}

# outside: a folder beside everything, and what it must look like for ever
outside() {
	mkdir -p outside/sub
	echo secret >outside/file
	echo root >outside/sub/file
	outside_was=$(fingerprint outside)
}

untouched() {
	diff <(echo "$outside_was") <(fingerprint outside)
}

# bats test_tags=slow
@test "names that the image does not have cannot be copied, linked, moved or changed" {
	outside
	mkdir src
	echo mine >src/file
	repl-diff src >full
	repl-apply R <full >ack
	echo local >R/local
	ln -s "$PWD/outside" R/way
	cp -p /bin/true R/suid
	chmod 4755 R/suid
	n=0
	for name in .repl local way suid lost+found; do
		for what in "s.rec(0x12, struct.pack('<QQ', 2, 1) + text(b'second'))" \
			"s.create(1, b'copy', FILE, 3); s.rec(0x20, meta()).rec(0x21, b'\\0' + struct.pack('<I', 4096)); s.rec(0x23, struct.pack('<QQQQ', 0, 5, 2, 0))" \
			"s.rec(0x20, meta(0o4755))" "s.create(2, b'new', DIR, 3)" "pass"; do
			for flag in 0 1; do
				# Detached or not makes no difference to what follows.
				[[ $flag == 0 || $what == pass ]] || continue
				n=$((n + 1))
				craft_on R bad <<-PY
					s.rec(0x10, struct.pack('<QQB', 2, 1, $flag) + text(b'$name'))
					$what
				PY
				refused 5 R bad
			done
		done
	done
	[[ $n == 30 ]]
	# Nor what lies behind a link that the image itself has.
	ln -s "$PWD/outside" src/link
	repl-diff src >full
	repl-apply R2 <full >ack
	for name in file sub; do
		craft_on R2 bad <<-PY
			s.rec(0x10, struct.pack('<QQB', 2, 1, 0) + text(b'link'))
			s.rec(0x10, struct.pack('<QQB', 3, 2, 1) + text(b'$name'))
		PY
		refused 5 R2 bad
	done
	untouched
}

@test "descriptions that could not be placed are refused before anything is decided" {
	mkdir -p src/a/deep src/e
	echo x >src/a/file
	repl-diff src >full
	repl-apply R <full >ack
	base() { echo "s.rec(0x10, struct.pack('<QQB', $1, $2, $4) + text(b'$3'))"; }
	attach() { echo "s.rec(0x12, struct.pack('<QQ', $1, $2) + text(b'$3'))"; }
	craft_on R below-nothing <<<"$(base 2 1 a 1; base 3 1 e 1; attach 2 3 e; attach 3 1 a)"
	craft_on R below-itself <<<"$(base 2 1 a 1; base 3 2 deep 0; attach 2 3 a)"
	craft_on R twice <<<"$(base 2 1 a 1; attach 2 1 b; attach 2 1 c)"
	craft_on R late <<<"$(base 2 1 a 0; echo "s.dir(1, b'new')"; base 2 1 a 1)"
	craft_on R no-content <<<"s.create(1, b'f', FILE); s.rec(0x20, meta())"
	craft_on R no-seal <<<"s.create(1, b'f', FILE); s.rec(0x20, meta()).rec(0x21, b'\\0' + struct.pack('<I', 4096)); s.data(0, b'x')"
	craft_on R no-seal-of-old <<<"$(base 2 1 a 0; base 3 2 file 0); s.rec(0x21, b'\\0' + struct.pack('<I', 4096)); s.data(0, b'x')"
	craft_on R number <<<"s.create(1, b'f', FIFO); s.rec(0x20, meta(major=1))"
	for f in below-nothing below-itself twice late no-content no-seal no-seal-of-old number; do
		refused 4 R $f
	done
	echo more >>src/a/file
	repl-diff R src >delta
	run -0 bash -c 'repl-apply R <delta >ack'
	same_tree src R
}

# bats test_tags=slow
@test "a local user who swaps a directory for a link while deltas land gets nothing outside changed" {
	outside
	mkdir -p one/dir/sub
	for n in {1..8}; do
		echo "$n" >one/dir/file"$n"
		echo "$n" >one/dir/sub/file"$n"
	done
	cp -a one two
	for n in {1..8}; do
		echo "two $n" >two/dir/sub/file"$n"
		mv two/dir/file"$n" two/dir/moved"$n"
	done
	repl-diff one >full
	repl-diff one two >there
	repl-diff two one >back
	repl-apply R <full >ack
	ln -s "$PWD/outside" link
	# RENAME_EXCHANGE: at each moment there is one of the two.
	python3 - 3>&- <<-'PY' &
		import ctypes, os, time
		libc = ctypes.CDLL(None, use_errno=True)
		swaps = 0
		while not os.path.exists("stop"):
		    if libc.renameat2(-100, b"R/dir", -100, b"link", 2) == 0:
		        swaps += 1
		    time.sleep(0.0005)
		if os.path.islink("R/dir"):
		    libc.renameat2(-100, b"R/dir", -100, b"link", 2)
		open("swaps", "w").write(str(swaps))
	PY
	pid=$!
	landed=0
	for _ in {1..40}; do
		for delta in there back; do
			run bash -c "repl-apply R <$delta 2>>said >ack"
			[[ $status == [0156] ]] || break 2
			[[ $status != 0 ]] || landed=$((landed + 1))
		done
	done
	touch stop
	wait $pid
	[[ $status == [0156] ]] || fail "status $status: $(tail -n 3 said)"
	untouched
	[[ -L link && ! -L R/dir && $(cat swaps) -gt 0 ]]
	# What was decided is finished now that the tree is itself again.
	for delta in there back there; do
		bash -c "repl-apply R <$delta >ack" || :
	done
	# The swaps themselves left their time on the root.
	touch -r two R
	echo "# $landed of 80 landed through $(cat swaps) swaps" >&3
	same_tree two R
}

@test "the process is confined: not even a catalog that leads outside is opened" {
	repl-apply -nv R <"$repl_root/tests/golden/full.repl" 2>said >/dev/null
	grep -q Landlock said || fail "$(cat said)"
	! grep -q 'not confined' said || skip "no Landlock here"
	mkdir src tmp
	echo x >src/x
	repl-diff src >full
	repl-apply R <full >ack
	echo y >src/y
	repl-diff R src >delta
	# Whoever owns the directory could do this. Without the confinement LMDB would follow, and write.
	mkdir other
	mv R/.repl/catalog other/catalog
	ln -s "$PWD/other/catalog" R/.repl/catalog
	before=$(sha256sum other/catalog)
	run bash -c 'TMPDIR=$PWD/tmp repl-apply R <delta >ack'
	[[ $status == 1 && $(sha256sum other/catalog) == "$before" && ! -e R/y ]] || fail "status $status: $output"
	has "$output" "Permission denied"
	# The same in what may be written: so it was the place, not the link.
	run -0 bash -c 'TMPDIR=$PWD/other repl-apply R <delta >ack'
	[[ $(sha256sum other/catalog) != "$before" && -e R/y ]]
}

# bats test_tags=slow
@test "a key in authorized_keys that is restricted to a replica can do nothing else" {
	requires root
	start_sshd
	outside
	mkdir src
	echo x >src/x
	cp /bin/true src/suid
	chmod 4755 src/suid
	mkdir src/sgid
	chmod 2775 src/sgid
	mknod src/null c 1 3
	requires setcap setfattr
	cp /bin/true src/cap
	setcap cap_net_raw+ep src/cap
	setfattr -n user.kept -v yes src/x
	setfattr -n trusted.evil -v yes src/x 2>/dev/null || :
	echo "command=\"repl-apply --restrict --max-delete 3 $PWD/R\",restrict $(cat "$SSHD_DIR/id.pub")" >"$SSHD_DIR/authorized_keys"
	repl-diff src >full
	for command in "repl-apply -n --dry-run" "repl-apply -nv /other" "repl-apply --dry-run $PWD/outside"; do
		run --separate-stderr bash -c '"$@" <full' - "${SSH[@]}" "$command"
		[[ $status == 0 && -z $output && ! -e R ]] || fail "$command: $output $stderr"
	done
	has "$stderr" ">f+++++++++ x"
	# Words for a shell, other programs, other places, other rules: only "apply" is left of them.
	run -3 --separate-stderr bash -c '"$@" <full >ack' - "${SSH[@]}" \
		"repl-apply --adopt --no-owner --key-file=$PWD/outside/file --max-delete=100% $PWD/outside; touch pwned; \$(touch $PWD/pwned) >$PWD/pwned"
	has "$stderr" "ignored --adopt --no-owner --key-file="
	run -0 repl-show ack
	[[ -z $(find . -name pwned) && ! -e R/pwned ]]
	untouched
	[[ $(cat R/x) == x && $(stat -c %a R/suid) == 755 && $(stat -c %a R/sgid) == 2775 && ! -e R/null ]]
	[[ -z $(getcap R/cap) && $(getfattr -m - -d R/x) == *user.kept* && $(getfattr -m - -d R/x) != *trusted* ]]
	# The limit is the one of the key, whatever the client says; and nothing of a file outside is said.
	rm -r src/suid src/cap src/sgid src/null src/x
	repl-snap --digest R >theirs
	repl-diff theirs src >flood
	before=$(fingerprint R)
	run -6 --separate-stderr bash -c '"$@" <flood' - "${SSH[@]}" "repl-apply --max-delete=100% --verbose $PWD/R"
	has "$stderr" "--max-delete"
	[[ $(fingerprint R) == "$before" && $stderr != *secret* ]]
	run -4 --separate-stderr bash -c '"$@" </dev/null' - "${SSH[@]}"
	[[ -z $output ]]
	run -0 --separate-stderr bash -c '"$@" <full' - "${SSH[@]}" "cat --list $PWD/outside/file"
	[[ $output == now* && $output$stderr != *secret* ]]
	untouched
}

@test "numbers, content and names of a delta are bounded by what the replica allows" {
	mkdir R
	python3 - <<-'PY'
		from craft import *
		s = Delta()
		for i in range(70000):
		    s.dir(1, b"%05d" % i)
		s.id = lambda ref=1: bytes(32)
		s.save("many")
		s = Delta()
		s.file(1, b"f", b"x" * 3000000)
		s.save("big")
	PY
	mkdir src
	repl-diff src >full
	repl-apply R <full >ack
	repl-diff big >/dev/null 2>&1 || :
	mkdir E
	for limit in 1M 1000000; do
		run -6 bash -c "repl-apply --max-memory $limit E <many"
		has "$output" "--max-memory"
	done
	run -6 bash -c "repl-apply --max-content 2999999 E <big"
	has "$output" "--max-content"
	[[ -z $(find E -mindepth 1 ! -path 'E/.repl*') && -z $(ls E/.repl/stage) ]]
	run -0 bash -c "repl-apply --max-content 3000000 E <big >ack"
	run -2 bash -c "repl-apply --max-memory lots E <big"
	# Copies count: one file, many times over.
	noise src/data 1000000
	repl-diff src >full
	rm -rf R
	repl-apply R <full >ack
	craft_on R copies <<-'PY'
		s.rec(0x10, struct.pack('<QQB', 2, 1, 0) + text(b'data'))
		s.create(1, b'huge', FILE, 3)
		s.rec(0x20, meta()).rec(0x21, b'\0' + struct.pack('<I', 4096))
		for i in range(1000):
		    s.rec(0x23, struct.pack('<QQQQ', i * 1000000, 1000000, 2, 0))
	PY
	refused 6 R copies --max-content 20M
}

@test "the catalog's own numbers, which only a plan may use, are refused in a stream" {
	local n=0 what own='(1 << 63) + 2'
	mkdir -p src/a
	echo old >src/a/file
	repl-diff src >full
	repl-apply R <full >ack
	for what in "s.rec(0x10, struct.pack('<QQB', $own, 1, 0) + text(b'a'))" \
		"s.rec(0x10, struct.pack('<QQB', 2, $own, 0) + text(b'file'))" \
		"s.rec(0x13, struct.pack('<Q', $own)).rec(0x20, meta())" \
		"s.rec(0x12, struct.pack('<QQ', 1 + $own, 1) + text(b'second'))" \
		"s.rec(0x10, struct.pack('<QQB', 2, 1, 1) + text(b'a')).rec(0x12, struct.pack('<QQ', 2, $own) + text(b'b'))" \
		"s.rec(0x15, struct.pack('<Q', $own) + text(b'stray'))" \
		"s.create($own, b'new', FILE)" \
		"s.create(1, b'copy', FILE, 2); s.rec(0x20, meta()).rec(0x21, b'\\0' + struct.pack('<I', 4096)); s.rec(0x23, struct.pack('<QQQQ', 0, 4, 1 + $own, 0))"; do
		n=$((n + 1))
		craft_on R bad <<<"$what"
		refused 4 R bad
		grep -qE 'object number 92233720368547758[0-9]{2} (was never given|is out of order)' said || fail "$n: $(cat said)"
	done
	[[ $n == 8 ]]
}

@test "an image that there is no room for is refused before anything is staged" {
	requires ext4
	fs=$(mk_fs ext4 16M)
	mkdir src
	noise src/a 30000000
	truncate -s 1T src/sparse
	repl-diff src >full
	run -1 bash -c "repl-apply '$fs' <full"
	[[ $output =~ needs\ [0-9]{8}\ bytes.*has\ room\ for\ [0-9]{8} ]] || fail "$output"
	[[ -z $(ls "$fs/.repl/stage") ]]
	# What is a hole needs none.
	truncate -s 1000000 src/a
	repl-diff src >full
	run -0 bash -c "repl-apply '$fs' <full >ack"
	same_tree src "$fs"
}

# bats test_tags=slow
@test "bombs: small streams that unpack to much are stopped, in bounded memory" {
	requires zstd
	python3 - <<-'PY'
		from craft import *
		import os
		s = Delta()
		m = s.create(1, b"zeros", FILE)
		s.rec(0x20, meta()).rec(0x21, b"\0" + struct.pack("<I", 1 << 20))
		s.data(0, bytes(1 << 20))
		block = struct.pack("<HHI", 0x22, 0, 40 + (1 << 20))
		d = tree(bytes(1 << 20))
		with os.popen("zstd -q -1 -o bomb.zst", "w") as p:
		    out = p.buffer
		    out.write(s.bytes())
		    for i in range(1, 256):
		        out.write(block + struct.pack("<Q", i << 20) + d + bytes(1 << 20))
		# A frame that asks for a window of 2 GiB; frames without content, many of them.
		open("window.zst", "wb").write(b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\x00\x00")
		open("tiny.zst", "wb").write((b"\x28\xb5\x2f\xfd\x20\x00" + b"\x01\x00\x00") * 200000)
		# As many attributes as fit into one record.
		rows = b"".join(text(b"user.%06x" % i) + text(b"") for i in range(REC // 19)) if (REC := 4 << 20) else b""
		s = Delta()
		s.create(1, b"f", FIFO)
		s.rec(0x20, meta() + rows[:(4 << 20) - 38 - ((4 << 20) - 38) % 19])
		s.id = lambda ref=1: bytes(32)
		s.save("xattrs")
		s = Delta()
		s.create(1, b"f", FIFO)
		s.rec(0x20, meta(), length=0xffffffff)
		s.save("length")
	PY
	[[ $(stat -c %s bomb.zst) -lt 500000 ]]
	# The largest process of the run, in KiB.
	cat >peak <<-'PY'
		import os, resource, subprocess, sys
		r = subprocess.run(["repl-apply", *sys.argv[2:], "E"], stdin=open(sys.argv[1]), stdout=subprocess.DEVNULL)
		print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
		sys.exit(r.returncode)
	PY
	mkdir E
	try() {
		run -"$1" --separate-stderr python3 peak "${@:2}"
		[[ $REPL_BUILD == *san || $output -lt 262144 ]] || fail "$2 took $output KiB"
		[[ -z $(find E -mindepth 1 ! -path 'E/.repl*') ]] || fail "$2: $(find E)"
	}
	try 6 bomb.zst --max-content 64M
	has "$stderr" "--max-content"
	try 4 bomb.zst -n
	try 4 window.zst
	try 4 tiny.zst
	try 4 xattrs
	try 4 length
}

@test "who is not root keeps aside what only root may set, and root sets it all later" {
	requires root setpriv setcap setfattr
	chmod 777 .
	chmod 711 "$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR/test"
	as_nobody() {
		TMPDIR=. setpriv --reuid nobody --regid nogroup --clear-groups bash -o pipefail -c "$1"
	}
	mkdir -p src/dir/sub src/closed
	echo a >src/dir/a
	ln src/dir/a src/b
	echo s >src/suid
	ln -s nowhere src/link
	mkfifo src/fifo
	mknod src/null c 1 3
	mknod src/dir/sub/disk b 7 200
	chown -h 1234:4321 src/dir/a src/suid src/link src/fifo src/dir src/null
	chmod 6755 src/suid
	chmod 3770 src/dir
	chmod 500 src/closed
	setcap cap_net_raw+ep src/dir/a
	setfattr -n trusted.t -v yes src/dir
	repl-diff src >full
	run -3 --separate-stderr as_nobody 'repl-apply R <full >ack'
	[[ ! -e R/null && $(stat -c %U R/suid) == nobody && ! -u R/suid ]]
	# A second delta by the same user does not forget what the first could not set.
	repl-snap --digest R >theirs
	echo more >>src/dir/a
	setcap cap_net_raw+ep src/dir/a
	mknod src/closed/zero c 1 5
	chmod 640 src/suid
	chmod 6755 src/suid
	repl-diff theirs src >delta
	run -3 --separate-stderr as_nobody 'repl-apply R <delta >ack'
	run -0 --separate-stderr repl-apply --restore-meta R
	[[ -z $output && -z $stderr ]] || fail "$output $stderr"
	same_tree src R
	# It is the image that it was, again and again, and goes on from there.
	repl-snap --digest R >theirs
	run -0 repl-apply --restore-meta R
	run -0 bash -c 'repl-diff --checksum --exit-code theirs R >/dev/null'
	echo changed >src/suid
	rm src/null
	repl-diff theirs src >delta
	run -0 bash -c 'repl-apply R <delta >ack'
	same_tree src R
	# What somebody edited is named, and stays.
	echo longer >>R/b
	run -3 --separate-stderr repl-apply --restore-meta R
	has "$stderr" "'b' is not what the image says"
	run -1 repl-apply --restore-meta missing
	[[ ! -e missing ]]
	run -2 repl-apply --restore-meta --adopt R
}

@test "with a key, nothing unsigned, altered or sent before is taken, along a chain that comes back to where it was" {
	(umask 077 && echo secret >key)
	mkdir src
	echo one >src/file
	touch -d @1000000000 src/file src
	state() { # NAME: the next image, signed, applied and committed
		run_pipe "repl-snap -s S src | repl-track -s S | repl-diff -s S --key-file key >$1 && repl-apply --key-file key R <$1 >ack &&
			repl-snap -s S --commit <ack"
	}
	state first
	cp -a src was
	echo two >src/file
	state second
	rm -r src
	cp -a was src
	state third
	same_tree was R
	# The tree is that of the first again: the second's base. It was signed, and fits, and is still refused.
	refused 6 R second --key-file key
	has "$(cat said)" "sent before"
	before=$(fingerprint R)
	run -5 bash -c 'repl-apply --key-file key R <first >ack'
	[[ $(fingerprint R) == "$before" ]]
	# The last one was lost on the way back: it may come twice.
	run -0 bash -c 'repl-apply --key-file key R <third >ack'
	same_tree was R
	# Another base, another number, no signature.
	python3 - <<-'PY'
		from craft import *
		d = bytearray(open("second", "rb").read())
		first = open("first", "rb").read()
		at = split(d)
		def forged(name, change):
		    c = bytearray(d)
		    change(c)
		    open(name, "wb").write(c)
		    # With a trailer that is right in all but the mac, which nobody without the key can make.
		    s = Stream(DELTA)
		    offs = split(c)
		    for a, b in zip(offs[:-2], offs[1:-1]):
		        type, flags, n = struct.unpack_from("<HHI", c, a)
		        s.rec(type, bytes(c[a + 8:b]), flags, covered=40 if type == 0x22 else None)
		    s.trailer()
		    open(name + "-unsigned", "wb").write(s.bytes())
		    open(name + "-borrowed", "wb").write(s.bytes()[:-32] + bytes(d[-32:]))
		def seq(c):
		    c[at[0] + 8 + 72] = 99
		def base(c):
		    n = [a for a in at[:-1] if c[a] == 3 and c[a + 1] == 0][0]
		    c[n + 8:n + 40] = bytes(32)
		forged("seq", seq)
		forged("base", base)
		forged("same", lambda c: None)
	PY
	for f in seq seq-unsigned seq-borrowed; do
		refused 4 R $f --key-file key
	done
	for f in base-unsigned base-borrowed; do
		refused 4 R $f --key-file key
	done
	# "same-borrowed" is the signed stream itself: what was refused above was the forgery.
	cmp second same-borrowed
	echo three >src/file
	state fourth
	same_tree src R
}

@test "control characters in what a stream says stay out of messages" {
	esc=$'\033'
	mkdir src
	echo x >src/x
	repl-diff src >full
	repl-apply R <full >ack
	n=$(printf 'a\\x1b[2J\\x07\\r\\nrepl-apply: done')
	craft_on R missing <<<"s.rec(0x10, struct.pack('<QQB', 2, 1, 0) + text(b'$n'))"
	refused 5 R missing
	has "$(cat said)" '\033[2J'
	craft_on R below <<<"s.create(1, b'$n', FILE); s.rec(0x20, meta()); s.rec(0x10, struct.pack('<QQB', 3, 1, 0) + text(b'$n'))"
	refused 5 R below
	# In the way, in a list, as the name of an owner, of the host, of a member.
	mkdir E
	craft names <<-PY
		s = Stream(DELTA)
		s.rec(0x01, bytes(64) + struct.pack("<qQ", 0, 0) + bytes(16) + b"\1\1" + text(b"$n"[:5]) + text(b"$n") + text(b"$n"))
		s.member(path=b"$n").rec(0x03, bytes(48))
		t = Delta()
		s.rec(0x04, b"\0" + struct.pack("<I", 0) + text(b"$n"))
		s.rec(0x11, struct.pack("<QQB", 1, 0, DIR) + text(b"")).rec(0x20, meta(0o755))
		s.rec(0x11, struct.pack("<QQB", 2, 1, LINK) + text(b"$n")).rec(0x20, meta(0o777, target=b"$n"))
		t.link(1, b"$n", b"$n")
		s.end = lambda: s.rec(0x2f, t.id() + struct.pack("<QQ", 2, 0))
	PY
	run -0 bash -c 'repl-apply -v -i --map-owner=names E <names 2>said >ack'
	clean said
	has "$(cat said)" '\033[2J'
	[[ $(readlink "E/"a*) == *"$esc"* ]]
	rm -rf E/a* E/.repl
	mkdir "E/"$'a\033[2J\007\r\nrepl-apply: done'
	run -6 bash -c 'repl-apply E <names 2>said'
	clean said
}
