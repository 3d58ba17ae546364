#!/usr/bin/env bats
# repl-track --merge: lists of several writers, or of the parts of a group, become one that drives repl-diff.

# Streams have names that shellcheck takes for those of commands.
# shellcheck disable=SC2238

load lib/setup
load lib/trees

# A change stream as "flags path" lines.
listed() {
	repl-show --json "$1" | python3 -c 'import json, sys
at = {1: ""}
for line in sys.stdin:
    r = json.loads(line)
    if r.get("record") == "dir":
        at[r["ref"]] = at[r["parent"]] + "/" + r["name"]
    elif r.get("record") == "changed":
        print(at[r["parent"]] + ("/" + r["name"] if r["name"] else ""))
    elif r.get("record") == "gap":
        print("gap " + (at[r["ref"]] or "/"))' | sort
}

ship_first() {
	repl-snap -s S src | repl-track -s S | repl-diff -s S | repl-apply R | repl-snap -s S --commit
}

@test "the lists of two writers of one tree become one, and the delta made of it is exact" {
	small_tree src
	ship_first
	cp -a S half
	repl-snap -s S src >image
	# What each of them knows of: one list from before the other's changes, one that names only those.
	echo one >>src/etc/app/config
	mkdir src/new
	echo x >src/new/file
	repl-track -s S <image >first
	mv src/home/ada/photo2 src/home/second
	rm src/dangling
	repl-track -s S <image >second
	repl-track --merge first second >both
	diff <(listed both) <({ listed first; listed second; } | sort -u)
	run_pipe 'repl-diff -s S <both | repl-apply R | repl-snap -s S --commit'
	same_tree src R
}

@test "the lists of different members stand beside each other, below their names" {
	mkdir one two
	echo a >one/a
	echo b >two/b
	for m in one two; do
		repl-snap -s "S$m" "$m=$m" "z=$PWD/one" | repl-track -s "S$m" | repl-diff -s "S$m" | repl-apply "R$m" |
			repl-snap -s "S$m" --commit
		echo more >>"$m/${m:0:1}"
		repl-snap -s "S$m" "$m=$m" "z=$PWD/one" | repl-track -s "S$m" >"list$m"
	done
	repl-track --merge listone listtwo >both
	listed both >names
	grep -qx /one/o names
	grep -qx /two/t names
	repl-show --json both | python3 -c 'import json, sys
names = [r["name"] for r in map(json.loads, sys.stdin) if r.get("record") == "member"]
assert names == ["one", "two", "z"], names'
}

@test "what a recorder has kept is a list, too, and each of its batches can be shown" {
	requires ext4
	cd "$(mk_fs ext4 64M)" || return
	mkdir src
	repl-track -v -j "$BATS_TEST_TMPDIR/J" --record src 2>log 3>&- &
	recorder=$!
	until_true grep -q 'recording with' log
	for n in 1 2 3; do
		echo "$n" >src/f$n
		repl-track -j "$BATS_TEST_TMPDIR/J" --cut >cut
	done
	repl-track --merge "$BATS_TEST_TMPDIR/J" >all
	listed all >names
	for n in 1 2 3; do
		grep -qx "$PWD/src/f$n" names
	done
	for b in "$BATS_TEST_TMPDIR"/J/batches/*.repl; do
		repl-show "$b" >text
		grep -q '^change' text
	done
	kill $recorder
	wait $recorder || :
}

# Another machine's writes are told by its own recorder alone: here what happens after this machine's list was made.
# bats test_tags=slow
@test "another machine's journal joins the list of this one, from a place on" {
	requires ext4
	at=$(mk_fs ext4 64M)
	mkdir "$at/src" "$at/src/a" "$at/src/b"
	src=$at/src
	for n in A B; do
		repl-track -v -j "$n" --record "$src" 2>"log$n" 3>&- &
		recorders+=($!)
		until_true grep -q 'recording with' "log$n"
	done
	echo old >"$src/b/old"
	place=B:$(repl-track -j B --cut)
	repl-snap -s S "$src" | repl-track -s S -j A | repl-diff -s S | repl-apply R | repl-snap -s S --commit
	echo this >"$src/a/this"
	repl-snap -s S "$src" | repl-track -s S -j A >ours
	echo new >"$src/b/new"
	next=B:$(repl-track -j B --cut)
	run ! grep -qx /b/new <(listed ours)
	repl-track --merge ours "$place" >both
	listed both >names
	repl-track --merge ours "$place" >both
	listed both >names
	grep -qx /b/new names
	grep -qx /a/this names
	run ! grep -E '^gap|old' names
	run_pipe 'repl-diff -s S <both | repl-apply R | repl-snap -s S --commit'
	same_tree "$src" R
	# Nothing came behind the next place; one that the journal does not know is a gap of everything, with the reason.
	repl-snap -s S "$src" | repl-track -s S -j A >ours
	[[ -z $(repl-track --merge "$next" | listed -) ]]
	run -0 --separate-stderr repl-track --merge -o gap ours "B:00000000000000000000000000000000:1"
	has "$stderr" "the journal 'B' cannot tell what changed: the recorder was started anew"
	[[ $(listed gap) == "gap /" ]]
	run -0 --separate-stderr repl-track --merge -o gap2 ours "${next%:*}:99"
	[[ $(listed gap2) == "gap /" ]]
	# A journal alone is a list by absolute names; a tree that it does not record cannot be told.
	repl-track --merge "$place" | listed - >names
	grep -qx "$src/b/new" names
	mkdir elsewhere
	repl-snap -s T elsewhere | repl-track -s T >theirs
	repl-track --merge -o gap3 theirs "$place"
	[[ $(listed gap3) == "gap /" ]]
	run -2 repl-track --merge ours "$PWD/nothing:$(repl-track -j B --cut)"
	run -1 repl-track --merge ours "B:123"
	kill "${recorders[@]}"
	wait "${recorders[@]}" || :
}

@test "lists that do not go together are refused, and so is what is no list" {
	mkdir one two
	for m in one two; do
		repl-snap -s "S$m" "$m" | repl-track -s "S$m" >"list$m"
	done
	run -5 --separate-stderr repl-track --merge listone listtwo
	[[ -n $stderr ]]
	head -c 40 listone >cut
	run -4 --separate-stderr repl-track --merge listone cut
	has "$stderr" "'cut'"
	repl-diff one >delta
	run -4 --separate-stderr repl-track --merge delta
	has "$stderr" "not a change stream"
	run -1 --separate-stderr repl-track --merge missing
	has "$stderr" "'missing'"
	run -2 --separate-stderr repl-track --merge one
	run -2 --separate-stderr repl-track -s Sone --merge listone
}
