#compdef docker
# For members of the group jumpsuite, "sudo docker" is the restricted docker; for
# others it is docker's own completion. The digit in this file's name makes it
# the one that zsh takes where both are there.

_jumpsuite_docker_ask() { timeout 3 sudo -n -- docker "$@" 2>/dev/null </dev/null }

_0jumpsuite_docker() {
	if [[ " $(id -Gn) " != *" jumpsuite "* ]]; then
		autoload -Uz _docker && _docker "$@"
		return
	fi
	local -a found
	local verb i
	for ((i = 2; i < CURRENT; i++)); do
		case $words[i] in
		-H|--host|--environment|-l|--log-level) ((i++)) ;;
		-*) ;;
		*) verb=$words[i]; break ;;
		esac
	done
	case $verb in
	'') found=(ps images logs exec stats inspect run pull start create version) ;;
	start) found=(${(f)"$(_jumpsuite_docker_ask ps -a --format '{{.Names}}')"}) ;;
	exec|logs|stats) found=(${(f)"$(_jumpsuite_docker_ask ps --format '{{.Names}}')"}) ;;
	inspect) found=(${(f)"$(_jumpsuite_docker_ask ps -a --format '{{.Names}}')"} ${(f)"$(_jumpsuite_docker_ask images --format '{{.Repository}}:{{.Tag}}')"}) ;;
	run|create|pull) found=(${(f)"$(_jumpsuite_docker_ask images --format '{{.Repository}}:{{.Tag}}')"}) ;;
	esac
	compadd -a found
}

_0jumpsuite_docker "$@"
