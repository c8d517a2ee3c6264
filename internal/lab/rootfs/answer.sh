#!/bin/sh
# Answers one HTTP request on standard input and output, or says nothing.
. /etc/lab/settings
[ "$HTTP" -ge 0 ] && [ "$(age_ms)" -ge "$HTTP_AFTER" ] || exit 0
cr=$(printf '\r')
while read -r line; do
	case "$line" in '' | "$cr") break ;; esac
done
body="$IMAGE on $(hostname): $HTTP"
printf 'HTTP/1.1 %s Lab\r\nContent-Type: text/plain\r\nContent-Length: %s\r\nConnection: close\r\n\r\n%s\n' \
	"$HTTP" "$((${#body} + 1))" "$body"
