#!/usr/bin/env bats
# The stream as its page describes it: what was written once is read for ever, and a reader written from the page alone agrees.

load lib/setup
load lib/trees

golden=$BATS_TEST_DIRNAME/golden
reader=$BATS_TEST_DIRNAME/lib/repl-stream-reader

@test "streams of every kind from every release read as they did" {
	for s in "$golden"/*.repl; do
		repl-show "$s" >text
		diff "${s%.repl}.txt" text
	done
}

@test "the reader written from repl-stream(5) agrees with repl-show, record for record" {
	for s in "$golden"/*.repl "$golden"/*.zst; do
		repl-show --json "$s" >ours
		"$reader" "$s" >theirs
		diff ours theirs
	done
}

@test "the tables of repl-stream(5) are those of the reader" {
	"$reader" --page "$repl_root/man/repl-stream.5"
}

@test "streams made from a real tree agree too, plain and packed" {
	cp -a /usr/share/man/man7 src 2>/dev/null || cp -a /usr/include/linux src
	repl-diff src >plain
	repl-pack <plain >packed
	repl-snap --digest src >image
	for s in plain packed image; do
		repl-show --json "$s" >ours
		"$reader" "$s" >theirs
		cmp ours theirs
	done
}

@test "base objects have numbers where another record names them, and nowhere else" {
	mkdir -p a/dir b/dir b/other
	for f in touched edited linked moved source; do
		python3 -c "import random; print(random.Random('$f').randbytes(6000).hex())" >a/dir/$f
	done
	cp -p a/dir/* b/dir
	chmod 600 b/dir/touched
	echo more >>b/dir/edited
	ln b/dir/linked b/other/link
	mv b/dir/moved b/other
	{ echo new && cat a/dir/source; } >b/dir/copy
	repl-diff a b >d.repl
	repl-show d.repl >text
	for f in touched edited; do
		grep -q "^base ref=0 .* path='dir/$f'" text || fail "$f: $(grep ^base text)"
	done
	! grep '^base ref=0' text | grep -qvE "'dir/(touched|edited)'" || fail "$(grep ^base text)"
	"$reader" d.repl >/dev/null
	repl-diff a | repl-apply R >ack
	repl-apply R <d.repl >ack
	same_tree b R
	repl-apply --verify R
}

@test "what a file grew by is sent, what moved in it is not" {
	mkdir a grown moved
	noise a/log 3000000
	{ cat a/log && head -c 1000000 a/log; } >grown/log
	{ echo first && cat a/log; } >moved/log
	repl-diff a grown >d.repl
	repl-show d.repl >text
	! grep ^copy text || fail "$(grep ^copy text)"
	(($(stat -c %s d.repl) > 1000000))
	repl-diff a | repl-apply R >ack
	repl-apply R <d.repl >ack
	same_tree grown R
	repl-diff a moved >d.repl
	(($(stat -c %s d.repl) < 20000))
}
