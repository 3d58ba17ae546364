# shellcheck shell=bash
# Streams made by hand (tests/lib/craft.py), by one python that lives as long as the test.
#
#   craft FILE               runs the python on standard input, with s a delta against nothing, and saves s as FILE
#   craft_on REPLICA FILE    the same with s a delta against what REPLICA holds, whose END promises nothing true

craft_run() {
	local code answer
	code=$(cat)
	if [[ -z ${CRAFT_PID:-} ]]; then
		# shellcheck disable=SC2154 # setup.bash sets it
		coproc CRAFT { PYTHONPATH=$repl_root/tests/lib PYTHONDONTWRITEBYTECODE=1 exec python3 -u -c '
import sys, traceback
text = b""
while piece := sys.stdin.buffer.raw.read(65536):
    *codes, text = (text + piece).split(b"\0")
    for code in codes:
        try:
            names = {}
            exec("from craft import *", names)
            exec(code.decode(), names)
            print("ok")
        except Exception:
            traceback.print_exc()
            print("failed")' 3>&-; }
	fi
	printf '%s\0' "$code" >&"${CRAFT[1]}"
	read -r answer <&"${CRAFT[0]}"
	[[ $answer == ok ]] || fail "cannot craft: $code"
}

craft() {
	craft_run < <(
		echo 's = Delta()'
		cat
		echo "s.save('$1')"
	)
}

craft_on() {
	repl-snap --digest "$1" >held.img
	craft_run < <(
		echo 'd = open("held.img", "rb").read()'
		echo 's = Delta(base=d[24:56], root=False)'
		echo 's.id = lambda ref=1: bytes(32)'
		cat
		echo "s.save('$2')"
	)
}
