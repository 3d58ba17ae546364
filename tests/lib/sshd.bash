# shellcheck shell=bash
# A real sshd on 127.0.0.1, on a free port, with keys of its own: for the tests (by way of setup.bash), the demo and
# the bench.
#
#   sshd_start DIR   keeps its files in DIR; afterwards "${SSH[@]}" COMMAND runs COMMAND through it, with our PATH.
#                    SSHD_PORT and SSHD_DIR say the rest. Fails, and says why, when sshd does not answer
#   sshd_stop DIR    ends it and removes DIR

sshd_start() {
	local at=$1 sshd port try try_n pid
	sshd=$(PATH=$PATH:/usr/sbin:/sbin command -v sshd) || {
		echo "the command sshd is missing" >&2
		return 1
	}
	mkdir -p "$at"
	[[ $(id -u) != 0 || -d /run/sshd ]] || mkdir -m 755 /run/sshd
	[[ -e $at/host ]] || ssh-keygen -q -t ed25519 -N '' -f "$at/host"
	[[ -e $at/id ]] || ssh-keygen -q -t ed25519 -N '' -f "$at/id"
	[[ -e $at/authorized_keys ]] || cp "$at/id.pub" "$at/authorized_keys"
	# SHLVL: bash(1) that was started by sshd reads ~/.bashrc, whatever is in there, unless it is told that it is not the first
	# shell. What it does is neither ours to measure (it took 0.7 s of 0.9 where it set up a version manager) nor to depend on.
	for try in 1 2 3 4 5; do
		port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
		cat >"$at/config" <<-EOF
			ListenAddress 127.0.0.1
			Port $port
			HostKey $at/host
			PidFile $at/pid
			AuthorizedKeysFile $at/authorized_keys
			StrictModes no
			UsePAM no
			PermitRootLogin yes
			PasswordAuthentication no
			SetEnv PATH=$PATH SHLVL=1
			Subsystem sftp internal-sftp
		EOF
		# Descriptor 3 is what bats waits for.
		"$sshd" -D -f "$at/config" -E "$at/log" 3>&- </dev/null &
		pid=$!
		SSH=(ssh -F none -p "$port" -i "$at/id" -o IdentitiesOnly=yes -o BatchMode=yes -o LogLevel=ERROR
			-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=5
			"$(id -un)@127.0.0.1")
		for ((try_n = 0; try_n < 50; try_n++)); do
			kill -0 "$pid" 2>/dev/null || break
			if "${SSH[@]}" true 2>"$at/ssh.log"; then
				echo "$pid" >>"$at/pids"
				SSHD_PORT=$port SSHD_DIR=$at
				export SSHD_PORT SSHD_DIR
				return 0
			fi
			sleep 0.1
		done
		kill "$pid" 2>/dev/null || :
		wait "$pid" || :
	done
	cat "$at/log" "$at/ssh.log" >&2
	echo "sshd does not answer (try $try)" >&2
	return 1
}

sshd_stop() {
	local pid
	[[ -e $1/pids ]] || return 0
	while read -r pid; do
		kill "$pid" 2>/dev/null || :
		wait "$pid" 2>/dev/null || :
	done <"$1/pids"
	rm -rf "$1"
}
