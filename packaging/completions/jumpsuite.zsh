#compdef r3 r3-container r3-admin r3-ssm r3-ecr r3-dockerproxy show-ecs-service-status show-ecs-service-status.py
# Completions of jumpsuite's commands for zsh. What a program answers is split
# into lines; the shell evaluates none of it.

# @TABLES@

_jumpsuite_ask() { timeout 3 sudo -n -- "$@" 2>/dev/null </dev/null }

_jumpsuite_value() {
	local -a found
	case $1 in
	--container-type|--service|-s) found=(${(f)"$(_jumpsuite_ask r3-container list --container-types | tr -d "[]' " | tr ',' '\n')"}) ;;
	--strategy) found=(rolling replacing) ;;
	--output|-o) found=(table text json yaml) ;;
	--on-interrupt) found=(leave rollback) ;;
	--agent-check) found=(off record require) ;;
	--verdict) found=(allow deny) ;;
	--container-status) found=(lookup) ;;
	--host|-H) found=(${(f)"$(_jumpsuite_ask r3-container list | sed -n 's/^host: \([^ |]*\).*/\1/p')"}) ;;
	--policy|--log|--audit|--leases) _files; return ;;
	esac
	compadd -a found
}

_jumpsuite() {
	local at=${words[1]:t:r} before=${words[CURRENT-1]} i
	[[ ${words[1]:t} == *.py ]] || at=${words[1]:t}
	for ((i = 2; i < CURRENT; i++)); do
		[[ " ${_jumpsuite_commands[$at]} " == *" ${words[i]} "* ]] && at+=_${words[i]}
	done
	if [[ $before == -* && " ${_jumpsuite_valued[$at]} " == *" $before "* ]]; then
		_jumpsuite_value $before
	elif [[ $PREFIX == -* ]]; then
		compadd -- ${=_jumpsuite_flags[$at]}
	else
		compadd -- ${=_jumpsuite_commands[$at]}
	fi
}

_jumpsuite "$@"
