# Completions of jumpsuite's commands for bash. What a program answers is split
# into lines and compared; the shell evaluates none of it.

# @TABLES@

# What a caller may list: nothing, when the policy says no, or AWS is slow.
_jumpsuite_ask() { timeout 3 sudo -n -- "$@" 2>/dev/null </dev/null; }
_jumpsuite_types() { _jumpsuite_ask r3-container list --container-types | tr -d "[]' " | tr ',' '\n'; }
_jumpsuite_hosts() { _jumpsuite_ask r3-container list | sed -n 's/^host: \([^ |]*\).*/\1/p'; }
_jumpsuite_containers() { _jumpsuite_ask docker ps "$@" --format '{{.Names}}'; }
_jumpsuite_images() { _jumpsuite_ask docker images --format '{{.Repository}}:{{.Tag}}' | grep -v '<none>'; }

# _jumpsuite_reply CURRENT: the lines of standard input that begin with it.
_jumpsuite_reply() {
	local line
	while IFS= read -r line; do
		[[ $line == "$1"* && $line =~ ^[A-Za-z0-9@_./:-]+$ ]] && COMPREPLY+=("$line")
	done
	return 0
}

_jumpsuite_value() {
	case $1 in
	--container-type | --service | -s) _jumpsuite_types ;;
	--strategy) printf '%s\n' rolling replacing ;;
	--output | -o) printf '%s\n' table text json yaml ;;
	--on-interrupt) printf '%s\n' leave rollback ;;
	--agent-check) printf '%s\n' off record require ;;
	--verdict) printf '%s\n' allow deny ;;
	--container-status) echo lookup ;;
	--host | -H) _jumpsuite_hosts ;;
	--policy | --log | --audit | --leases) compgen -f -- "$2" ;;
	esac
}

_jumpsuite() {
	local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
	local at=${COMP_WORDS[0]##*/} i word
	COMPREPLY=()
	at=${at%.py}
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		[[ " ${_jumpsuite_commands[$at]} " == *" $word "* ]] && at+=" $word"
	done
	if [[ " ${_jumpsuite_valued[$at]} " == *" $before "* && $before == -* ]]; then
		_jumpsuite_reply "$current" < <(_jumpsuite_value "$before" "$current")
	elif [[ $current == -* ]]; then
		_jumpsuite_reply "$current" < <(printf '%s\n' ${_jumpsuite_flags[$at]})
	else
		_jumpsuite_reply "$current" < <(printf '%s\n' ${_jumpsuite_commands[$at]})
	fi
}

_jumpsuite_verbs='ps images logs exec stats inspect run pull start create version'

_jumpsuite_docker() {
	local current=${COMP_WORDS[COMP_CWORD]} verb='' i
	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-H | --host | --environment | -l | --log-level) ((i++)) ;;
		-*) ;;
		*)
			verb=${COMP_WORDS[i]}
			break
			;;
		esac
	done
	if [[ ${COMP_WORDS[COMP_CWORD-1]} == -H || ${COMP_WORDS[COMP_CWORD-1]} == --host ]]; then
		_jumpsuite_reply "$current" < <(_jumpsuite_hosts)
		return
	fi
	case $verb in
	'') _jumpsuite_reply "$current" < <(printf '%s\n' $_jumpsuite_verbs) ;;
	start) _jumpsuite_reply "$current" < <(_jumpsuite_containers -a) ;;
	exec | logs | stats) _jumpsuite_reply "$current" < <(_jumpsuite_containers) ;;
	inspect) _jumpsuite_reply "$current" < <(_jumpsuite_containers -a && _jumpsuite_images) ;;
	run | create | pull) _jumpsuite_reply "$current" < <(_jumpsuite_images) ;;
	esac
}

complete -F _jumpsuite r3 r3-container r3-admin r3-ssm r3-ecr r3-dockerproxy \
	show-ecs-service-status show-ecs-service-status.py
