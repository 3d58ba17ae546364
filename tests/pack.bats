#!/usr/bin/env bats
# repl-pack: a zstd file with a plain stream inside, whatever the options, and nothing else comes out again.

# Streams have names that shellcheck takes for those of commands.
# shellcheck disable=SC2238

load lib/setup
load lib/trees

setup() {
	common_setup
	export PYTHONPATH=$repl_root/tests/lib PYTHONDONTWRITEBYTECODE=1
	mkdir src
	noise src/noise 1500000
	seq 1 200000 >src/text
	echo small >src/small
	repl-diff src >plain
}

size() {
	stat -c %s "$1"
}

# bats test_tags=slow
@test "packed and unpacked is the same, and zstd -d does it as well" {
	for options in "" "--level 1" "--level 19" "-l -5" "-T 1" "-T 3" "--long" "--long=27" "--adapt" "--chunk 4K" "--chunk 8M" "--flush" \
		"--rate 100M"; do
		run -0 --separate-stderr bash -c "repl-pack $options <plain >packed"
		[[ -z $stderr ]] || fail "$options: $stderr"
		zstd -q -d -c --memory=128MB packed | cmp - plain || fail "zstd after $options"
		run -0 bash -c 'repl-pack -d <packed >again'
		cmp plain again || fail "repl-pack -d after $options"
		zstd -q -t packed
	done
}

@test "the same input gives the same bytes, however many threads squeeze" {
	repl-pack -T 1 <plain >one
	repl-pack -T 4 <plain >four
	cmp one four
	repl-pack <plain | cmp - one
}

@test "what zstd packed is taken by every reader" {
	zstd -q -c plain >packed
	run -0 bash -c 'repl-pack -d <packed >again'
	cmp plain again
	run -0 bash -c 'repl-apply R <packed >ack'
	same_tree src R
	zstd -q --long=27 -19 -c plain >packed2
	run -0 bash -c 'repl-apply R2 <packed2 >ack'
}

@test "a plain stream is not unpacked, and a packed one is not packed twice" {
	run -4 --separate-stderr bash -c 'repl-pack -d <plain'
	[[ -z $output ]]
	has "$stderr" "not packed"
	repl-pack <plain >packed
	run bash -c 'repl-pack <packed >twice'
	[[ $status != 0 ]] || zstd -q -d -c twice | cmp - plain
}

@test "noise costs next to nothing, text shrinks, and levels matter" {
	mkdir only
	cp src/noise only
	repl-diff only | tee noisy | repl-pack --stats 2>said >packed
	[[ $(size packed) -le $(($(size noisy) + $(size noisy) / 500 + 400)) ]]
	[[ $(grep 'raw chunks' said | tr -dc 0-9) -ge 1 ]]
	repl-pack --level 1 <plain >fast
	repl-pack --level 19 <plain >small
	[[ $(size small) -lt $(size fast) && $(size fast) -lt $(size plain) ]]
}

# Frames of raw blocks of 128 KiB, which are written from where they lie and taken apart without a decompressor.
@test "noise of every length comes back, and zstd -d takes it" {
	mkdir only
	noise only/noise 1300000 5
	repl-diff only >noisy
	for chunk in 128K 131071 131073 256K 262145 1000000 8M; do
		repl-pack --chunk=$chunk --stats <noisy 2>said >packed
		[[ $(grep 'raw chunks' said | tr -dc 0-9) -ge 1 ]]
		zstd -q -d -c packed | cmp - noisy || fail "chunks of $chunk: zstd -d"
		for threads in 1 3; do
			repl-pack -d --threads=$threads <packed | cmp - noisy || fail "chunks of $chunk, $threads threads"
		done
	done
	repl-pack --rate=20M <noisy | cmp - <(repl-pack <noisy)
	# The bits of heads of blocks: another frame, or none.
	repl-pack --chunk=256K <noisy >packed
	python3 - <<-'PY'
		import subprocess
		d = open("packed", "rb").read()
		at = d.index(b"\x28\xb5\x2f\xfd\xa0")
		for place in *range(at, at + 12), at + 12 + 131072, at + 13 + 131072, at + 14 + 131072:
		    for bit in range(8):
		        bad = bytearray(d)
		        bad[place] ^= 1 << bit
		        r = subprocess.run(["repl-pack", "-d", "--threads=1"], input=bad, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
		        assert r.returncode == 4, (place, bit, r.returncode)
	PY
}

@test "--long finds what is far apart" {
	mkdir far
	noise far/a 3000000 4
	cp far/a far/b
	repl-diff --no-copies far >far.plain
	repl-pack <far.plain >short
	repl-pack --long <far.plain >long
	[[ $(size long) -lt $(($(size short) * 6 / 10)) ]] || fail "$(size long) of $(size short)"
	run -0 bash -c 'repl-apply R <long >ack'
	same_tree far R
}

# bats test_tags=slow
@test "--rate holds the rate" {
	start=$(date +%s%N)
	repl-pack --rate 500K <plain >packed
	took=$((($(date +%s%N) - start) / 1000000))
	expected=$(($(size packed) * 1000 / 512000))
	[[ $took -ge $((expected - 1300)) && $took -le $((expected + 1500)) ]] || fail "$took ms, not $expected"
}

@test "--adapt ends at a whole stream, also when the reader is slow" {
	run -0 run_pipe 'repl-pack --adapt <plain | { sleep 0.5; cat; } >packed'
	zstd -q -d -c packed | cmp - plain
}

# bats test_tags=slow
# bats test_tags=slow
@test "without a level: small streams harder, harder still for a slow reader; with one the same bytes each time" {
	# Real text, and more of it than a chunk remembers.
	mkdir text
	while (($(size text/t 2>/dev/null || echo 0) < 66 << 20)); do
		cat "$repl_root"/{libcore,cmd,tests/unit}/*.[ch] "$repl_root"/man/* >>text/t
	done
	repl-diff text >large
	cat >slowly <<-'PY'
		import os, time
		while b := os.read(0, 262144):
		    os.write(1, b)
		    time.sleep(0.05)
	PY
	for level in "" "-l 3" "-l 6" "-l 7"; do
		# shellcheck disable=SC2086 # two words
		repl-pack --chunk=128K $level <large >"file$level"
	done
	# It rises only where there are processors to be had: before all others, where we may.
	local first=()
	! chrt -r 1 true 2>/dev/null || first=(chrt -r 1)
	"${first[@]}" repl-pack --chunk=128K <large | python3 slowly >line
	zstd -q -d -c line | cmp - large
	repl-pack --chunk=128K -l 3 <large | python3 slowly | cmp - "file-l 3"
	(($(size line) < $(size file) && $(size file) < $(size "file-l 3")))
	# The first bytes are those of level 7, then come those of level 6.
	cmp -n 2000000 file "file-l 7"
	run -1 cmp -s file "file-l 7"
	python3 -c 'file, six, seven = (open(n, "rb").read() for n in ("file", "file-l 6", "file-l 7")); piece = file[4 << 20:6 << 20]
assert piece in six and piece not in seven'
	ZSTD_CLEVEL=3 repl-pack --chunk=128K <large | cmp - "file-l 3"
	run -0 bash -c 'ZSTD_CLEVEL=high repl-pack --chunk=128K <large >again'
	has "$output" "ZSTD_CLEVEL is 'high', not a level: left alone"
	cmp file again
	repl-pack --flush <plain | cmp - <(repl-pack -l 7 --flush <plain)
}

# bats test_tags=slow
@test "what the replica has to copy goes out before a chunk is full of it" {
	mkdir a b
	head -c 150M /dev/urandom >a/f
	{ echo inserted && cat a/f; } >b/f
	repl-diff a b >shifted
	(($(size shifted) < 100000 && $(repl-show shifted | grep -c '^copy') >= 9))
	repl-pack --stats <shifted >shifted.packed 2>said
	repl-pack -d <shifted.packed | cmp - shifted
	run -0 awk '$2 == "chunks:" { print $3 }' said
	((output == 3))
}

@test "without a level: what a high one makes larger is squeezed with a low one" {
	mkdir digits
	python3 -c 'import random; print(random.Random(1).randbytes(2 << 20).hex())' >digits/f
	repl-diff digits >digits.plain
	repl-pack -l 3 <digits.plain >three
	repl-pack -l 7 <digits.plain >seven
	(($(size three) < $(size seven)))
	repl-pack <digits.plain >free
	(($(size free) <= $(size three)))
}

@test "several streams stay several, and packed files can be joined" {
	echo more >src/more
	repl-diff src >second
	cat plain second >both
	run -0 bash -c 'repl-pack <both >packed'
	zstd -q -d -c packed | cmp - both
	repl-pack <plain >one
	repl-pack <second >two
	cat one two >joined
	run -0 bash -c 'repl-pack -d <joined >again'
	cmp both again
	[[ $(repl-show joined | grep -c ^trailer) == 2 ]]
}

@test "with a key the stream is signed; without it, or with another one, nothing is accepted" {
	(umask 077 && echo secret >key && echo other >wrong && : >empty && head -c 65 plain >long)
	run -0 bash -c 'repl-pack --key-file key <plain >signed'
	run -0 bash -c 'repl-pack -d --key-file key <signed >again'
	run -0 bash -c 'repl-apply --key-file key R <signed >ack'
	same_tree src R
	for other in "--key-file wrong R2 <signed" "--key-file key R2 <plain" "R2 <signed"; do
		run -4 bash -c "repl-apply $other >ack"
		[[ -z $(ls R2 2>/dev/null) && ! -s ack ]]
	done
	run -4 bash -c 'repl-pack -d --key-file wrong <signed >again'
	run -4 bash -c 'repl-pack -d --key-file key <plain >again'
	# One that is there already is replaced only by who can check it.
	repl-diff --key-file key src >signed2
	run -0 bash -c 'repl-pack <signed2 | repl-apply --key-file key R3 >ack'
	chmod 644 key
	run bash -c 'repl-pack --key-file key <plain >signed'
	[[ $status == @(2|6) ]]
	for f in empty long missing; do
		run bash -c "repl-pack --key-file $f <plain >signed"
		[[ $status == @(1|2|6) && ! -s signed ]] || fail "$f: $status"
	done
}

# bats test_tags=slow
@test "a packed stream that is cut anywhere is an error, and changes nothing" {
	repl-pack --chunk 64K <plain >packed
	repl-apply R <packed >ack
	echo "new" >src/new
	repl-diff R src >next
	repl-pack --chunk 64K <next >next.packed
	python3 - <<-'PY'
		import os, random, subprocess
		random.seed(8)
		for name in "packed", "next.packed":
		    d = open(name, "rb").read()
		    for n in sorted({0, 1, 4, 8, 11, 12, 19, 20, 31, 32, 33, len(d) - 1, len(d) - 4, len(d) - 100} |
		                    {random.randrange(len(d)) for _ in range(25)}):
		        if not 0 <= n < len(d):
		            continue
		        r = subprocess.run(["repl-pack", "-d"], input=d[:n], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
		        whole = r.returncode == 0
		        # Only the index may be missing: the stream itself has its trailer.
		        assert r.returncode == 4 or whole and r.stdout == open({"packed": "plain"}.get(name, "next"), "rb").read(), (n, r)
		        if name == "next.packed" and not whole:
		            r = subprocess.run(["repl-apply", "R"], input=d[:n], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
		            assert r.returncode == 4 and not r.stdout, (n, r)
	PY
	[[ ! -e R/new ]]
	run -0 bash -c 'repl-apply R <next.packed >ack'
	same_tree src R
}

# bats test_tags=slow
@test "a flipped bit in a packed stream is noticed, or there is no harm in it" {
	mkdir few
	cp src/small few
	seq 1 500 >few/text
	repl-diff few >few.plain
	repl-pack <few.plain >packed
	mkdir held
	python3 - <<-'PY'
		import os, random, shutil, subprocess
		random.seed(9)
		d = open("packed", "rb").read()
		plain = open("few.plain", "rb").read()
		for i in range(len(d)):
		    if i > 40 and i % (7 if os.environ.get("REPL_LONG") else 19):
		        continue
		    bad = bytearray(d)
		    bad[i] ^= 1 << random.randrange(8)
		    r = subprocess.run(["repl-pack", "-d"], input=bad, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
		    # In the frames that zstd skips, a bit may not matter: then the stream is the same. Content is checked by
		    # who uses it.
		    assert r.returncode == 4 or len(r.stdout) == len(plain), (i, r.returncode, r.stderr)
		    if r.returncode or r.stdout != plain:
		        r = subprocess.run(["repl-apply", "R"], input=bad, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
		        # An offset that no filesystem takes is found out by it, before the trailer comes.
		        assert r.returncode in (4, 6) or (r.returncode == 1 and b"File too large" in r.stderr), (i, r)
		        if r.stdout:
		            # Behind a stream that was whole, and is in place now.
		            assert all(open("R/" + n, "rb").read() == open("few/" + n, "rb").read() for n in ("small", "text")), i
		            shutil.rmtree("R")
	PY
	[[ -z $(find R -mindepth 1 ! -path 'R/.repl*' 2>/dev/null) ]]
}

# bats test_tags=slow
@test "a packed bomb is refused without the memory for it" {
	python3 -c 'import sys
sys.stdout.buffer.write(b"\0" * 200000000)' | zstd -q --long=27 -19 -T0 >bomb
	# A sanitizer's shadow does not fit into any limit.
	limit="ulimit -v 3000000"
	[[ $REPL_BUILD != *san ]] || limit=:
	run -4 bash -c "$limit; repl-pack -d <bomb >out"
	run -4 bash -c 'repl-apply R <bomb >ack'
	# A frame that wants a window of 2 GiB.
	printf '\x28\xb5\x2f\xfd\x00\xa8' >window
	head -c 100 /dev/zero >>window
	run -4 bash -c 'repl-apply R <window >ack'
	[[ ! -e R || -z $(ls R) ]]
}

@test "levels and sizes out of range are usage errors" {
	for options in "--level 23" "--level x" "-T -1" "--chunk 1K" "--chunk 9M" "--long=5" "--long=40" "--rate x" "operand"; do
		run -2 bash -c "repl-pack $options <plain >packed"
	done
	ZSTD_CLEVEL=19 repl-pack <plain >by-env
	repl-pack --level 19 <plain | cmp - by-env
}
