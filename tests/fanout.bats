#!/usr/bin/env bats
# One packed stream to several replicas, each at another image.

load lib/setup
load lib/trees

setup() {
	common_setup
	cd "$BATS_TEST_TMPDIR" || return 1
}
teardown() { common_teardown; }

@test "a stream that is teed to three replicas brings each as far as it can" {
	small_tree src
	repl-diff src >d0
	cp -a src v0
	for i in 1 2 3; do
		echo "$i" >"src/step $i"
		noise "src/content $i" $((i * 20000))
		cp -a src "v$i"
		repl-diff "v$((i - 1))" "v$i" >"d$i"
	done
	for r in new late here ahead; do repl-apply $r <d0 >ack; done
	rm -r new
	repl-apply here <d1 >ack
	cat d1 d2 d3 | repl-apply ahead >ack
	# What the source still has: the last three changes. The one that needs more says so and stops nobody.
	cat d1 d2 d3 | repl-pack >chain
	run bash -c 'tee >(repl-apply late >ack.late 2>err.late; echo $? >rc.late) \
		>(repl-apply here >ack.here 2>err.here; echo $? >rc.here) \
		>(repl-apply ahead >ack.ahead 2>err.ahead; echo $? >rc.ahead) \
		>(repl-apply new >ack.new 2>err.new; echo $? >rc.new) <chain >/dev/null; wait'
	for r in late here ahead new; do
		until [[ -s rc.$r ]]; do sleep 0.05; done
	done
	[[ $(cat rc.late rc.here rc.ahead rc.new) == $'0\n0\n0\n5' ]] || fail "$(head rc.* err.*)"
	for r in late here ahead; do same_tree v3 $r; done
	[[ $(repl-show ack.late | grep -c '^ack .*action=applied') == 3 ]]
	[[ $(repl-show ack.here | grep -c '^ack .*action=applied') == 2 ]]
	[[ $(repl-show ack.ahead | grep -c '^ack .*action=already') == 1 ]]
	has "$(cat err.new)" "is empty: send everything"
	[[ ! -s err.late && ! -s err.here && ! -s err.ahead && ! -s ack.new ]]
}

@test "a chain with a link missing is applied up to there, and what lacks is named" {
	small_tree src
	repl-diff src >d0
	cp -a src v0
	for i in 1 2 3; do
		echo "$i" >"src/step"
		cp -a src "v$i"
		repl-diff "v$((i - 1))" "v$i" >"d$i"
	done
	repl-apply R <d0 >ack
	run -5 --separate-stderr bash -c 'cat d1 d3 | repl-apply R >ack'
	has "$stderr" "the delta starts from image"
	same_tree v1 R
	[[ $(repl-show ack | grep -c '^ack .*action=applied') == 1 ]]
	run -0 bash -c 'cat d0 d1 d2 d3 | repl-apply R >ack'
	same_tree v3 R
	# Only what is behind: refused, as ever.
	run -5 bash -c 'cat d1 d2 | repl-apply R >ack'
	same_tree v3 R
}
