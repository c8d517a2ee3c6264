# Completions of jumpsuite's commands for fish. What a program answers is split
# into lines; the shell evaluates none of it.

function __jumpsuite_ask
    timeout 3 sudo -n -- $argv 2>/dev/null </dev/null
end

function __jumpsuite_types
    __jumpsuite_ask r3-container list --container-types | tr -d "[]' " | tr ',' '\n'
end

function __jumpsuite_values
    switch $argv[1]
        case --container-type --service
            __jumpsuite_types
        case --strategy
            printf '%s\n' rolling replacing
        case --output
            printf '%s\n' table text json yaml
        case --on-interrupt
            printf '%s\n' leave rollback
        case --agent-check
            printf '%s\n' off record require
        case --verdict
            printf '%s\n' allow deny
        case --container-status
            echo lookup
        case --host
            __jumpsuite_ask r3-container list | sed -n 's/^host: \([^ |]*\).*/\1/p'
        case --policy --log --audit --leases
            __fish_complete_path
    end
end

# __jumpsuite_at WORD…: whether these are the words so far, sudo, options and the
# values of options aside.
function __jumpsuite_at
    set -l said
    for word in (commandline -opc)
        switch $word
            case sudo '-*'
            case '*'
                set -a said (string replace -ra '.*/|\.py$' '' -- $word)
        end
    end
    set -l n (count $argv)
    test (count $said) -ge $n; or return 1
    test "$said[1..$n]" = "$argv"; or return 1
    set -l next (math $n + 1)
    not contains -- "$said[$next]" list deploy show wait rollback deployments debug policy audit keys check explain verify replay trust revoke rotate container serve hosts where dial enrol
end

function __jumpsuite_member
    test (id -u) -ne 0; and contains jumpsuite (id -Gn | string split ' ')
end

# __jumpsuite_verb VERB…: whether one of these is docker's verb; none given: whether
# there is none yet.
function __jumpsuite_verb
    set -l words (commandline -opc)
    set -l i 2
    while test $i -le (count $words)
        switch $words[$i]
            case -H --host --environment -l --log-level
                set i (math $i + 1)
            case '-*'
            case '*'
                contains -- $words[$i] $argv
                return
        end
        set i (math $i + 1)
    end
    test (count $argv) -eq 0
end
complete -c docker -f -n '__jumpsuite_member; and __jumpsuite_verb' -a 'ps images logs exec stats inspect run pull start create version'
complete -c docker -f -n '__jumpsuite_member; and __jumpsuite_verb exec logs stats' -a "(__jumpsuite_ask docker ps --format '{{.Names}}')"
complete -c docker -f -n '__jumpsuite_member; and __jumpsuite_verb start inspect' -a "(__jumpsuite_ask docker ps -a --format '{{.Names}}')"
complete -c docker -f -n '__jumpsuite_member; and __jumpsuite_verb run create pull inspect' -a "(__jumpsuite_ask docker images --format '{{.Repository}}:{{.Tag}}')"

# @TABLES@
